"""Writes to the service's own database: the outcome is determined, or reported as unknown.

In tests with `cluster`, the database reports that it keeps three copies.
"""

from collections.abc import Callable
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database, Document
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.repositories.records import LATE, Records, withdrawn
from tests.faults import proxy as faults
from tests.faults.proxy import Fault, FaultProxy, Forward, Hangup, Reply

HIGH = "f" * 32


class Paper:
    """A document, and a writer behind the proxy that writes it."""

    def __init__(self, proxy: FaultProxy, behind: Settings, couch: Couch) -> None:
        self.proxy = proxy
        self.id = f"test-{uuid4().hex}"
        self.records = Records(composition.connect(behind))
        self.database: Database = couch.database("kazoo_ips")

    def meet(self, *met: Fault) -> None:
        """Apply the first fault to the next write, the second to the one after, …"""
        for number, fault in enumerate(met, 1):
            self.proxy.rule(fault, "PUT", self.id, first=number)

    def put(self, revision: str | None = None) -> Document | None:
        return self.records.put({"_id": self.id, "_rev": revision})

    def graft(self, revision: str, parent: str, **fields: object) -> None:
        self.database.graft({"_id": self.id, "_rev": revision, **fields}, parent=parent)

    @property
    def live(self) -> list[str]:
        return [d["_rev"] for d in self.database.leaves(self.id) if not d.get("_deleted")]

    def others_write(self, write: Callable[[], object], *, arrives: bool = True) -> Fault:
        """A fault: another writer adds a revision, and the reply to this write is lost."""

        def fault(forward: Forward) -> Reply:
            if arrives:
                forward()
            write()
            raise Hangup

        return fault


@pytest.fixture
def paper(proxy: FaultProxy, behind: Settings, couch: Couch, operator: object) -> Paper:
    return Paper(proxy, behind, couch)


@pytest.fixture
def cluster(paper: Paper) -> Paper:
    paper.proxy.rule(faults.three_copies, "GET", "-kazoo_ips/?$", times=None)
    return paper


def first(written: Document | None) -> str:
    assert written
    return str(written["_rev"])


def test_a_record_that_is_read_back_is_written(paper: Paper) -> None:
    paper.meet(faults.lose_reply)
    written = paper.put()
    assert written
    assert paper.live == [written["_rev"]]
    assert written["_rev"][:2] == "1-"
    assert "_revisions" not in written
    assert not written[LATE]


def test_a_record_that_has_not_arrived_is_written_again(paper: Paper) -> None:
    paper.meet(faults.cut)
    written = paper.put()
    assert written
    assert (written["_rev"][:2], written[LATE]) == ("1-", True)


def test_a_late_update_of_a_record_is_refused(paper: Paper) -> None:
    revision = first(paper.put())
    paper.meet(faults.cut)
    written = paper.put(revision)
    assert written
    assert (written["_rev"][:2], written[LATE]) == ("2-", False)


def test_on_a_cluster_a_record_that_is_read_back_is_written_again_on_its_revision(
    cluster: Paper,
) -> None:
    cluster.meet(faults.lose_reply)
    assert first(cluster.put())[:2] == "2-"
    assert len(cluster.live) == 1


def test_on_a_cluster_a_rival_counts_although_the_record_is_accepted_again(
    cluster: Paper,
) -> None:
    """CouchDB has copied both revisions to all nodes before the record is written again."""
    revision = first(cluster.put())

    def late_rival(forward: Forward) -> Reply:
        cluster.graft(f"2-{HIGH}", revision)
        return forward()

    cluster.meet(faults.lose_reply, late_rival)
    assert cluster.put(revision) is None
    assert cluster.live == [f"2-{HIGH}"]


def test_a_record_that_may_still_arrive_is_late_although_it_is_read_back(cluster: Paper) -> None:
    cluster.meet(faults.cut, faults.lose_reply)
    written = cluster.put()
    assert written
    assert written[LATE]


def test_a_record_is_uncertain_if_no_try_is_answered(cluster: Paper) -> None:
    cluster.meet(faults.lose_reply, faults.lose_reply, faults.lose_reply)
    with pytest.raises(DatastoreUnreachable):
        cluster.put()


def test_two_writers_of_equal_records_are_distinguished(paper: Paper) -> None:
    revision = first(paper.put())
    assert paper.put(revision)
    assert paper.put(revision) is None


def test_a_writer_that_finds_a_conflict_withdraws_its_record(paper: Paper) -> None:
    revision = first(paper.put())
    rival = f"2-{HIGH}"
    paper.meet(paper.others_write(lambda: paper.graft(rival, revision)))
    assert paper.put(revision) is None
    assert paper.live == [rival]


def test_a_writer_that_finds_a_newer_tombstone_withdraws_its_record(paper: Paper) -> None:
    revision = first(paper.put())
    delete = lambda: paper.graft(f"2-{HIGH}", revision, _deleted=True)  # noqa: E731
    paper.meet(paper.others_write(delete))
    assert paper.put(revision) is None
    assert paper.live == []


def test_a_withdrawn_record_does_not_count_as_a_deletion(paper: Paper) -> None:
    revision = first(paper.put())
    paper.meet(paper.others_write(lambda: paper.graft(f"2-{HIGH}", revision)))
    assert paper.put(revision) is None
    assert [leaf["_rev"] for leaf in paper.records.leaves(paper.id)] == [f"2-{HIGH}"]


def test_a_record_that_another_writer_changed_is_not_written(paper: Paper) -> None:
    revision = first(paper.put())
    change = paper.others_write(lambda: paper.graft(f"2-{HIGH}", revision), arrives=False)
    paper.meet(change)
    assert paper.put(revision) is None
    assert paper.live == [f"2-{HIGH}"]


def test_an_older_leaf_is_not_a_conflict(paper: Paper) -> None:
    """A writer without a majority has added more revisions, on another base revision."""
    revision = first(paper.put())
    older = f"9-{HIGH}"
    paper.graft(older, f"8-{HIGH}")
    paper.meet(faults.lose_reply)
    assert paper.put(revision)
    assert len(paper.live) == 2


def test_a_record_is_uncertain_if_only_lagging_replicas_answer(cluster: Paper) -> None:
    revision = first(cluster.put())
    cluster.meet(*[faults.conflict_chunked] * 3)
    older = {"_id": cluster.id, "_rev": f"9-{HIGH}", "_revisions": {"start": 9, "ids": [HIGH]}}
    lagging = cluster.proxy.rule(faults.lagging(older), "GET", cluster.id, times=None)
    with pytest.raises(DatastoreUnreachable):
        cluster.put(revision)
    assert lagging.met


def test_a_record_that_another_writer_created_is_not_written(paper: Paper) -> None:
    write = paper.others_write(lambda: paper.database.put({"_id": paper.id}), arrives=False)
    paper.meet(write)
    assert paper.put() is None


def test_a_revision_that_is_dropped_does_not_count_as_a_deletion(paper: Paper) -> None:
    revision = first(paper.put())
    for digest in (HIGH, "0" * 32):
        paper.graft(f"2-{digest}", revision, of=digest)
    for _ in range(2):
        found = paper.records.find(paper.id, lambda document: (document["of"] != HIGH,))
        assert found
        assert found["of"] != HIGH
        assert paper.live == [f"2-{'0' * 32}"]
        assert len(paper.records.leaves(paper.id)) == 1


@pytest.mark.parametrize(("contents", "left"), [("aa", 1), ("ab", 2)])
def test_of_equal_revisions_one_is_kept(paper: Paper, contents: str, left: int) -> None:
    """Two workers on separated nodes write the same record, or two different ones."""
    revision = first(paper.put())
    for digest, content in zip((HIGH, "0" * 32), contents, strict=True):
        paper.graft(f"2-{digest}", revision, of=content, write=digest)
    found = paper.records.find(paper.id, lambda document: (1,))
    assert found
    assert found["_rev"] == f"2-{HIGH}"
    assert len(paper.live) == left


def test_a_record_that_every_writer_has_dropped_can_be_written_again(paper: Paper) -> None:
    """CouchDB refuses a write on a tombstone, whichever of them it is."""
    revision = first(paper.put())
    leaves = [{"_id": paper.id, "_rev": f"2-{digest}", "of": digest} for digest in "ab"]
    for leaf in leaves:
        paper.graft(leaf["_rev"], revision, of=leaf["of"], write=leaf["of"])
        paper.records.drop([leaf | {"write": leaf["of"]}])
    content = withdrawn(paper.records.every_leaf(paper.id), lambda leaf: (leaf["of"] == "a",))
    assert content
    assert content["of"] == "a"
    assert paper.records.put(content)


def test_of_two_conflicting_settings_the_acknowledged_one_is_kept(cluster: Paper) -> None:
    """The other writer was cut off, and has written its revision again and again."""
    revision = first(cluster.put())
    written = cluster.records.put_settled({"_id": cluster.id, "_rev": revision, "of": "us"})
    assert written
    cluster.graft(f"8-{HIGH}", revision, of="them", settled=False)
    found = cluster.records.find_settled(cluster.id)
    assert found
    assert found["of"] == "us"
    assert cluster.live == [written["_rev"]]


def test_of_two_conflicting_settings_without_an_acknowledgement_one_is_kept(
    cluster: Paper,
) -> None:
    revision = first(cluster.put())
    for digest in (HIGH, "0" * 32):
        cluster.graft(f"2-{digest}", revision, of=digest, settled=False)
    found = cluster.records.find_settled(cluster.id)
    assert found
    assert found["of"] == HIGH
    assert cluster.live == [f"2-{HIGH}"]


def test_a_deleted_record_can_be_created_again(paper: Paper) -> None:
    paper.records.remove([{"_id": paper.id, "_rev": first(paper.put())}])
    paper.meet(faults.cut)
    assert paper.put()
