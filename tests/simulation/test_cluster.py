"""The replies of the simulated nodes, case by case, as in CouchDB's sources."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.simulation.cluster import Cluster, Delays, Node
from tests.simulation.documents import CONFLICT, Revision, Shard, Tree, new_rev
from tests.simulation.scheduler import Scheduler

AVAILABLE = {"pvt_status": "available"}
ID = "192.0.2.1"


@pytest.fixture
def cluster() -> Cluster:
    """Three nodes with one document. Anti-entropy is too slow to have an effect in a test."""
    tree = Tree()
    tree.merge([Revision(new_rev(False, None, AVAILABLE), None, False, AVAILABLE)])
    return Cluster(Scheduler(1), Delays(sync=100), {"pool": {ID: tree}})


REV = new_rev(False, None, AVAILABLE)


def result_of(cluster: Cluster, act: Callable[[Callable[..., None]], None]) -> Any:
    """Start a request and return its result."""
    results: list[Any] = []
    act(lambda *result: results.append(result))
    cluster.scheduler.run(lambda: bool(results))
    return results[0] if len(results[0]) > 1 else results[0][0]


def write(
    cluster: Cluster, node: Node, rev: str | None = REV, w: int = 2, **fields: Any
) -> tuple[str, list[Any]]:
    """Write the document through a node."""
    document = {"_id": ID, **({"_rev": rev} if rev else {}), **fields}
    result: tuple[str, list[Any]] = result_of(
        cluster, lambda done: cluster.update(node, "pool", [document], w, done)
    )
    return result


def isolate(cluster: Cluster, node: Node) -> None:
    """Cut the connections of a node to the other nodes."""
    for other in cluster.nodes:
        if other is not node:
            cluster.cut.add(frozenset((node.name, other.name)))


def leaves(node: Node) -> list[str]:
    """Return the leaf revisions of a node's replica."""
    return list(node.shards["pool"].trees[ID].leaves)


def test_a_write_that_a_majority_accepts_is_done(cluster: Cluster) -> None:
    health, [rev] = write(cluster, cluster.nodes[0], who="X")
    assert (health, rev[:2]) == ("ok", "2-")


def test_a_write_that_one_replica_accepts_is_202(cluster: Cluster) -> None:
    isolate(cluster, cluster.nodes[0])
    health, [(rev,)] = write(cluster, cluster.nodes[0], who="X")
    assert (health, rev[:2]) == ("accepted", "2-")


def test_a_write_that_one_replica_accepts_and_two_refuse_is_202(cluster: Cluster) -> None:
    isolate(cluster, cluster.nodes[0])
    assert write(cluster, cluster.nodes[1], who="X")[0] == "ok"
    cluster.scheduler.run_for(1)
    cluster.cut.clear()
    assert write(cluster, cluster.nodes[1], who="Y")[0] == "accepted"


def test_a_write_at_an_old_revision_is_refused(cluster: Cluster) -> None:
    write(cluster, cluster.nodes[0], who="X")
    cluster.scheduler.run_for(1)
    assert write(cluster, cluster.nodes[1], who="Y") == ("ok", [CONFLICT])


def test_a_write_that_no_replica_answers_fails(cluster: Cluster) -> None:
    isolate(cluster, cluster.nodes[0])
    cluster.cut.add(frozenset(("node1",)))  # not even its own replica
    assert write(cluster, cluster.nodes[0], who="X")[0] == "error"


def test_a_replicated_revision_counts_as_done_on_any_node(cluster: Cluster) -> None:
    isolate(cluster, cluster.nodes[0])
    path = [Revision("2-aa", REV, False, {"who": "X"}), Revision(REV, None)]
    health, _ = result_of(
        cluster, lambda done: cluster.graft(cluster.nodes[0], "pool", [(ID, path)], done)
    )
    assert health == "ok"  # only a single replica has it
    assert [leaves(node) for node in cluster.nodes] == [["2-aa"], [REV], [REV]]


def test_a_live_revision_wins_over_a_longer_deleted_one(cluster: Cluster) -> None:
    shard = cluster.nodes[0].shards["pool"]
    shard.replicate(ID, [[Revision("2-aa", REV, False, {}), Revision(REV, None)]])
    shard.replicate(
        ID,
        [[Revision("3-bb", "2-cc", True, {}), Revision("2-cc", REV), Revision(REV, None)]],
    )
    tree = shard.trees[ID]
    assert (tree.winner.rev, tree.conflicts) == ("2-aa", ())


def test_a_deleted_document_is_created_again_on_its_tombstone_only() -> None:
    shard = Shard()
    first = shard.write({"_id": ID})
    tombstone = shard.write({"_id": ID, "_rev": first, "_deleted": True})
    assert shard.write({"_id": ID, "_rev": tombstone, "who": "X"}) == CONFLICT
    assert shard.write({"_id": ID, "who": "X"})[:2] == "3-"


def test_branches_are_merged_if_their_common_ancestors_are_known() -> None:
    tree = Tree()
    tree.merge([Revision("2-b", "1-a", False, {}), Revision("1-a", None, False, {})])
    tree.merge([Revision("4-d", "3-c", False, {}), Revision("3-c", None)])
    assert list(tree.leaves) == ["2-b", "4-d"]
    tree.merge([Revision(rev, parent) for rev, parent in _chain("4-d", "3-c", "2-b", "1-a")])
    assert list(tree.leaves) == ["4-d"]


def _chain(*revs: str) -> Sequence[tuple[str, str | None]]:
    return list(zip(revs, [*revs[1:], None], strict=True))


def test_a_read_sees_the_write_of_a_majority_and_repairs_the_others(cluster: Cluster) -> None:
    isolate(cluster, cluster.nodes[0])
    _, [rev] = write(cluster, cluster.nodes[1], who="X")
    cluster.scheduler.run_for(1)
    cluster.cut.clear()
    cluster.cut.add(frozenset(("node1", "node3")))
    opened = result_of(cluster, lambda done: cluster.open(cluster.nodes[0], "pool", ID, 2, done))
    assert opened.path[0].rev == rev
    cluster.scheduler.run_for(1)
    assert leaves(cluster.nodes[0]) == [rev]


def test_all_leaves_are_read_from_all_replicas(cluster: Cluster) -> None:
    for node, who in zip(cluster.nodes[:2], "XY", strict=True):
        isolate(cluster, node)
        write(cluster, node, who=who)
        cluster.cut.clear()
    found = result_of(
        cluster, lambda done: cluster.open_revs(cluster.nodes[2], "pool", ID, 3, done)
    )
    assert sorted(revision.body["who"] for revision, *_ in found) == ["X", "Y"]


def test_replicas_agree_again_after_a_while(cluster: Cluster) -> None:
    cluster.delays.sync = 1
    isolate(cluster, cluster.nodes[0])
    write(cluster, cluster.nodes[0], who="X")
    write(cluster, cluster.nodes[1], who="Y")
    cluster.scheduler.run_for(5)
    cluster.heal()
    cluster.scheduler.run_for(5)
    assert len({tuple(sorted(leaves(node))) for node in cluster.nodes}) == 1
    assert len(leaves(cluster.nodes[0])) == 2


def test_requests_in_progress_on_a_dead_node_are_lost(cluster: Cluster) -> None:
    results: list[Any] = []
    document = {"_id": ID, "_rev": REV, "who": "X"}
    cluster.update(cluster.nodes[0], "pool", [document], 2, lambda *a: results.append(a))
    cluster.crash(cluster.nodes[0])
    cluster.scheduler.run_for(5)
    assert results == []
    assert leaves(cluster.nodes[0]) == [REV]
    assert leaves(cluster.nodes[1]) != [REV]
