"""Three nodes, each with a replica of every database, and their coordinators.

They behave as in CouchDB 3.5.0: `fabric_doc_update.erl`, `fabric_doc_open.erl`,
`fabric_open_revs.erl`, `fabric_doc_open_revs.erl`, `fabric_view*.erl` and `mem3_sync.erl`. A
coordinator sends a request to all replicas and replies as soon as a quorum has replied to it. A
replica that receives the request later carries it out as well. Not simulated: several shards
(q=1), the coordinator's own timeout, which is longer than any client's, and `validate_doc_update`.

This module knows nodes and the messages between them. It knows neither HTTP nor the service.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.simulation.documents import (
    CONFLICT,
    COUNTED,
    Document,
    Revision,
    Shard,
    Tree,
    collated,
    rank,
    to_json,
)
from tests.simulation.scheduler import Scheduler

DOWN = object()
"""In place of a reply: the node is down or unreachable (`rexi_DOWN`)."""
MISSING = "missing"
NO_REPLY = "noreply"


@dataclass
class Delays:
    """Mean delays, in seconds.

    Messages from one node to another arrive in the order in which they were sent. Then processes
    of the node handle them independently, so they can finish in another order.
    `tests/simulation/test_calibration.py` compares the results with a real cluster.

    :param transit: of a message from one node to another
    :param work: until a replica has handled a request
    :param slow: how often the work takes `extra` in addition
    :param sync: from a write until the replicas are compared (anti-entropy)
    """

    transit: float = 0.0005
    work: float = 0.00001
    slow: float = 0.0
    extra: float = 0.05
    sync: float = 1.0


Receive = Callable[[Any], None]


class Node:
    """One node: a coordinator, and a replica of each database."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.life = 0
        """How often it was restarted. Requests from before a restart are lost."""
        self.paused_until = 0.0
        self.shards: dict[str, Shard] = {}
        self.synced: dict[tuple[str, str], int] = {}
        """For each database and each other node: the last change that was sent to that node."""


@dataclass
class _Update:
    waiting: int
    w: int
    replies: list[list[str]] = field(default_factory=list)
    over: bool = False


class Cluster:
    """The nodes and the network between them.

    :param shards: the documents of each database at the start, the same on every node
    """

    def __init__(
        self, scheduler: Scheduler, delays: Delays, shards: Mapping[str, Mapping[str, Tree]]
    ) -> None:
        self.scheduler = scheduler
        self.delays = delays
        self.nodes = [Node(f"node{i}") for i in (1, 2, 3)]
        self.cut: set[frozenset[str]] = set()
        """The pairs of nodes that cannot reach each other."""
        self.message_loss = 0.0
        """How often a message between nodes is lost without an error."""
        for node in self.nodes:
            node.shards = {name: Shard(trees) for name, trees in shards.items()}
            for name, shard in node.shards.items():
                node.synced |= {(name, peer.name): shard.seq for peer in self.nodes}
        self._syncing: set[tuple[str, str]] = set()
        self._last: dict[tuple[str, str], float] = {}
        self.on_crash: Callable[[Node], None] = lambda node: None

    # Faults of nodes.

    def crash(self, node: Node) -> None:
        """Kill a node. Its writes are durable."""
        node.up = False
        node.life += 1
        self.on_crash(node)

    def start(self, node: Node) -> None:
        """Start a node again."""
        node.up = True
        node.paused_until = 0.0
        self._sync_soon(node)
        for peer in self.nodes:
            self._sync_soon(peer)

    def pause(self, node: Node, seconds: float) -> None:
        """Pause a node for a time. Messages to it wait."""
        node.paused_until = max(node.paused_until, self.scheduler.now + seconds)

    def heal(self) -> None:
        """End all faults of nodes and of the connections between them."""
        self.cut.clear()
        self.message_loss = 0.0
        self.delays.slow = 0.0
        for node in self.nodes:
            self.start(node)

    def can_reach(self, one: Node, other: Node) -> bool:
        """Whether both are up and can reach each other."""
        return one.up and other.up and not self._is_cut(one, other)

    def _is_cut(self, one: Node, other: Node) -> bool:
        return bool(self.cut) and frozenset((one.name, other.name)) in self.cut

    # Messages.

    def _transit_time(self, origin: Node, node: Node) -> float:
        """Return the random transit time of a message; no message overtakes an earlier one."""
        if origin is node:
            return 0.0
        now, key = self.scheduler.now, (origin.name, node.name)
        mean = self.delays.transit
        arrival = max(
            now + mean / 2 + self.scheduler.chance.expovariate(2 / mean), self._last.get(key, 0.0)
        )
        self._last[key] = arrival
        return arrival - now

    def _work(self) -> float:
        """Return the random time that a replica takes for a request."""
        chance = self.scheduler.chance
        seconds = chance.expovariate(1 / self.delays.work)
        if self.delays.slow and chance.random() < self.delays.slow:
            seconds += chance.expovariate(1 / self.delays.extra)
        return seconds

    def call(
        self, origin: Node, node: Node, work: Callable[[Node], Any], receive: Receive
    ) -> None:
        """Send a request to a node. Its reply, or DOWN, returns unless the origin is killed."""
        origin_life, node_life = origin.life, node.life

        def return_reply(result: Any) -> None:
            if origin.up and origin.life == origin_life:
                lost = result is not DOWN and not self.can_reach(origin, node)
                self.when_awake(origin, lambda: receive(DOWN if lost else result))

        def arrive() -> None:
            # A message that was sent arrives even if its origin was killed since.
            unreachable = node.life != node_life or self._is_cut(origin, node)
            result = DOWN if unreachable else work(node)
            self.scheduler.after(self._transit_time(node, origin), return_reply, result)

        if not self.can_reach(origin, node):
            self.scheduler.after(self.delays.transit, return_reply, DOWN)
        elif not self._is_lost(origin, node):
            seconds = self._transit_time(origin, node) + self._work()
            self.scheduler.after(seconds, self.when_awake, node, arrive)

    def _is_lost(self, origin: Node, node: Node) -> bool:
        possible = self.message_loss and origin is not node
        return bool(possible and self.scheduler.chance.random() < self.message_loss)

    def when_awake(self, node: Node, act: Callable[[], None]) -> None:
        """Call a function as soon as the node is not paused."""
        life = node.life
        if self.scheduler.now < node.paused_until:
            wait = node.paused_until - self.scheduler.now
            again = lambda: self.when_awake(node, act) if node.life == life else act()  # noqa: E731
            self.scheduler.after(wait, again)
        else:
            act()

    # Databases.

    def exists(self, database: str) -> bool:
        """Whether the database exists."""
        return database in self.nodes[0].shards

    def create(self, database: str) -> None:
        """Create a database on all nodes at once."""
        for node in self.nodes:
            node.shards[database] = Shard()
            node.synced |= {(database, peer.name): 0 for peer in self.nodes}

    # Writes.

    def update(
        self,
        origin: Node,
        database: str,
        documents: Sequence[Document],
        w: int,
        done: Callable[[str, list[Any]], None],
    ) -> None:
        """Write new revisions.

        :param w: the quorum
        :param done: called with `ok`, `accepted` or `error`, and a result for each document: its
            revision, `(revision,)` if it has no quorum, CONFLICT, or None if no replica replied
        """

        def work(node: Node) -> list[str]:
            shard = node.shards[database]
            results = [shard.write(document) for document in documents]
            self._sync_soon(node)
            return results

        self._update(origin, len(documents), w, work, done)

    def graft(
        self,
        origin: Node,
        database: str,
        documents: Sequence[tuple[str, Sequence[Revision]]],
        done: Callable[[str, list[Any]], None],
    ) -> None:
        """Write given revisions, as replication does.

        :param documents: pairs of an id and a path: a leaf revision and its ancestors
        """

        def work(node: Node) -> list[str]:
            for document_id, path in documents:
                node.shards[database].replicate(document_id, [path])
            self._sync_soon(node)
            return [NO_REPLY] * len(documents)

        self._update(origin, len(documents), 2, work, done)

    def _update(
        self,
        origin: Node,
        count: int,
        w: int,
        work: Callable[[Node], list[str]],
        done: Callable[[str, list[Any]], None],
    ) -> None:
        state = _Update(len(self.nodes), w, [[] for _ in range(count)])

        def receive(results: Any) -> None:
            if state.over:
                return
            state.waiting -= 1
            if results is not DOWN:
                for replies, result in zip(state.replies, results, strict=True):
                    replies.append(result)
                quorums = [_quorum(replies, w) for replies in state.replies]
                if state.waiting and all(quorums):
                    state.over = True
                    done("ok", quorums)
                    return
            if not state.waiting:
                state.over = True
                done(*_final_replies(state.replies, w))

        for node in self.nodes:
            self.call(origin, node, work, receive)

    # Reads.

    def open(
        self, origin: Node, database: str, document_id: str, r: int, done: Callable[[Any], None]
    ) -> None:
        """Read the winning revision.

        :param r: the quorum
        :param done: called with an `Opened`, or with None if no replica replied
        """
        acc = _Open(self, origin, database, document_id, min(r, 3), done)
        for node in self.nodes:
            self.call(origin, node, acc.work, acc.receive)

    def open_revs(
        self,
        origin: Node,
        database: str,
        document_id: str,
        r: int,
        done: Callable[[list[tuple[Revision, ...]] | None], None],
    ) -> None:
        """Read all leaf revisions, each with its ancestors; None if no replica replied."""
        acc = _OpenRevs(self, origin, database, document_id, r, done)
        for node in self.nodes:
            self.call(origin, node, acc.work, acc.receive)

    def bulk_get(
        self,
        origin: Node,
        database: str,
        ids: Sequence[str],
        done: Callable[[list[list[tuple[Revision, ...]]] | None], None],
    ) -> None:
        """Read all leaf revisions of many documents, each with its ancestors.

        None if too few replicas replied.
        """
        acc = _BulkGet(len(self.nodes), ids, database, done)
        for node in self.nodes:
            self.call(origin, node, acc.work, acc.receive)

    def one_replica(
        self, origin: Node, work: Callable[[Node], Any], done: Callable[[Any], None]
    ) -> None:
        """Read from the fastest replica, then from the next if it is down; DOWN if all are."""
        chance, mean = self.scheduler.chance, self.delays.transit
        delays = {node.name: mean * chance.random() * (node is not origin) for node in self.nodes}
        nodes = sorted(self.nodes, key=lambda node: delays[node.name] + self._work())

        def send(left: list[Node]) -> None:
            if not left:
                done(DOWN)
                return
            self.call(origin, left[0], work, lambda r: send(left[1:]) if r is DOWN else done(r))

        send(nodes)

    # Replication between the replicas.

    def repair(
        self,
        origin: Node,
        database: str,
        documents: Sequence[tuple[str, Sequence[Revision]]],
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Write revisions that one replica has to all replicas (read repair)."""
        self.graft(origin, database, documents, lambda health, results: done())

    def _sync_soon(self, node: Node) -> None:
        for peer in self.nodes:
            key = (node.name, peer.name)
            if peer is not node and key not in self._syncing:
                self._syncing.add(key)
                self.scheduler.after(
                    self.delays.sync * self.scheduler.chance.uniform(0.5, 1.5),
                    self._sync,
                    node,
                    peer,
                )

    def _sync(self, node: Node, peer: Node) -> None:
        """Send another node the changes that it lacks (anti-entropy)."""
        self._syncing.discard((node.name, peer.name))
        if not self.can_reach(node, peer):
            return  # `start` and `join` schedule it again
        batches = {
            name: [(i, shard.leaf_paths(i)) for i in shard.changed_since(since)]
            for name, shard in node.shards.items()
            if shard.seq > (since := node.synced[name, peer.name])
        }
        reached = {name: node.shards[name].seq for name in batches}

        def work(receiver: Node) -> None:
            for name, documents in batches.items():
                for document_id, paths in documents:
                    receiver.shards[name].replicate(document_id, paths)

        if batches:
            self.call(node, peer, work, partial(self._synced, node, peer, reached))

    def _synced(self, node: Node, peer: Node, reached: Mapping[str, int], result: Any) -> None:
        if result is DOWN:
            self._sync_soon(node)
            return
        for name, seq in reached.items():
            node.synced[name, peer.name] = max(node.synced[name, peer.name], seq)

    def join(self, one: Node, other: Node) -> None:
        """Connect two nodes again."""
        self.cut.discard(frozenset((one.name, other.name)))
        self._sync_soon(one)
        self._sync_soon(other)


def _quorum(replies: Sequence[str], w: int) -> str | None:
    """Return the successful reply that a quorum of replicas gave; None if there is none."""
    for reply in sorted(set(replies)):
        if reply != CONFLICT and replies.count(reply) >= w:
            return reply
    return None


def _final_replies(replies: Sequence[Sequence[str]], w: int) -> tuple[str, list[Any]]:
    """Return the coordinator's reply when no more replies will arrive (`force_reply`)."""
    health, results = "ok", []
    for each in replies:
        quorum = _quorum(each, w)
        accepted = next((r for r in each if r not in (CONFLICT, NO_REPLY)), None)
        if not each:
            health = "error"
            results.append(None)
        elif quorum or accepted is None:
            # Without a quorum all replies are equal: conflicts, or grafts on too few replicas.
            results.append(quorum or each[0])
        else:
            health = "accepted" if health == "ok" else health
            results.append((accepted,))
    return health, results


@dataclass(frozen=True)
class Opened:
    """A document of one replica.

    :param path: the winning revision and its ancestors; empty if the document is missing
    :param conflicts: the other live leaf revisions
    """

    path: tuple[Revision, ...]
    conflicts: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether the document exists and is not deleted."""
        return bool(self.path) and not self.path[0].deleted

    @property
    def key(self) -> tuple[Any, ...]:
        """The key by which the replies of two replicas are compared."""
        return (self.path[0].rev if self.path else MISSING, self.conflicts)


@dataclass
class _DocumentRead:
    """A read of one document as the coordinator handles it.

    :param r: the quorum
    :param done: called with the result
    """

    cluster: Cluster
    origin: Node
    database: str
    document_id: str
    r: int
    done: Callable[[Any], None]
    over: bool = field(default=False, kw_only=True)


@dataclass
class _Open(_DocumentRead):
    """`fabric_doc_open.erl`."""

    left: int = 3
    replies: dict[tuple[Any, ...], tuple[Opened, int]] = field(default_factory=dict)

    def work(self, node: Node) -> Opened:
        tree = node.shards[self.database].trees.get(self.document_id)
        return Opened(tree.path(tree.winner.rev), tree.conflicts) if tree else Opened(())

    def receive(self, reply: Any) -> None:
        if self.over:
            return
        self.left -= 1
        if reply is not DOWN:
            _, count = self.replies.get(reply.key, (reply, 0))
            self.replies[reply.key] = reply, count + 1
            if count + 1 >= self.r:
                self.over = True
                self._reply_with(reply)
                return
        if not self.left:
            self.over = True
            self._repaired()

    def _reply_with(self, quorum: Opened) -> None:
        others = [o for o, _ in self.replies.values() if o.key != quorum.key]
        if not others:
            self.done(quorum)
            return
        ancestors = {r.rev for r in quorum.path[1:]}
        if quorum.path and all(not o.path or o.path[0].rev in ancestors for o in others):
            self._repair(lambda: None)
            self.done(quorum)
        else:
            self._repaired()

    def _repaired(self) -> None:
        """Repair first, then reply with the winner of all replies."""
        found = [o for o, _ in self.replies.values() if o.path]
        if found:
            best = max(found, key=lambda o: (o.is_live, rank(o.path[0].rev)))
            self._repair(lambda: self.done(best))
        else:
            self.done(Opened(()) if self.replies else None)

    def _repair(self, then: Callable[[], None]) -> None:
        paths = [(self.document_id, o.path) for o, _ in self.replies.values() if o.path]
        self.cluster.repair(self.origin, self.database, paths, then)


@dataclass
class _OpenRevs(_DocumentRead):
    """`fabric_doc_open_revs.erl`, for all leaf revisions."""

    tree: Tree = field(default_factory=Tree)
    count: int = 0
    errors: int = 0
    in_repair: bool = False

    def work(self, node: Node) -> list[tuple[Revision, ...]]:
        return node.shards[self.database].leaf_paths(self.document_id)

    def receive(self, reply: Any) -> None:
        if self.over:
            return
        if reply is DOWN:
            self.errors += 1
            reply = []
        self.count += 1
        enough = self.count - self.errors >= self.r
        leaves = len(self.tree.leaves)
        kinds = [self.tree.merge(path) for path in reply]
        repair = self.count > 1 and any(kind != "internal_node" for kind in kinds)
        agreed = "new_branch" not in kinds and len(reply) == leaves and enough
        self.in_repair |= repair
        if agreed or self.count == 3:
            self.over = True
            found = [self.tree.path(rev) for rev in sorted(self.tree.leaves, key=rank)]
            if self.in_repair and found:
                self.cluster.repair(
                    self.origin, self.database, [(self.document_id, p) for p in found]
                )
            none = self.count == self.errors
            self.done(None if none else found)


class _BulkGet:
    """`fabric_open_revs.erl`, for all leaf revisions."""

    def __init__(
        self, nodes: int, ids: Sequence[str], database: str, done: Callable[[Any], None]
    ) -> None:
        self.ids, self.database, self.done = ids, database, done
        self.left = nodes
        self.agreeing = [0] * len(ids)
        self.found: list[dict[str, tuple[Revision, ...]]] = [{} for _ in ids]
        self.over = False

    def work(self, node: Node) -> list[list[tuple[Revision, ...]]]:
        shard = node.shards[self.database]
        return [shard.leaf_paths(document_id) for document_id in self.ids]

    def receive(self, reply: Any) -> None:
        if self.over:
            return
        self.left -= 1
        if reply is DOWN:
            if any(self.left + count == 0 for count in self.agreeing):
                self.over = True
                self.done(None)
            elif not self.left:
                self._finish()
            return
        for i, paths in enumerate(reply):
            before = len(self.found[i])
            self.found[i] |= {path[0].rev: path for path in paths}
            if paths and before in (0, len(self.found[i])):
                self.agreeing[i] += 1
        if not self.left or min(self.agreeing, default=2) >= 2:
            self._finish()

    def _finish(self) -> None:
        self.over = True
        results = []
        for found in self.found:
            tree = Tree()
            for rev in sorted(found, key=rank):
                tree.merge(found[rev])
            results.append([tree.path(rev) for rev in sorted(tree.leaves, key=rank)])
        self.done(results)


def select_rows(shard: Shard, view: str, query: Mapping[str, Any]) -> list[Document]:
    """Return the rows that a query of a view selects, reduced if the query says so."""
    rows = shard.rows(view)
    if "keys" in query:
        wanted = [collated(key) for key in query["keys"]]
        rows = [row for key in wanted for row in rows if row.order == key]
    if "startkey" in query:
        start = (collated(query["startkey"]), query.get("startkey_docid", ""))
        rows = [row for row in rows if (row.order, row.id) >= start]
    if "endkey" in query:
        end = collated(query["endkey"])
        rows = [row for row in rows if row.order <= end]
    if view in COUNTED and query.get("reduce", True):
        return _reduced(rows, query.get("group_level", 99 if query.get("group") else 0))
    skip, limit = query.get("skip", 0), query.get("limit")
    rows = rows[skip : None if limit is None else skip + limit]
    return [{"id": row.id, "key": row.key, "value": row.value} for row in rows]


def _reduced(rows: Iterable[Any], level: int) -> list[Document]:
    counted: list[Document] = []
    for row in rows:
        key = row.key[:level] if level else None
        if counted and counted[-1]["key"] == key:
            counted[-1]["value"] += 1
        else:
            counted.append({"key": key, "value": 1})
    return counted


def shown(document_id: str, opened: Opened, conflicts: bool) -> Document:
    """Return a document as CouchDB does.

    :param conflicts: whether the request has `conflicts=true`
    """
    document = to_json(document_id, opened.path[0])
    if conflicts and opened.conflicts:
        document["_conflicts"] = list(opened.conflicts)
    return document


def revision_path(document: Mapping[str, Any]) -> list[Revision]:
    """Return the revisions of a grafted document: from its `_revisions`, or else its `_rev`."""
    number, digest = document["_rev"].split("-", 1)
    named = document.get("_revisions", {"start": int(number), "ids": [digest]})
    start, ids = named["start"], named["ids"]
    revs = [f"{start - i}-{digest}" for i, digest in enumerate(ids)]
    body = {k: v for k, v in document.items() if k[0] != "_"}
    leaf = Revision(revs[0], next(iter(revs[1:]), None), bool(document.get("_deleted")), body)
    parents = [*revs[2:], None]
    return [leaf, *(Revision(r, p) for r, p in zip(revs[1:], parents, strict=False))]
