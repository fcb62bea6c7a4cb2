"""Recovery of the transactions of a dead process."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import Conflict, DatastoreUnreachable, ValidationFailed
from kazoo_ips.model import (
    AssignIP,
    AssignIPs,
    Attempt,
    DedicatedIP,
    ReleaseIP,
    ReleaseIPs,
    generation,
)
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.documents import to_document
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import (
    Action,
    Transaction,
    TransactionLog,
    TransactionState,
)
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import proxied_settings, proxy, running_proxy
from tests.faults.proxy import FaultProxy, Forward, Reply
from tests.timing import eventually

IPS = ("192.0.2.1", "192.0.2.2")
__all__ = ["proxied_settings", "proxy", "running_proxy"]

FAR = 4e9
"""A time in Unix seconds, long after the end of every lease."""


@pytest.fixture
def log(couch: Couch) -> TransactionLog:
    return TransactionLog(Records(couch))


@pytest.fixture
def later(settings: Settings) -> Instance:
    """The services of another process, which recovers the transactions."""
    return composition.build(settings, clock=lambda: FAR)


@pytest.fixture
def end_before_read(proxy: FaultProxy, services: Instance) -> Callable[..., None]:
    """A function that lets another worker end a transaction before a read of its record.

    `first` is the number of that read, counted from 1.
    """

    def plan(transaction_id: str, first: int = 1) -> None:
        def ends(forward: Forward) -> Reply:
            services.background._recovery.end_transaction(transaction_id)
            return forward()

        proxy.rule(ends, "GET", f"-kazoo_ips/transaction-{transaction_id}", first=first)

    return plan


@pytest.fixture
def begin(
    log: TransactionLog,
    services: Instance,
    pool: Database,
    add: Callable[..., DedicatedIP],
    alice: Member,
) -> Callable[[Action], Transaction]:
    """A function that leaves a pending transaction, all of whose documents are written."""

    def begin(action: Action, attempt: Attempt | None = None) -> Transaction:
        for address in IPS:
            add(address)
        request_id = uuid4().hex
        done = services.ips.assign_all(AssignIPs(alice.id, IPS), request_id)
        at = done[0].modified + (5 if action is Action.RELEASE else 0)
        transaction = log.begin(action, alice.id, request_id, at, IPS, attempt)
        for document in pool.get_all(IPS).values():
            written = {"pvt_written_generation": generation(document["_rev"]) + 1}
            pool.put({**document, **written, "pvt_transaction": transaction.id})
        return transaction

    return begin


def owners(pool: Database) -> set[str | None]:
    return {document.get("pvt_assigned_to") for document in pool.get_all(IPS).values()}


def copies(couch: Couch, who: Member) -> set[str]:
    return set(couch.database(account_database(who.id)).get_all(IPS))


def left(log: TransactionLog) -> list[str]:
    return [transaction.id for transaction in log.all()]


def graft_both(
    pool: Database, base: dict[str, Any], loser: dict[str, Any], winner: dict[str, Any]
) -> None:
    """Write two conflicting revisions that follow the same one.

    :param loser: the fields in which the losing revision differs from `base`
    :param winner: those of the winning revision
    """
    for fields, digest in ((loser, "0"), (winner, "f")):
        pool.graft({**base, **fields, "_rev": f"2-{digest * 32}"}, parent=base["_rev"])


def recover(services: Instance, log: TransactionLog) -> None:
    """Recover until no record is left: on a cluster the list of records may lag."""

    def is_empty() -> bool:
        services.background.recover()
        return not left(log)

    assert eventually(is_empty)


@pytest.mark.parametrize(
    ("action", "committed", "event"),
    [
        pytest.param(Action.ASSIGN, False, "undone", id="a pending assignment is taken back"),
        pytest.param(Action.RELEASE, False, "assigned", id="a pending release changes nothing"),
        pytest.param(Action.RELEASE, True, "released", id="a committed release is done"),
        pytest.param(Action.ASSIGN, True, "assigned", id="a committed assignment stays"),
    ],
)
def test_a_transaction_of_a_dead_process_is_ended(
    begin: Callable[..., Transaction],
    later: Instance,
    log: TransactionLog,
    pool: Database,
    couch: Couch,
    alice: Member,
    action: Action,
    committed: bool,
    event: str,
) -> None:
    transaction = begin(action)
    if committed:
        log.commit(transaction, IPS)
    recover(later, log)
    left_there = ({alice.id}, set(IPS)) if event == "assigned" else ({None}, set())
    assert (owners(pool), copies(couch, alice)) == left_there
    assert {d["pvt_trail"][-1]["event"] for d in pool.get_all(IPS).values()} == {event}


def test_an_assignment_that_arrives_after_its_roll_back_is_refused(
    begin: Callable[..., Transaction], later: Instance, log: TransactionLog, pool: Database
) -> None:
    transaction = begin(Action.ASSIGN)
    late = pool.get(IPS[0])
    free = {k: v for k, v in late.items() if k not in ("pvt_assigned_to", "pvt_transaction")}
    revision = pool.put({**free, "pvt_status": "available"}).revision
    recover(later, log)
    assert pool.put({**late, "_rev": revision}).revision is None
    assert (owners(pool), transaction.state) == ({None}, TransactionState.PENDING)


def test_a_transfer_that_arrives_after_its_roll_back_is_refused(
    later: Instance,
    services: Instance,
    log: TransactionLog,
    pool: Database,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
) -> None:
    for address in IPS:
        add(address)
    [given, _] = services.ips.assign_all(AssignIPs(alice.id, IPS), uuid4().hex)
    at = given.modified + 5
    begun = log.begin(Action.TRANSFER, bob.id, uuid4().hex, at, IPS, from_id=alice.id)
    fields = {"pvt_assigned_to": bob.id, "pvt_transaction": begun.id, "pvt_modified": at}
    late = {**pool.get(IPS[0]), **fields}
    recover(later, log)
    assert pool.put(late).revision is None
    assert owners(pool) == {alice.id}


@pytest.mark.parametrize(("action", "shown"), [(Action.ASSIGN, set()), (Action.RELEASE, {*IPS})])
def test_the_history_has_an_assignment_if_it_is_committed_although_its_release_is_pending(
    begin: Callable[[Action], Transaction], services: Instance, action: Action, shown: set[str]
) -> None:
    begin(action)
    for _ in range(2):
        events = services.history._unarchived.of_all().events
        found = {e.address for e in events if e.address in IPS and e.event == "assigned"}
        assert found == shown


def test_addresses_of_a_pending_transaction_are_left_out_of_a_batch(
    begin: Callable[[Action], Transaction], services: Instance, add: Callable[..., DedicatedIP]
) -> None:
    begin(Action.ASSIGN)
    other = add("192.0.2.3").address
    assert list(services.ips._reader.find_each([*IPS, other])) == [other]
    assert services.ips._reader.find_each(IPS) == {}


def test_an_address_under_another_spelling_in_a_pending_transaction_is_a_conflict(
    services: Instance,
    log: TransactionLog,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    address: str,
) -> None:
    """The conflict names the document, which is not what the batch asked for."""
    added = add(address)
    begun = log.begin(Action.ASSIGN, alice.id, uuid4().hex, added.modified, [address])
    pool.put({**pool.get(address), "pvt_transaction": begun.id})
    with pytest.raises(Conflict):
        services.ips._reader.find_each([address.upper()])


def test_a_committed_release_is_visible_to_readers(
    begin: Callable[..., Transaction],
    services: Instance,
    log: TransactionLog,
    alice: Member,
    bob: Member,
) -> None:
    log.commit(begin(Action.RELEASE), IPS)
    assert services.ips.fetch(IPS[0]).assigned_to is None
    assert services.ips.assign(AssignIP(bob.id, IPS[1]), uuid4().hex).assigned_to == bob.id


def test_a_pending_release_is_not_visible(
    begin: Callable[..., Transaction], services: Instance, alice: Member
) -> None:
    begin(Action.RELEASE)
    assert services.ips.fetch(IPS[0]).assigned_to == alice.id


@pytest.mark.parametrize("action", Action)
def test_an_address_in_a_pending_transaction_of_a_living_process_is_a_conflict(
    begin: Callable[..., Transaction],
    services: Instance,
    pool: Database,
    alice: Member,
    action: Action,
) -> None:
    begin(action)
    with pytest.raises(Conflict):
        services.ips.release(ReleaseIP(alice.id, IPS[0]), uuid4().hex)
    assert owners(pool) == {alice.id}


def test_a_pending_transaction_of_a_dead_process_is_aborted_by_the_next_request(
    begin: Callable[..., Transaction], later: Instance, pool: Database, bob: Member
) -> None:
    begin(Action.ASSIGN)
    later.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex)
    assert owners(pool) == {bob.id, None}


def test_a_process_taken_for_dead_cannot_commit(
    begin: Callable[..., Transaction], later: Instance, log: TransactionLog
) -> None:
    transaction = begin(Action.ASSIGN)
    later.background.recover()
    with pytest.raises(DatastoreUnreachable):
        log.commit(transaction, IPS)
    assert log.find(transaction.id) is None


def test_a_committed_transaction_cannot_be_aborted(
    begin: Callable[..., Transaction], log: TransactionLog
) -> None:
    transaction = begin(Action.ASSIGN)
    log.commit(transaction, IPS)
    assert log.abort(transaction) is None


@pytest.mark.parametrize("finished", [False, True])
def test_the_losing_revision_of_a_record_is_dropped_when_the_transaction_is_finished(
    begin: Callable[..., Transaction], log: TransactionLog, couch: Couch, finished: bool
) -> None:
    transaction = begin(Action.RELEASE, Attempt(uuid4().hex, 1))
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{transaction.id}")
    committed = log.commit(transaction, IPS)
    if finished:
        log.finish([committed])
    aborted = {**record, "state": "aborted", "_rev": f"2-{'f' * 32}"}
    database.graft(aborted, parent=record["_rev"])
    found = log.find(transaction.id)
    assert found
    assert (found.state, found.finished) == (TransactionState.COMMITTED, finished)
    states = [d["state"] for d in database.leaves(record["_id"]) if "_deleted" not in d]
    assert sorted(states) == (["committed"] if finished else ["aborted", "committed"])


def test_a_deleted_record_with_two_revisions_left_is_not_listed(
    begin: Callable[..., Transaction], log: TransactionLog, couch: Couch
) -> None:
    transaction = begin(Action.ASSIGN)
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{transaction.id}")
    log.finish([log.commit(transaction, IPS)])
    for digest in "ef":
        database.graft({**record, "_rev": f"2-{digest * 32}"}, parent=record["_rev"])
    assert transaction.id not in left(log)


def test_a_revision_that_is_left_of_a_deleted_record_is_deleted(
    begin: Callable[..., Transaction], later: Instance, log: TransactionLog, couch: Couch
) -> None:
    """A lagging node may have created the record again."""
    transaction = begin(Action.ASSIGN)
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{transaction.id}")
    log.finish([log.commit(transaction, IPS)])
    database.graft({**record, "_rev": f"2-{'f' * 32}"}, parent=record["_rev"])
    assert transaction.id in left(log)
    recover(later, log)
    assert all(leaf.get("_deleted") for leaf in database.leaves(record["_id"]))


@pytest.mark.parametrize("kind", ["deleted", "committed"])
def test_of_two_revisions_of_a_record_the_decided_one_wins(
    begin: Callable[..., Transaction],
    later: Instance,
    log: TransactionLog,
    couch: Couch,
    pool: Database,
    alice: Member,
    kind: str,
) -> None:
    """A node that was paused has stored an abort without a majority."""
    transaction = begin(Action.ASSIGN)
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{transaction.id}")
    committed = log.commit(transaction, IPS)
    if kind == "deleted":
        log.finish([committed])
    aborted = {**record, "state": "aborted", "_rev": f"2-{'f' * 32}"}
    database.graft(aborted, parent=record["_rev"])
    assert eventually(lambda: transaction.id in left(log))
    later.background.recover()
    assert owners(pool) == {alice.id}


def test_a_transaction_is_pending_again_if_both_of_two_decisions_were_withdrawn(
    begin: Callable[..., Transaction],
    later: Instance,
    log: TransactionLog,
    couch: Couch,
    pool: Database,
    bob: Member,
) -> None:
    """Neither decision had a majority, and each of the two workers has seen the other's."""
    transaction = begin(Action.ASSIGN)
    database, records = couch.database("kazoo_ips"), Records(couch)
    record = database.get(f"transaction-{transaction.id}")
    log.commit(transaction, IPS)
    aborted = {**record, "state": "aborted", "_rev": f"2-{'f' * 32}"}
    database.graft(aborted, parent=record["_rev"])
    records.drop(records.leaves(record["_id"]))
    found = log.find(transaction.id)
    assert found
    assert (found.state, found.finished, found.addresses) == (TransactionState.PENDING, False, IPS)
    later.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex)
    assert owners(pool) == {bob.id, None}
    assert log.find(transaction.id) is None


def test_a_record_with_a_deleted_conflict_is_not_deleted(
    begin: Callable[..., Transaction], log: TransactionLog, couch: Couch
) -> None:
    transaction = begin(Action.RELEASE, Attempt(uuid4().hex, 1))
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{transaction.id}")
    log.finish([log.commit(transaction, IPS)])
    database.graft({**record, "_rev": f"2-{'f' * 32}"}, parent=record["_rev"])
    for _ in range(2):
        found = log.find(transaction.id)
        assert found
        assert found.state is TransactionState.COMMITTED


def test_a_finished_record_counts_although_an_earlier_revision_of_it_was_deleted(
    begin: Callable[..., Transaction],
    services: Instance,
    log: TransactionLog,
    couch: Couch,
    alice: Member,
) -> None:
    """A node that lagged has deleted its revision. A later attempt can still end the request."""
    key = uuid4().hex
    earlier = begin(Action.ASSIGN, Attempt(key, 1))
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{earlier.id}")
    services.background._recovery.end_transaction(earlier.id)
    tombstone = {"_id": record["_id"], "_rev": f"2-{'f' * 32}", "_deleted": True}
    database.graft(tombstone, parent=record["_rev"])
    found = log.find(earlier.id)
    assert found
    assert (found.state, found.finished) == (TransactionState.ABORTED, True)
    command, attempt = AssignIPs(alice.id, IPS), Attempt(key, 2)
    done = services.ips.assign_all(command, earlier.request_id, attempt=attempt)
    assert [ip.assigned_to for ip in done] == [alice.id] * 2


def test_recovery_does_not_delete_a_record_that_another_worker_has_finished(
    begin: Callable[..., Transaction],
    proxy: FaultProxy,
    proxied_settings: Settings,
    log: TransactionLog,
    end_before_read: Callable[..., None],
) -> None:
    """The list of records was read before. A node that lags would accept the deletion."""
    transaction = begin(Action.ASSIGN, Attempt(uuid4().hex, 1))
    assert eventually(lambda: transaction.id in left(log))
    end_before_read(transaction.id)
    composition.build(proxied_settings, clock=lambda: FAR).background.recover()
    assert log.find(transaction.id)
    writes = [r.request for r in proxy.records if r.request.path.endswith("-kazoo_ips/_bulk_docs")]
    assert not [write for write in writes if transaction.id.encode() in write.body]


def test_a_later_attempt_prevents_an_earlier_one_from_beginning(
    log: TransactionLog, services: Instance, add: Callable[..., Any], alice: Member, pool: Database
) -> None:
    for address in IPS:
        add(address)
    key = uuid4().hex
    services.ips.assign_all(AssignIPs(alice.id, IPS), uuid4().hex, attempt=Attempt(key, 2))
    fence = log.find(f"assign-{key}-1")
    assert fence
    assert (fence.state, fence.finished) == (TransactionState.ABORTED, True)
    with pytest.raises(DatastoreUnreachable):
        log.begin(Action.ASSIGN, alice.id, uuid4().hex, 1, IPS, Attempt(key, 1))


def test_a_later_attempt_rolls_back_an_earlier_one(
    begin: Callable[..., Transaction],
    services: Instance,
    log: TransactionLog,
    alice: Member,
    pool: Database,
    couch: Couch,
) -> None:
    key = uuid4().hex
    earlier = begin(Action.ASSIGN, Attempt(key, 1))
    with pytest.raises(ValidationFailed):
        services.ips.assign_all(
            AssignIPs(alice.id, (*IPS, "192.0.2.99")), earlier.request_id, attempt=Attempt(key, 2)
        )
    assert (owners(pool), copies(couch, alice)) == ({None}, set())
    with pytest.raises(DatastoreUnreachable):
        log.commit(earlier, IPS)


@pytest.mark.parametrize("action", [Action.ASSIGN, Action.RELEASE])
def test_a_later_attempt_returns_the_result_of_an_earlier_one(
    begin: Callable[..., Transaction],
    services: Instance,
    log: TransactionLog,
    alice: Member,
    bob: Member,
    action: Action,
) -> None:
    """Other clients have changed the addresses meanwhile."""
    key = uuid4().hex
    earlier = begin(action, Attempt(key, 1))
    log.commit(earlier, IPS)
    if action is Action.ASSIGN:
        services.ips.release(ReleaseIP(alice.id, IPS[0]), uuid4().hex)
    services.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex)
    name, attempt = earlier.request_id, Attempt(key, 2)
    if action is Action.ASSIGN:
        result = services.ips.assign_all(AssignIPs(alice.id, IPS), name, attempt=attempt)
    else:
        result = services.ips.release_all(ReleaseIPs(alice.id, IPS), name, attempt=attempt)
    owner_id = alice.id if action is Action.ASSIGN else None
    assert [(ip.address, ip.assigned_to) for ip in result] == [(a, owner_id) for a in IPS]
    assert services.ips.fetch(IPS[0]).assigned_to == bob.id


@pytest.mark.parametrize("action", Action)
def test_a_document_of_a_deleted_transaction_is_valid_as_it_is(
    begin: Callable[..., Transaction],
    services: Instance,
    log: TransactionLog,
    alice: Member,
    action: Action,
) -> None:
    log.sweep([begin(action)])
    assert services.ips.fetch(IPS[0]).assigned_to == alice.id
    assert services.ips.release(ReleaseIP(alice.id, IPS[0]), uuid4().hex).assigned_to is None


def test_a_request_that_waited_for_a_release_reads_the_documents_again(
    begin: Callable[..., Transaction],
    settings: Settings,
    log: TransactionLog,
    pool: Database,
    bob: Member,
) -> None:
    """The owner commits and makes the documents available while a request waits."""
    left = [begin(Action.RELEASE)]

    def finish(seconds: float) -> None:
        for transaction in left:
            committed = log.commit(transaction, IPS)
            for document in pool.get_all(IPS).values():
                marks = ("pvt_assigned_to", "pvt_transaction")
                free = {k: v for k, v in document.items() if k not in marks}
                pool.put({**free, "pvt_status": "available"})
            log.finish([committed])
        left.clear()

    waiting = composition.build(settings, pause=finish)
    assert waiting.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex).assigned_to == bob.id
    assert left == []


def test_addresses_that_a_dead_process_has_released_are_read_again(
    begin: Callable[..., Transaction],
    later: Instance,
    log: TransactionLog,
    add: Callable[..., DedicatedIP],
    bob: Member,
) -> None:
    log.commit(begin(Action.RELEASE), IPS)
    wanted = (*IPS, add("192.0.2.3").address)
    assigned = later.ips.assign_all(AssignIPs(bob.id, wanted), uuid4().hex)
    assert [(ip.address, ip.assigned_to) for ip in assigned] == [(a, bob.id) for a in wanted]


def test_on_a_cluster_a_later_release_by_another_client_is_not_written_to(
    begin: Callable[..., Transaction],
    proxy: FaultProxy,
    proxied_settings: Settings,
    log: TransactionLog,
    pool: Database,
) -> None:
    """A new revision would cause a conflict for a client that is about to assign it."""
    log.commit(begin(Action.RELEASE), IPS)
    marks = ("pvt_assigned_to", "pvt_transaction", "pvt_request_id")
    free = {k: v for k, v in pool.get(IPS[0]).items() if k not in marks}
    pool.put({**free, "pvt_status": "available", "pvt_request_id": "another"})
    document = pool.get(IPS[0])
    proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    recover(composition.build(proxied_settings, clock=lambda: FAR), log)
    assert pool.get(IPS[0]) == document
    assert owners(pool) == {None}


def test_the_transaction_of_a_deleted_account_is_finished(
    log: TransactionLog, later: Instance, add: Callable[..., DedicatedIP]
) -> None:
    log.begin(Action.ASSIGN, uuid4().hex, uuid4().hex, 1, [add().address])
    recover(later, log)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("assign", {"pvt_assigned_to": "another"}),
        ("assign", {"pvt_modified": 64_000_000_000}),
        ("assign", {"pvt_modified": 1}),  # a node with a slow clock wrote it
        ("release", {"pvt_assigned_to": "another"}),
        ("release", {"pvt_modified": 64_000_000_000}),
    ],
)
def test_a_later_write_of_kazoo_is_not_changed(
    begin: Callable[..., Transaction],
    later: Instance,
    services: Instance,
    log: TransactionLog,
    pool: Database,
    kind: str,
    fields: dict[str, Any],
) -> None:
    """A write of Kazoo keeps the transaction's id in the document."""
    transaction = begin(Action(kind))
    if kind == "release":
        log.commit(transaction, IPS)
    pool.put({**pool.get(IPS[0]), **fields})
    document = pool.get(IPS[0])
    later.ips.fetch(IPS[0])
    with pytest.raises((Conflict, ValidationFailed)):
        later.ips.assign(AssignIP("somebody", IPS[0]), uuid4().hex)
    recover(later, log)
    assert pool.get(IPS[0]) == document


def test_a_transaction_of_a_process_known_to_be_dead_is_recovered_at_once(
    services: Instance, log: TransactionLog, pool: Database, couch: Couch, alice: Member
) -> None:
    tell = "from kazoo_ips.processes import liveness; print(liveness.identity())"
    result = subprocess.run(
        [sys.executable, "-c", tell], capture_output=True, text=True, check=True
    )
    transaction = log.begin(Action.ASSIGN, alice.id, uuid4().hex, services.pool._now(), IPS)
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{transaction.id}")
    database.put({**record, "worker": result.stdout.strip()})
    services.background.recover()
    assert log.find(transaction.id) is None


def test_recovered_addresses_are_checked_later(
    begin: Callable[..., Transaction], later: Instance, log: TransactionLog
) -> None:
    begin(Action.ASSIGN)
    recover(later, log)
    assert later.background.check_due(now=1e12) == len(IPS)


def test_a_record_stays_until_its_documents_agree_with_it(
    begin: Callable[..., Transaction],
    proxy: FaultProxy,
    proxied_settings: Settings,
    log: TransactionLog,
    pool: Database,
) -> None:
    transaction = begin(Action.ASSIGN)
    assert eventually(lambda: transaction.id in left(log))
    later = composition.build(proxied_settings, clock=lambda: FAR)
    proxy.rule(faults.cut, "PUT|POST", "-dedicated_ips/_bulk_docs", times=None)
    later.background.recover()
    assert (left(log), owners(pool) == {None}) == ([transaction.id], False)
    proxy.clear()
    proxy.rule(faults.cut, "PUT|POST", "-dedicated_ips/_bulk_docs")  # the next one arrives
    later.background.recover()
    assert (left(log), owners(pool)) == ([], {None})


@pytest.mark.parametrize("fault", [None, faults.cut])
def test_a_conflicting_revision_of_an_aborted_assignment_is_dropped(
    log: TransactionLog,
    proxy: FaultProxy,
    proxied_settings: Settings,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    address: str,
    fault: faults.Fault | None,
) -> None:
    base = to_document(add(address))
    begun = log.begin(Action.ASSIGN, alice.id, uuid4().hex, 1, [address])
    mine = {
        "pvt_status": "assigned",
        "pvt_assigned_to": alice.id,
        "pvt_transaction": begun.id,
        "pvt_modified": 1,
    }
    graft_both(pool, base, mine, {})
    if fault:  # the revision is not dropped at once
        proxy.rule(fault, "POST", "-dedicated_ips/_bulk_docs", times=1)
    recover(composition.build(proxied_settings, clock=lambda: FAR), log)
    live = [leaf for leaf in pool.leaves(address) if not leaf.get("_deleted")]
    assert [leaf["pvt_status"] for leaf in live] == ["available"]


def test_the_revision_of_another_writer_beside_an_aborted_assignment_is_kept(
    log: TransactionLog,
    later: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    bob: Member,
    address: str,
) -> None:
    base = to_document(add(address))
    begun = log.begin(Action.ASSIGN, alice.id, uuid4().hex, 1, [address])
    assigned = {"pvt_status": "assigned", "pvt_modified": 1}
    mine = {**assigned, "pvt_assigned_to": alice.id, "pvt_transaction": begun.id}
    bobs = {**assigned, "pvt_assigned_to": bob.id}
    graft_both(pool, base, mine, bobs)
    recover(later, log)
    live = [leaf for leaf in pool.leaves(address) if not leaf.get("_deleted")]
    assert [leaf["_rev"] for leaf in live] == [f"2-{'f' * 32}"]


def test_a_transaction_is_finished_despite_a_conflict_of_other_writers(
    log: TransactionLog,
    later: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    address: str,
) -> None:
    base = to_document(add(address))
    log.begin(Action.ASSIGN, alice.id, uuid4().hex, 1, [address])
    for digest in "0f":
        pool.graft({**base, "_rev": f"2-{digest * 32}"}, parent=base["_rev"])
    recover(later, log)
    pool.remove(address, f"2-{'0' * 32}")


def test_a_losing_revision_of_a_committed_release_is_not_dropped(
    log: TransactionLog,
    later: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    bob: Member,
    address: str,
) -> None:
    """The losing revision was acknowledged, and the winning one may have no majority."""
    base = to_document(add(address))
    release = log.begin(Action.RELEASE, alice.id, uuid4().hex, 1, [address])
    log.commit(release, [address])
    mine = {"pvt_status": "assigned", "pvt_assigned_to": alice.id, "pvt_transaction": release.id}
    rival = {"pvt_status": "assigned", "pvt_assigned_to": bob.id}
    graft_both(pool, base, mine, rival)
    recover(later, log)
    live = [leaf for leaf in pool.leaves(address) if not leaf.get("_deleted")]
    assert {leaf["_rev"] for leaf in live} == {f"2-{'0' * 32}", f"2-{'f' * 32}"}
    pool.remove(address, f"2-{'0' * 32}")


@pytest.mark.parametrize("recent", [False, True])
def test_an_address_with_two_revisions_of_an_aborted_assignment_is_kept(
    log: TransactionLog,
    proxy: FaultProxy,
    proxied_settings: Settings,
    add: Callable[..., DedicatedIP],
    pool: Database,
    alice: Member,
    address: str,
    recent: bool,
) -> None:
    """The conflict may be too recent to be resolved apart from the transaction."""
    added = add(address)
    base, at = to_document(added), added.modified if recent else 1
    begun = log.begin(Action.ASSIGN, alice.id, uuid4().hex, at, [address])
    mine = {
        "pvt_status": "assigned",
        "pvt_assigned_to": alice.id,
        "pvt_transaction": begun.id,
        "pvt_modified": at,
    }
    for digest in "0f":
        pool.graft({**base, **mine, "_rev": f"2-{digest * 32}"}, parent=base["_rev"])
    proxy.rule(faults.cut, "PUT", f"-dedicated_ips/{address}")
    assert composition.build(proxied_settings).background._recovery.end_transaction(begun.id)
    assert pool.get(address)["pvt_status"] == "available"


@pytest.mark.parametrize("finished", [False, True])
def test_a_pending_or_orphaned_transaction_is_not_finished(
    later: Instance, log: TransactionLog, alice: Member, finished: bool
) -> None:
    recovery = later.background._recovery
    address, attempt = uuid4().hex, Attempt(uuid4().hex, 1)
    begun = log.begin(Action.ASSIGN, alice.id, uuid4().hex, 1, [address], attempt)
    transaction = log.abort(begun)
    assert transaction
    if finished:
        log.finish([transaction])
    assert eventually(lambda: (address in recovery.under_way()) != finished)
    assert (transaction.id in {t.id for t in recovery.orphaned()}) != finished


@pytest.mark.parametrize("action", [Action.ASSIGN, Action.RELEASE])
def test_a_committed_assignment_is_not_orphaned(
    begin: Callable[..., Transaction], later: Instance, log: TransactionLog, action: Action
) -> None:
    """Its documents agree with the decision from the start, unlike those of a release."""
    transaction = log.commit(begin(action), IPS)

    def is_orphaned() -> bool:
        return transaction.id in {t.id for t in later.background._recovery.orphaned()}

    assert eventually(lambda: is_orphaned() == (action is Action.RELEASE))


def test_an_address_with_an_unknown_status_is_left_alone_by_recovery(
    begin: Callable[..., Transaction], later: Instance, log: TransactionLog, pool: Database
) -> None:
    begin(Action.ASSIGN)
    newer = pool.put({**pool.get(IPS[0]), "pvt_status": "parked"}).revision
    recover(later, log)
    assert pool.get(IPS[0])["_rev"] == newer


def test_a_transaction_of_a_living_process_is_not_recovered(
    begin: Callable[..., Transaction], services: Instance, log: TransactionLog, pool: Database
) -> None:
    transaction = begin(Action.ASSIGN)
    services.background.recover()
    assert log.find(transaction.id) == transaction
    assert eventually(lambda: transaction.id in left(log))
    assert transaction.id not in {t.id for t in services.background._recovery.orphaned()}


def test_the_record_of_a_request_with_a_key_is_kept_for_a_day(
    begin: Callable[..., Transaction], settings: Settings, log: TransactionLog
) -> None:
    transaction = begin(Action.ASSIGN, Attempt(uuid4().hex, 1))
    log.finish([log.commit(transaction, IPS)])
    for hours, kept in [(23, True), (25, False)]:
        later = composition.build(settings, clock=lambda h=hours: time.time() + h * 3600)
        later.background.recover()
        assert (transaction.id in left(log)) == kept


@pytest.mark.parametrize("then", ["pending", "committed", "deleted"])
def test_an_earlier_attempt_that_begins_at_the_same_moment_is_ended(
    proxy: FaultProxy,
    proxied_settings: Settings,
    log: TransactionLog,
    add: Callable[..., DedicatedIP],
    alice: Member,
    then: str,
) -> None:
    for address in IPS:
        add(address)
    key, request_id = uuid4().hex, uuid4().hex
    earlier = f"-kazoo_ips/transaction-assign-{key}-1"

    def begins(forward: Forward) -> Reply:
        begun = log.begin(Action.ASSIGN, alice.id, request_id, 1, IPS, Attempt(key, 1))
        if then == "committed":
            log.commit(begun, IPS)
        return forward()

    def deletes(forward: Forward) -> Reply:
        begun = log.find(f"assign-{key}-1")
        assert begun
        log.sweep([begun])
        return forward()

    proxy.rule(begins, "PUT", earlier)
    if then == "deleted":  # deletes it before the read that follows the refusal of the fence
        proxy.rule(deletes, "GET", earlier, first=3)
    services = composition.build(proxied_settings)
    command, attempt = AssignIPs(alice.id, IPS), Attempt(key, 2)
    if then == "committed":
        result = services.ips.assign_all(command, request_id, attempt=attempt)
        assert [ip.address for ip in result] == list(IPS)
    else:
        with pytest.raises(DatastoreUnreachable):
            services.ips.assign_all(command, request_id, attempt=attempt)


def test_a_transaction_that_cannot_be_recovered_does_not_block_others(
    begin: Callable[..., Transaction],
    proxy: FaultProxy,
    proxied_settings: Settings,
    log: TransactionLog,
    alice: Member,
) -> None:
    other = log.begin(Action.ASSIGN, alice.id, uuid4().hex, 1, ["192.0.2.9"])
    both = {other.id, begin(Action.ASSIGN).id}
    assert eventually(lambda: both <= set(left(log)))
    first = min(both)
    proxy.rule(faults.error_without_type, "GET", f"-kazoo_ips/transaction-{first}", times=None)
    composition.build(proxied_settings, clock=lambda: FAR).background.recover()
    assert both & set(left(log)) == {first}


@pytest.mark.parametrize("extended", [False, True])
def test_a_transaction_that_changes_while_it_is_aborted_is_not_aborted(
    begin: Callable[..., Transaction],
    proxy: FaultProxy,
    proxied_settings: Settings,
    log: TransactionLog,
    pool: Database,
    alice: Member,
    extended: bool,
) -> None:
    """Its owner is alive after all, and commits the transaction or adds an address to it."""
    transaction = begin(Action.RELEASE)

    def changes(forward: Forward) -> Reply:
        if extended:
            log.extend(transaction, ["192.0.2.3"])
        else:
            log.commit(transaction, IPS)
        return forward()

    proxy.rule(changes, "PUT", f"-kazoo_ips/transaction-{transaction.id}")
    recovery = composition.build(proxied_settings).background._recovery
    if extended:
        with pytest.raises(DatastoreUnreachable):
            recovery.end_transaction(transaction.id)
        found = log.find(transaction.id)
        assert found
        assert (found.state, owners(pool)) == (TransactionState.PENDING, {alice.id})
    else:
        ended = recovery.end_transaction(transaction.id)
        assert ended
        assert (ended.state, owners(pool)) == (TransactionState.COMMITTED, {None})


def test_a_transaction_that_another_worker_ends_meanwhile_is_read_again(
    begin: Callable[..., Transaction],
    end_before_read: Callable[..., None],
    proxied_settings: Settings,
    pool: Database,
    bob: Member,
) -> None:
    """Its record stays for a later attempt, and shows that the documents have changed."""
    transaction = begin(Action.ASSIGN, Attempt(uuid4().hex, 1))
    end_before_read(transaction.id, first=2)
    later = composition.build(proxied_settings, clock=lambda: FAR)
    later.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex)
    assert owners(pool) == {bob.id, None}


def test_on_a_cluster_a_commit_without_a_majority_is_not_acted_on(
    begin: Callable[..., Transaction],
    proxy: FaultProxy,
    proxied_settings: Settings,
    log: TransactionLog,
    pool: Database,
    alice: Member,
    bob: Member,
) -> None:
    """The node of that commit may be cut off, and the other nodes may still accept an abort."""
    transaction = log.commit(begin(Action.RELEASE), IPS)
    proxy.rule(faults.three_copies, "GET", "-kazoo_ips/?$", times=None)
    proxy.rule(faults.answer_202, "PUT", f"-kazoo_ips/transaction-{transaction.id}", times=None)
    services = composition.build(proxied_settings)
    for act in (
        lambda: services.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex),
        lambda: services.background._recovery.end_transaction(transaction.id),
    ):
        with pytest.raises(DatastoreUnreachable):
            act()
    assert owners(pool) == {alice.id}


@pytest.fixture
def cluster_log(proxied_settings: Settings, proxy: FaultProxy) -> TransactionLog:
    """The log of a process whose database says that it has three replicas."""
    proxy.rule(faults.three_copies, "GET", "-kazoo_ips/?$", times=None)
    return TransactionLog(Records(composition.connect(proxied_settings)))


def rival(log: TransactionLog, couch: Couch, decided: Transaction, **fields: object) -> None:
    """Add the decision of another worker to the record of a transaction."""
    leaves = couch.database("kazoo_ips").leaves(f"transaction-{decided.id}", revs=True)
    [leaf] = [leaf for leaf in leaves if leaf["_rev"] == decided.revision]
    revisions = leaf.pop("_revisions")
    parent = f"{revisions['start'] - 1}-{revisions['ids'][1]}"
    revision = f"{generation(decided.revision)}-{'f' * 32}"
    couch.database("kazoo_ips").graft({**leaf, **fields, "_rev": revision}, parent=parent)


def test_on_a_cluster_an_abort_is_acted_on_only_when_no_worker_can_keep_a_commit(
    begin: Callable[..., Transaction], cluster_log: TransactionLog, couch: Couch
) -> None:
    """A commit without a majority has reached all nodes after the abort."""
    transaction = begin(Action.RELEASE)
    aborted = cluster_log.abort(transaction)
    assert aborted
    assert aborted.final
    rival(cluster_log, couch, replace(aborted), state="committed", final=False)
    found = cluster_log.find(transaction.id)
    assert found
    assert found.state is TransactionState.ABORTED
    assert cluster_log.confirm(found) == found


def test_on_a_cluster_a_commit_is_kept_beside_an_abort_that_nobody_has_acted_on(
    begin: Callable[..., Transaction], cluster_log: TransactionLog, couch: Couch
) -> None:
    committed = cluster_log.commit(begin(Action.RELEASE), IPS)
    rival(cluster_log, couch, committed, state="aborted")
    found = cluster_log.find(committed.id)
    assert found
    assert found.state is TransactionState.COMMITTED
    cluster_log.confirm(found)
    leaves = [leaf for leaf in couch.database("kazoo_ips").leaves(f"transaction-{found.id}")]
    assert [leaf["state"] for leaf in leaves if "_deleted" not in leaf] == ["committed"]


def test_on_a_single_node_an_abort_is_one_write(
    begin: Callable[..., Transaction], log: TransactionLog
) -> None:
    aborted = log.abort(begin(Action.RELEASE))
    assert aborted
    assert (aborted.final, generation(aborted.revision)) == (True, 2)


def test_on_a_cluster_an_abort_is_written_before_it_is_final(
    begin: Callable[..., Transaction], cluster_log: TransactionLog, proxy: FaultProxy
) -> None:
    """Its first write may have no majority, beside a commit that another worker acts on."""
    transaction = begin(Action.RELEASE)
    written: list[bool] = []

    def note(forward: Forward) -> Reply:
        written.append(json.loads(forward.request.body)["final"])
        return forward()

    proxy.rule(note, "PUT", f"-kazoo_ips/transaction-{transaction.id}", times=None)
    cluster_log.abort(transaction)
    assert written == [False, True]


def test_on_a_cluster_a_commit_is_confirmed_by_one_write(
    begin: Callable[..., Transaction], cluster_log: TransactionLog
) -> None:
    committed = cluster_log.commit(begin(Action.RELEASE), IPS)
    confirmed = cluster_log.confirm(committed)
    assert generation(confirmed.revision) == generation(committed.revision) + 1


def test_on_a_cluster_an_abort_is_made_final_by_whoever_finds_it(
    begin: Callable[..., Transaction], cluster_log: TransactionLog
) -> None:
    """Its worker died in between."""
    aborted = cluster_log._put(replace(begin(Action.RELEASE), state=TransactionState.ABORTED))
    assert aborted
    assert not aborted.final
    assert cluster_log.confirm(aborted).final
    found = cluster_log.find(aborted.id)
    assert found
    assert (found.state, found.final) == (TransactionState.ABORTED, True)


def test_on_a_cluster_a_committed_transaction_cannot_be_aborted(
    begin: Callable[..., Transaction], cluster_log: TransactionLog
) -> None:
    transaction = begin(Action.ASSIGN)
    cluster_log.commit(transaction, IPS)
    assert cluster_log.abort(transaction) is None
    found = cluster_log.find(transaction.id)
    assert found
    assert found.state is TransactionState.COMMITTED


@pytest.mark.parametrize("fault", [faults.answer_202, faults.cut])
def test_on_a_cluster_a_commit_is_not_acted_on_while_the_abort_beside_it_may_stay(
    begin: Callable[..., Transaction],
    cluster_log: TransactionLog,
    couch: Couch,
    proxy: FaultProxy,
    fault: faults.Fault,
) -> None:
    committed = cluster_log.commit(begin(Action.RELEASE), IPS)
    rival(cluster_log, couch, committed, state="aborted")
    found = cluster_log.find(committed.id)
    assert found
    proxy.rule(fault, "POST", "-kazoo_ips/_bulk_docs", times=None)
    with pytest.raises(DatastoreUnreachable):
        cluster_log.confirm(found)


@pytest.mark.parametrize("first", [1, 2])
def test_on_a_cluster_a_worker_does_not_act_on_a_decision_beside_another_one(
    begin: Callable[..., Transaction],
    cluster_log: TransactionLog,
    couch: Couch,
    proxy: FaultProxy,
    first: int,
) -> None:
    """The other decision arrives while a worker confirms the decision that it has read.

    :param first: 1: beside a commit, an abort that is final; 2: beside an abort, a commit
    """
    transaction = begin(Action.RELEASE)
    state = TransactionState.COMMITTED if first == 1 else TransactionState.ABORTED
    decided = cluster_log._put(replace(transaction, state=state))
    assert decided

    def arrives(forward: Forward) -> Reply:
        fields = {"state": "aborted", "final": True} if first == 1 else {"state": "committed"}
        rival(cluster_log, couch, decided, **fields)
        return forward()

    proxy.rule(arrives, "PUT", f"-kazoo_ips/transaction-{transaction.id}")
    with pytest.raises(DatastoreUnreachable):
        cluster_log.confirm(decided)


def test_a_finished_transaction_is_not_finished_again(
    begin: Callable[..., Transaction], services: Instance, alice: Member, pool: Database
) -> None:
    key = uuid4().hex
    request_id = begin(Action.ASSIGN, Attempt(key, 1)).request_id
    recovery = services.background._recovery
    results = []
    for _ in range(2):
        ended = recovery.end_attempts(Attempt(key, 2), Action.ASSIGN, alice.id, request_id)
        results.append((ended, [document["_rev"] for document in pool.get_all(IPS).values()]))
    assert results[0] == results[1]
    assert results[0][0] == (None, list(IPS))
