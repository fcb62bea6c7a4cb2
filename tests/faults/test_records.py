"""Writes to the service's own database: the service finds out the outcome, or reports it as
unknown.

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


class RecordWriter:
    """A writer behind the proxy, which writes one document."""

    def __init__(self, proxy: FaultProxy, proxied_settings: Settings, couch: Couch) -> None:
        self.proxy = proxy
        self.id = f"test-{uuid4().hex}"
        self.records = Records(composition.connect(proxied_settings))
        self.database: Database = couch.database("kazoo_ips")

    def cause(self, *met: Fault) -> None:
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
def writer(
    proxy: FaultProxy, proxied_settings: Settings, couch: Couch, operator: object
) -> RecordWriter:
    return RecordWriter(proxy, proxied_settings, couch)


@pytest.fixture
def cluster(writer: RecordWriter) -> RecordWriter:
    writer.proxy.rule(faults.three_copies, "GET", "-kazoo_ips/?$", times=None)
    return writer


def first(written: Document | None) -> str:
    assert written
    return str(written["_rev"])


def test_a_record_that_is_read_back_is_written(writer: RecordWriter) -> None:
    writer.cause(faults.lose_reply)
    written = writer.put()
    assert written
    assert writer.live == [written["_rev"]]
    assert written["_rev"][:2] == "1-"
    assert "_revisions" not in written
    assert not written[LATE]


def test_a_record_that_has_not_arrived_is_written_again(writer: RecordWriter) -> None:
    writer.cause(faults.cut)
    written = writer.put()
    assert written
    assert (written["_rev"][:2], written[LATE]) == ("1-", True)


def test_a_late_update_of_a_record_is_refused(writer: RecordWriter) -> None:
    revision = first(writer.put())
    writer.cause(faults.cut)
    written = writer.put(revision)
    assert written
    assert (written["_rev"][:2], written[LATE]) == ("2-", False)


def test_on_a_cluster_a_record_that_is_read_back_is_written_again_on_its_revision(
    cluster: RecordWriter,
) -> None:
    cluster.cause(faults.lose_reply)
    assert first(cluster.put())[:2] == "2-"
    assert len(cluster.live) == 1


def test_on_a_cluster_a_rival_counts_although_the_record_is_accepted_again(
    cluster: RecordWriter,
) -> None:
    """CouchDB has copied both revisions to all nodes before the record is written again."""
    revision = first(cluster.put())

    def late_rival(forward: Forward) -> Reply:
        cluster.graft(f"2-{HIGH}", revision)
        return forward()

    cluster.cause(faults.lose_reply, late_rival)
    assert cluster.put(revision) is None
    assert cluster.live == [f"2-{HIGH}"]


def test_a_record_that_may_still_arrive_is_late_although_it_is_read_back(
    cluster: RecordWriter,
) -> None:
    cluster.cause(faults.cut, faults.lose_reply)
    written = cluster.put()
    assert written
    assert written[LATE]


def test_a_record_is_uncertain_if_no_try_is_answered(cluster: RecordWriter) -> None:
    cluster.cause(faults.lose_reply, faults.lose_reply, faults.lose_reply)
    with pytest.raises(DatastoreUnreachable):
        cluster.put()


def test_two_writers_of_equal_records_are_distinguished(writer: RecordWriter) -> None:
    revision = first(writer.put())
    assert writer.put(revision)
    assert writer.put(revision) is None


def test_a_writer_that_finds_a_conflict_withdraws_its_record(writer: RecordWriter) -> None:
    revision = first(writer.put())
    rival = f"2-{HIGH}"
    writer.cause(writer.others_write(lambda: writer.graft(rival, revision)))
    assert writer.put(revision) is None
    assert writer.live == [rival]


def test_a_writer_that_finds_a_newer_tombstone_withdraws_its_record(writer: RecordWriter) -> None:
    revision = first(writer.put())
    delete = lambda: writer.graft(f"2-{HIGH}", revision, _deleted=True)  # noqa: E731
    writer.cause(writer.others_write(delete))
    assert writer.put(revision) is None
    assert writer.live == []


def test_a_withdrawn_record_does_not_count_as_a_deletion(writer: RecordWriter) -> None:
    revision = first(writer.put())
    writer.cause(writer.others_write(lambda: writer.graft(f"2-{HIGH}", revision)))
    assert writer.put(revision) is None
    assert [leaf["_rev"] for leaf in writer.records.leaves(writer.id)] == [f"2-{HIGH}"]


def test_a_record_that_another_writer_changed_is_not_written(writer: RecordWriter) -> None:
    revision = first(writer.put())
    change = writer.others_write(lambda: writer.graft(f"2-{HIGH}", revision), arrives=False)
    writer.cause(change)
    assert writer.put(revision) is None
    assert writer.live == [f"2-{HIGH}"]


def test_an_older_leaf_is_not_a_conflict(writer: RecordWriter) -> None:
    """A writer without a majority has added more revisions, on another base revision."""
    revision = first(writer.put())
    older = f"9-{HIGH}"
    writer.graft(older, f"8-{HIGH}")
    writer.cause(faults.lose_reply)
    assert writer.put(revision)
    assert len(writer.live) == 2


def test_a_record_is_uncertain_if_only_lagging_replicas_answer(cluster: RecordWriter) -> None:
    revision = first(cluster.put())
    cluster.cause(*[faults.conflict_chunked] * 3)
    older = {"_id": cluster.id, "_rev": f"9-{HIGH}", "_revisions": {"start": 9, "ids": [HIGH]}}
    lagging = cluster.proxy.rule(faults.lagging(older), "GET", cluster.id, times=None)
    with pytest.raises(DatastoreUnreachable):
        cluster.put(revision)
    assert lagging.met


def test_a_record_that_another_writer_created_is_not_written(writer: RecordWriter) -> None:
    write = writer.others_write(lambda: writer.database.put({"_id": writer.id}), arrives=False)
    writer.cause(write)
    assert writer.put() is None


def test_a_revision_that_is_dropped_does_not_count_as_a_deletion(writer: RecordWriter) -> None:
    revision = first(writer.put())
    for digest in (HIGH, "0" * 32):
        writer.graft(f"2-{digest}", revision, of=digest)
    for _ in range(2):
        found = writer.records.find(writer.id, lambda document: (document["of"] != HIGH,))
        assert found
        assert found["of"] != HIGH
        assert writer.live == [f"2-{'0' * 32}"]
        assert len(writer.records.leaves(writer.id)) == 1


@pytest.mark.parametrize(("contents", "left"), [("aa", 1), ("ab", 2)])
def test_of_equal_revisions_one_is_kept(writer: RecordWriter, contents: str, left: int) -> None:
    """Two workers on separated nodes write the same record, or two different ones."""
    revision = first(writer.put())
    for digest, content in zip((HIGH, "0" * 32), contents, strict=True):
        writer.graft(f"2-{digest}", revision, of=content, write=digest)
    found = writer.records.find(writer.id, lambda document: (1,))
    assert found
    assert found["_rev"] == f"2-{HIGH}"
    assert len(writer.live) == left


def test_a_record_that_every_writer_has_dropped_can_be_written_again(writer: RecordWriter) -> None:
    """CouchDB refuses a write on each of the tombstones."""
    revision = first(writer.put())
    leaves = [{"_id": writer.id, "_rev": f"2-{digest}", "of": digest} for digest in "ab"]
    for leaf in leaves:
        writer.graft(leaf["_rev"], revision, of=leaf["of"], write=leaf["of"])
        writer.records.drop([leaf | {"write": leaf["of"]}])
    content = withdrawn(writer.records.every_leaf(writer.id), lambda leaf: (leaf["of"] == "a",))
    assert content
    assert content["of"] == "a"
    assert writer.records.put(content)


def test_of_two_conflicting_settings_the_acknowledged_one_is_kept(cluster: RecordWriter) -> None:
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
    cluster: RecordWriter,
) -> None:
    revision = first(cluster.put())
    for digest in (HIGH, "0" * 32):
        cluster.graft(f"2-{digest}", revision, of=digest, settled=False)
    found = cluster.records.find_settled(cluster.id)
    assert found
    assert found["of"] == HIGH
    assert cluster.live == [f"2-{HIGH}"]


def test_a_deleted_record_can_be_created_again(writer: RecordWriter) -> None:
    writer.records.remove([{"_id": writer.id, "_rev": first(writer.put())}])
    writer.cause(faults.cut)
    assert writer.put()
