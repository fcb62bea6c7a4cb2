"""The final outcome of one write to the pool, from CouchDB's response and the leaf revisions.

The tests write the leaf revisions of other writers as replication does, so one node is enough. In
tests with `cluster`, the database reports that it keeps three copies.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.documents import to_document
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, PoolWriter, WriteResult
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import Fault, FaultProxy, Forward, Hangup, Reply
from tests.timing import eventually

POOL = "-dedicated_ips"
HIGH = "f" * 32
AT = 63_900_000_000


def first(act: Callable[[], object], then: Fault = lambda forward: forward()) -> Fault:
    """A fault that calls a function just before the request is sent."""

    def fault(forward: Forward) -> Reply:
        act()
        return then(forward)

    return fault


def afterwards(act: Callable[[], object], *, answered: bool = True) -> Fault:
    """A fault that calls a function after the request is done, before its reply is sent."""

    def fault(forward: Forward) -> Reply:
        reply = forward()
        act()
        if not answered:
            raise Hangup
        return reply

    return fault


class Contest:
    """One address and two writers, one of them behind the proxy."""

    def __init__(
        self,
        proxy: FaultProxy,
        proxied_settings: Settings,
        pool: Database,
        base: DedicatedIP,
        who: Member,
    ) -> None:
        self.proxy = proxy
        self.pool = pool
        self.base = base
        self.after = replace(
            base.assign(who.id, at=AT, request_id=uuid4().hex), transaction="assign-mine"
        )
        self.looked_at: list[tuple[str, str]] = []
        self.services = composition.build(proxied_settings)
        ips = self.services.ips._reader._ips
        settlement = self.services.ips._reader._conflicts
        self.writer = PoolWriter(ips, settlement, lambda *each: self.looked_at.append(each))

    def cause(self, *met: Fault) -> None:
        """Apply the first fault to the next write of the document, the second to the next, …"""
        for number, fault in enumerate(met, 1):
            self.proxy.rule(fault, "PUT", f"{POOL}/{self.base.address}", first=number)

    def write(self) -> WriteResult:
        [result] = self.writer.write([self.base], [self.after])
        return result

    def rival(self, **fields: Any) -> None:
        """Write a conflicting revision of another writer on the same base revision."""
        rival = replace(self.after, request_id="rival", assigned_to="rival", trail=())
        self.graft(rival, HIGH, **fields)

    def graft(self, ip: DedicatedIP, digest: str, **fields: Any) -> None:
        document = {**to_document(ip), "_rev": f"2-{digest}", **fields}
        self.pool.graft(document, parent=self.base.revision or "")

    def overtake(self, **fields: Any) -> None:
        """Let another writer change these fields of the document first."""
        self.pool.put({**to_document(replace(self.after, trail=())), **fields})

    @property
    def live(self) -> list[dict[str, Any]]:
        leaves = self.pool.leaves(self.base.address)
        return [leaf for leaf in leaves if not leaf.get("_deleted")]

    @property
    def owners(self) -> list[str | None]:
        return [leaf.get("pvt_assigned_to") for leaf in self.live]


@pytest.fixture
def contest(
    proxy: FaultProxy,
    proxied_settings: Settings,
    pool: Database,
    add: Callable[..., DedicatedIP],
    alice: Member,
) -> Iterator[Contest]:
    # Each test has an address of its own: old revisions would be leaves in the next test.
    base = add(f"2001:db8:{uuid4().int % 65536:x}::{uuid4().int % 65536:x}")
    made = Contest(proxy, proxied_settings, pool, base, alice)
    yield made
    if not made.live:  # so that the service does not restore the address after the test
        pool.put({"_id": base.address})
    for leaf in made.live:
        pool.remove(base.address, leaf["_rev"])


@pytest.fixture
def cluster(contest: Contest) -> Contest:
    contest.proxy.rule(faults.three_copies, "GET", f"{POOL}/?$", times=None)
    return contest


def test_a_fence_that_a_majority_accepts_stays(contest: Contest) -> None:
    contest.cause(faults.cut)
    assert contest.write().outcome is FinalOutcome.UNDONE
    [leaf] = contest.pool.leaves(contest.base.address)
    assert (leaf["_rev"][:2], leaf["pvt_status"]) == ("2-", "available")


def test_a_fence_without_a_quorum_is_withdrawn(contest: Contest) -> None:
    contest.cause(faults.cut, faults.answer_202)
    assert contest.write().outcome is FinalOutcome.UNDONE
    [leaf] = contest.live
    assert (leaf["_rev"][:2], leaf["pvt_status"]) == ("4-", "available")


def test_a_withdrawal_of_a_fence_is_repeated_until_it_succeeds(contest: Contest) -> None:
    contest.cause(faults.cut, faults.answer_202, faults.cut)
    assert contest.write().outcome is FinalOutcome.UNDONE
    assert contest.owners == [None]


def test_a_write_that_arrives_just_before_its_fence_is_done(contest: Contest) -> None:
    gate = threading.Event()

    def arrive() -> None:
        gate.set()
        assert eventually(lambda: contest.owners == [contest.after.assigned_to])

    contest.cause(faults.late(gate), first(arrive))
    assert contest.write().outcome is FinalOutcome.DONE
    assert contest.owners == [contest.after.assigned_to]


def test_a_write_that_arrives_while_its_fence_is_withdrawn_is_withdrawn_too(
    contest: Contest,
) -> None:
    arrive = afterwards(lambda: contest.graft(contest.after, HIGH))
    contest.cause(faults.cut, faults.answer_202, arrive)
    assert contest.write().outcome is FinalOutcome.UNDONE
    assert contest.owners == [None]


def test_a_withdrawn_write_is_checked_later(contest: Contest) -> None:
    contest.cause(faults.answer_202)
    assert contest.write().outcome is FinalOutcome.UNDONE
    assert contest.looked_at == [(contest.base.address, contest.after.assigned_to)]


def test_a_withdrawn_write_is_checked_after_the_withdrawal(contest: Contest) -> None:
    """Another worker that read the address meanwhile may have written its copy."""
    contest.cause(faults.answer_202, first(contest.looked_at.clear))
    assert contest.write().outcome is FinalOutcome.UNDONE
    assert contest.looked_at == [(contest.base.address, contest.after.assigned_to)]


def test_a_withdrawal_that_does_not_arrive_is_sent_again(contest: Contest) -> None:
    contest.cause(faults.answer_202, faults.cut)
    assert contest.write().outcome is FinalOutcome.UNDONE
    assert contest.owners == [None]


def test_a_withdrawn_write_is_undone_before_the_address_is_restored(contest: Contest) -> None:
    contest.cause(faults.answer_202)
    contest.proxy.rule(faults.cut, "POST", f"{POOL}/_bulk_docs", times=None)
    assert contest.write().outcome is FinalOutcome.UNDONE
    contest.proxy.clear()
    assert contest.services.ips.fetch(contest.base.address).assigned_to is None


def test_another_writers_revision_stays_after_a_withdrawal(contest: Contest) -> None:
    contest.cause(afterwards(contest.rival, answered=False))
    assert contest.write().outcome is FinalOutcome.LOST
    assert contest.owners == ["rival"]


def test_two_other_writers_revisions_are_not_changed(contest: Contest) -> None:
    def write() -> None:
        contest.rival()
        contest.graft(contest.base, "0" * 32)

    contest.cause(first(write, faults.cut))
    assert contest.write().outcome is FinalOutcome.LOST
    assert len(contest.live) == 2


@pytest.mark.parametrize(
    "differs",
    [
        {"pvt_request_id": "another"},
        {"pvt_status": "reserved"},
        {"pvt_assigned_to": "another"},
        {"pvt_modified": AT - 1},
        {"pvt_transaction": "assign-another"},
    ],
    ids=lambda differs: next(iter(differs)),
)
def test_a_write_with_other_fields_belongs_to_another_writer(
    contest: Contest, differs: dict[str, Any]
) -> None:
    """Clients choose request ids, and may use one twice."""
    contest.cause(first(lambda: contest.overtake(**differs), faults.cut))
    assert contest.write().outcome is FinalOutcome.LOST


def test_on_a_cluster_an_unanswered_write_is_done_if_a_majority_accepts_it_again(
    cluster: Contest,
) -> None:
    cluster.cause(faults.lose_reply)
    result = cluster.write()
    assert (result.outcome, (result.ip.revision or "")[:2]) == (FinalOutcome.DONE, "3-")


@pytest.mark.parametrize(
    ("again", "outcome"),
    [
        (faults.answer_202, FinalOutcome.UNDONE),
        (faults.cut, FinalOutcome.UNKNOWN),  # perhaps a node that is away has the confirmation
    ],
)
def test_on_a_cluster_an_unanswered_write_is_withdrawn_if_no_majority_accepts_it_again(
    cluster: Contest, again: Fault, outcome: FinalOutcome
) -> None:
    cluster.cause(faults.lose_reply, again)
    assert cluster.write().outcome is outcome
    assert cluster.owners in ([], [None])  # restored at once, or later


@pytest.mark.parametrize("then", ["another write", "a fence without a quorum"])
def test_on_a_cluster_an_unanswered_write_that_no_node_shows_is_unknown(
    cluster: Contest, then: str
) -> None:
    """Perhaps a node has it that does not answer now, and it is the only live revision later."""
    if then == "another write":
        rival = lambda: cluster.overtake(pvt_request_id="rival")  # noqa: E731
        cluster.cause(first(rival, faults.cut))
    else:
        cluster.cause(faults.cut, faults.answer_202)
    assert cluster.write().outcome is FinalOutcome.UNKNOWN
    assert cluster.looked_at[-1] == (cluster.base.address, cluster.after.assigned_to)


def test_on_a_cluster_a_refused_write_is_lost(cluster: Contest) -> None:
    """CouchDB has answered: no node has it."""
    cluster.overtake(pvt_request_id="rival")
    assert cluster.write().outcome is FinalOutcome.LOST


def test_an_assignment_that_only_a_node_that_is_away_has_is_withdrawn(cluster: Contest) -> None:
    """The other nodes refuse its withdrawal, because they do not have its revision."""
    cluster.cause(faults.accepted_elsewhere(cluster.base.address, f"2-{HIGH}"))
    assert cluster.write().outcome is FinalOutcome.UNDONE
    cluster.graft(cluster.after, HIGH)
    assert cluster.owners in ([], [None])


def test_a_withdrawal_is_repeated_while_only_lagging_nodes_answer(cluster: Contest) -> None:
    """They refuse it as well, and show nothing of the base of the write."""
    old = {**to_document(cluster.base), "_rev": cluster.base.revision}
    newer = cluster.pool.put(old).revision
    cluster.base = replace(cluster.base, revision=newer)
    cluster.after = replace(cluster.after, revision=newer)
    cluster.cause(faults.accepted_elsewhere(cluster.base.address, f"3-{HIGH}"))
    lagging = cluster.proxy.rule(faults.lagging(old), "GET", cluster.base.address, times=1)
    assert cluster.write().outcome is FinalOutcome.UNDONE
    assert lagging.met
    written = {**to_document(cluster.after), "_rev": f"3-{HIGH}"}
    cluster.pool.graft(written, parent=newer or "")
    assert cluster.owners in ([], [None])


def test_an_assignment_is_not_confirmed_while_the_address_may_be_restored(
    cluster: Contest,
) -> None:
    """A worker may restore it after it has read the leaf revisions without the assignment."""
    rival = replace(cluster.after, request_id="rival", revision=f"2-{HIGH}", trail=())

    def withdraw() -> None:
        cluster.rival()
        cluster.services.ips._reader._ips.withdraw(rival, cluster.base)

    cluster.cause(faults.lose_reply, afterwards(withdraw))
    assert cluster.write().outcome is FinalOutcome.UNDONE
    assert cluster.owners in ([], [None])


def test_a_release_is_confirmed_although_another_write_was_withdrawn(
    cluster: Contest, alice: Member
) -> None:
    """Nobody gets the address twice by a release, and other clients may have read it."""
    cluster.base = cluster.write().ip
    cluster.after = cluster.base.release(alice.id, at=AT + 1, request_id="r")
    rival = replace(cluster.base, request_id="rival", revision=f"3-{HIGH}", trail=())

    def withdraw() -> None:
        document = {**to_document(rival), "_rev": rival.revision}
        cluster.pool.graft(document, parent=cluster.base.revision or "")
        cluster.services.ips._reader._ips.withdraw(rival, cluster.base)

    cluster.cause(faults.lose_reply, afterwards(withdraw))
    assert cluster.write().outcome is FinalOutcome.DONE
    assert cluster.owners == [None]


def test_on_a_cluster_an_unanswered_write_is_withdrawn_if_another_writers_revision_appears(
    cluster: Contest,
) -> None:
    cluster.cause(faults.lose_reply, afterwards(cluster.rival))
    assert cluster.write().outcome is FinalOutcome.LOST
    assert cluster.owners == ["rival"]


def test_a_release_without_a_quorum_is_not_withdrawn(cluster: Contest, alice: Member) -> None:
    cluster.base = cluster.write().ip
    cluster.after = cluster.base.release(alice.id, at=AT + 1, request_id="r")
    cluster.proxy.rule(faults.answer_202, "PUT", f"{POOL}/{cluster.base.address}", times=None)
    assert cluster.write().outcome is FinalOutcome.UNKNOWN
    assert cluster.owners == [None]
    assert cluster.looked_at == [(cluster.base.address, alice.id)]


def test_a_release_without_a_quorum_in_a_conflict_is_withdrawn(
    cluster: Contest, alice: Member
) -> None:
    cluster.base = cluster.write().ip
    cluster.after = cluster.base.release(alice.id, at=AT + 1, request_id="r")
    rival = replace(cluster.base, request_id="rival", trail=())
    put = lambda: cluster.pool.graft(  # noqa: E731
        {**to_document(rival), "_rev": f"3-{HIGH}"}, parent=cluster.base.revision or ""
    )
    cluster.cause(afterwards(put, answered=False))
    assert cluster.write().outcome is FinalOutcome.LOST
    assert (cluster.base.address, alice.id) in cluster.looked_at
    assert [leaf["pvt_request_id"] for leaf in cluster.live] == ["rival"]


@pytest.mark.parametrize("rival", ["a release", "a deletion"])
def test_a_release_that_only_a_node_that_is_away_has_is_withdrawn(
    cluster: Contest, alice: Member, rival: str
) -> None:
    """Otherwise it would become a conflict with the acknowledged write, and could win."""
    cluster.base = base = cluster.write().ip
    cluster.after = base.release(alice.id, at=AT + 1, request_id="r")
    done = base.release(alice.id, at=AT + 1, request_id="rival")
    deletion = done.delete(at=AT + 1, request_id="rival") if rival == "a deletion" else None
    deleted = {"_deleted": True} if deletion else {}
    cluster.pool.put({**to_document(deletion or done), **deleted})
    away = f"3-{HIGH}"
    cluster.cause(faults.accepted_elsewhere(base.address, away))
    assert cluster.write().outcome is FinalOutcome.LOST
    cluster.pool.graft({**to_document(cluster.after), "_rev": away}, base.revision or "")
    assert [leaf["pvt_request_id"] for leaf in cluster.live] == ([] if deleted else ["rival"])


@pytest.mark.parametrize("then", ["an assignment", "an assignment and a conflict", "a deletion"])
def test_a_release_that_another_client_has_read_is_not_withdrawn(
    cluster: Contest, alice: Member, then: str
) -> None:
    """The release took effect before that client's write."""
    cluster.base = base = cluster.write().ip
    cluster.after = base.release(alice.id, at=AT + 1, request_id="r")

    def write() -> None:
        released = replace(cluster.after, revision=cluster.live[0]["_rev"])
        if then == "a deletion":
            deleted = to_document(released.delete(at=AT + 2, request_id="next"))
            cluster.pool.put({**deleted, "_deleted": True})
            return
        cluster.pool.put(to_document(released.assign("next", at=AT + 2, request_id="next")))
        if then != "an assignment":
            rival = replace(base, request_id="rival", trail=())
            cluster.pool.graft({**to_document(rival), "_rev": f"3-{HIGH}"}, base.revision or "")

    cluster.cause(_202_and(write))
    cluster.write()
    assert all("pvt_withdrawn" not in leaf for leaf in cluster.pool.leaves(base.address))


@pytest.mark.parametrize("answered", [True, False])
def test_an_assignment_in_a_conflict_with_a_deletion_is_withdrawn(
    cluster: Contest, answered: bool
) -> None:
    """A live revision would hide the deletion, which was acknowledged."""
    deleted = replace(cluster.base.delete(at=AT, request_id="rival"), revision=None)
    delete = lambda: cluster.graft(deleted, HIGH, _deleted=True)  # noqa: E731
    cluster.cause(afterwards(delete, answered=answered) if not answered else _202_and(delete))
    assert cluster.write().outcome is FinalOutcome.LOST
    assert cluster.live == []


def _202_and(act: Callable[[], object]) -> Fault:
    def fault(forward: Forward) -> Reply:
        reply = faults.answer_202(forward)
        act()
        return reply

    return fault


@pytest.mark.parametrize("answer", ["none", "202"])
@pytest.mark.parametrize("other", ["service", "service, a day later", "Kazoo"])
def test_a_write_to_which_another_client_has_added_a_revision_is_done(
    contest: Contest, alice: Member, answer: str, other: str
) -> None:
    """That client has read the write, so the reply must not say that the write failed."""
    own = contest.after.trail[-1:]
    if other == "Kazoo":  # another client has added the address too, and keeps unknown fields
        contest.base = replace(contest.base, trail=())
        contest.after = replace(contest.after, trail=own)

    def add_a_revision() -> None:
        later = contest.after.release(alice.id, at=AT + 1, request_id="another")
        if other == "Kazoo":
            later = replace(later, trail=own)
        if other == "service, a day later":  # earlier events are not kept
            later = replace(later, trail=(*own, *later.trail[-1:]))
        contest.pool.put({**to_document(later), "_rev": contest.live[0]["_rev"]})

    act = add_a_revision
    contest.cause(_202_and(act) if answer == "202" else afterwards(act, answered=False))
    assert contest.write().outcome is FinalOutcome.DONE
    assert contest.owners == [None]
    assert contest.looked_at[0] == (contest.base.address, alice.id)


def test_a_write_whose_confirmation_is_lost_is_done_if_another_client_has_added_a_revision(
    cluster: Contest, alice: Member
) -> None:
    def add_a_revision() -> None:
        later = cluster.after.release(alice.id, at=AT + 1, request_id="another")
        cluster.pool.put({**to_document(later), "_rev": cluster.live[0]["_rev"]})

    cluster.cause(faults.lose_reply, first(add_a_revision, faults.cut))
    assert cluster.write().outcome is FinalOutcome.DONE
    assert cluster.owners == [None]


def test_a_mark_for_a_release_without_a_quorum_is_withdrawn(cluster: Contest) -> None:
    """No other client acts on the mark, unlike on the release itself."""
    cluster.base = cluster.write().ip
    cluster.after = replace(cluster.base, transaction="release-mine")
    cluster.cause(faults.lose_reply, faults.answer_202)
    assert cluster.write().outcome is FinalOutcome.UNDONE
    assert [leaf["pvt_transaction"] for leaf in cluster.live] in ([], ["assign-mine"])


def test_a_release_is_withdrawn_when_a_conflict_shows_while_it_is_confirmed(
    cluster: Contest, alice: Member
) -> None:
    cluster.base = cluster.write().ip
    cluster.after = cluster.base.release(alice.id, at=AT + 1, request_id="r")
    rival = replace(cluster.base, request_id="rival", trail=())
    put = lambda: cluster.pool.graft(  # noqa: E731
        {**to_document(rival), "_rev": f"3-{HIGH}"}, parent=cluster.base.revision or ""
    )
    cluster.cause(faults.lose_reply, afterwards(put))
    assert cluster.write().outcome is FinalOutcome.LOST
    assert [leaf["pvt_request_id"] for leaf in cluster.live] == ["rival"]


def test_a_write_missing_on_lagging_replicas_is_unknown(cluster: Contest) -> None:
    old = {**to_document(cluster.base), "_rev": cluster.base.revision}
    newer = cluster.pool.put({**old, "_rev": cluster.base.revision}).revision
    cluster.base = replace(cluster.base, revision=newer)
    cluster.after = replace(cluster.after, revision=newer)
    cluster.cause(faults.answer_202, *[faults.cut] * 5)
    lagging = cluster.proxy.rule(faults.lagging(old), "GET", cluster.base.address, times=None)
    assert cluster.write().outcome is FinalOutcome.UNKNOWN
    assert lagging.met
    assert set(cluster.looked_at) == {(cluster.base.address, cluster.after.assigned_to)}


def test_an_undo_that_a_lagging_replica_refused_is_repeated(contest: Contest) -> None:
    done = contest.write().ip
    contest.cause(faults.conflict_chunked)
    old = {**to_document(contest.base), "_rev": contest.base.revision}
    contest.proxy.rule(faults.shown(old), "GET|POST", f"{contest.base.address}|_bulk_get")
    contest.writer.make_available([done])
    assert contest.owners == [None]


def test_a_write_of_an_earlier_attempt_is_confirmed_by_a_write(contest: Contest) -> None:
    done = contest.write().ip
    assert (contest.writer.confirm(done).revision or "")[:2] == "3-"


@pytest.mark.parametrize("fault", [faults.answer_202, faults.cut])
def test_a_write_of_an_earlier_attempt_is_not_confirmed_without_a_majority(
    contest: Contest, fault: Fault
) -> None:
    done = contest.write().ip
    contest.cause(fault)
    with pytest.raises(DatastoreUnreachable):
        contest.writer.confirm(done)


def test_a_write_that_is_not_confirmed_is_checked_later(contest: Contest) -> None:
    done = contest.write().ip
    contest.looked_at.clear()
    contest.cause(faults.answer_202)
    with pytest.raises(DatastoreUnreachable):
        contest.writer.confirm(done)
    assert contest.looked_at == [(done.address, "")]


def test_a_write_is_not_done_if_the_revision_added_to_it_has_no_quorum(
    contest: Contest, alice: Member
) -> None:
    """It may be withdrawn, and the write with it."""

    def add_a_revision() -> None:
        later = contest.after.release(alice.id, at=AT + 1, request_id="another")
        contest.pool.put({**to_document(later), "_rev": contest.live[0]["_rev"]})

    contest.cause(afterwards(add_a_revision, answered=False), faults.answer_202)
    assert contest.write().outcome is FinalOutcome.UNKNOWN


def test_on_a_cluster_a_write_of_an_earlier_attempt_is_not_confirmed_in_a_conflict(
    cluster: Contest,
) -> None:
    done = cluster.write().ip
    cluster.rival()
    with pytest.raises(DatastoreUnreachable):
        cluster.writer.confirm(done)


def test_an_undo_without_a_quorum_is_repeated(contest: Contest) -> None:
    done = contest.write().ip
    contest.cause(faults.answer_202)
    contest.writer.make_available([done])
    [leaf] = contest.live
    assert (leaf["_rev"][:2], leaf["pvt_status"]) == ("4-", "available")


def test_an_undo_that_does_not_arrive_is_repeated(contest: Contest) -> None:
    done = contest.write().ip
    contest.cause(faults.cut)
    contest.writer.make_available([done])
    assert contest.owners == [None]


def test_an_address_that_another_writer_has_changed_is_not_undone(contest: Contest) -> None:
    done = contest.write().ip
    contest.pool.put({**to_document(done), "pvt_assigned_to": "another"})
    contest.writer.make_available([done])
    assert contest.owners == ["another"]


def test_an_address_with_an_unrelated_change_is_undone(contest: Contest) -> None:
    done = contest.write().ip
    contest.pool.put({**to_document(done), "pvt_zone": "moved"})
    contest.writer.make_available([done])
    assert [(leaf["pvt_zone"], leaf["pvt_status"]) for leaf in contest.live] == [
        ("moved", "available")
    ]


def test_a_deleted_address_is_not_undone(contest: Contest) -> None:
    done = contest.write().ip
    contest.pool.remove(done.address, done.revision or "")
    contest.writer.make_available([done])
    assert contest.live == []


def test_a_fence_whose_response_was_lost_is_no_write_of_another_client(contest: Contest) -> None:
    contest.cause(faults.cut, faults.lose_reply)
    assert contest.write().outcome is FinalOutcome.UNDONE
    assert contest.owners == [None]
    assert [leaf["_rev"].partition("-")[0] for leaf in contest.live] == ["3"]


def test_the_mark_of_another_client_s_release_is_no_fence(contest: Contest, alice: Member) -> None:
    """It adds no event to the trail. A write on top of it would prevent that release."""
    contest.base = contest.write().ip
    contest.after = contest.base.release(alice.id, at=AT + 1, request_id="r")
    mark = to_document(replace(contest.base, transaction="release-another"))
    contest.cause(first(lambda: contest.pool.put(mark), faults.cut))
    assert contest.write().outcome is FinalOutcome.LOST
    assert [leaf["_rev"][:2] for leaf in contest.live] == ["3-"]
