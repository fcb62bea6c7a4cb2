"""What is made of the record that a dead process has left, by whoever finds it."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import Conflict, DatastoreUnreachable, ValidationFailed
from kazoo_ips.model import AssignIP, AssignIPs, Attempt, DedicatedIP, ReleaseIP, ReleaseIPs
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, State, Transaction, TransactionLog
from kazoo_ips.services import Services
from tests.conftest import Member
from tests.faults.conftest import eventually

IPS = ("192.0.2.1", "192.0.2.2")
FAR = 4e9
"""Unix seconds, long after every lease has run out."""


@pytest.fixture
def log(couch: Couch) -> TransactionLog:
    return TransactionLog(Records(couch))


@pytest.fixture
def later(settings: Settings) -> Services:
    """The services of somebody who finds what others left."""
    return composition.build(settings, clock=lambda: FAR)


@pytest.fixture
def begin(
    log: TransactionLog,
    services: Services,
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
        transaction = log.begin(action, alice.id, request_id, done[0].modified, IPS, attempt)
        for document in pool.get_all(IPS).values():
            pool.put({**document, "pvt_transaction": transaction.id})
        return transaction

    return begin


def owners(pool: Database) -> set[str | None]:
    return {document.get("pvt_assigned_to") for document in pool.get_all(IPS).values()}


def copies(couch: Couch, who: Member) -> set[str]:
    return set(couch.database(account_database(who.id)).get_all(IPS))


def left(log: TransactionLog) -> list[str]:
    return [transaction.id for transaction in log.all()]


def recover(services: Services, log: TransactionLog) -> None:
    """On a cluster the list of records may be behind for a moment."""

    def is_empty() -> bool:
        services.housekeeping.recover()
        return not left(log)

    assert eventually(is_empty)


def test_a_pending_assignment_is_taken_back(
    begin: Callable[..., Transaction],
    later: Services,
    log: TransactionLog,
    pool: Database,
    couch: Couch,
    alice: Member,
) -> None:
    begin(Action.ASSIGN)
    recover(later, log)
    assert (owners(pool), copies(couch, alice)) == ({None}, set())


def test_a_pending_release_leaves_everything_as_it_was(
    begin: Callable[..., Transaction],
    later: Services,
    log: TransactionLog,
    pool: Database,
    couch: Couch,
    alice: Member,
) -> None:
    begin(Action.RELEASE)
    recover(later, log)
    assert (owners(pool), copies(couch, alice)) == ({alice.id}, set(IPS))


def test_a_committed_release_is_rolled_forward(
    begin: Callable[..., Transaction],
    later: Services,
    log: TransactionLog,
    pool: Database,
    couch: Couch,
    alice: Member,
) -> None:
    log.commit(begin(Action.RELEASE), IPS)
    recover(later, log)
    assert (owners(pool), copies(couch, alice)) == ({None}, set())


def test_a_committed_assignment_stays(
    begin: Callable[..., Transaction],
    later: Services,
    log: TransactionLog,
    pool: Database,
    couch: Couch,
    alice: Member,
) -> None:
    log.commit(begin(Action.ASSIGN), IPS)
    recover(later, log)
    assert (owners(pool), copies(couch, alice)) == ({alice.id}, set(IPS))


def test_an_assignment_that_arrives_after_it_was_taken_back_is_refused(
    begin: Callable[..., Transaction], later: Services, log: TransactionLog, pool: Database
) -> None:
    transaction = begin(Action.ASSIGN)
    late = pool.get(IPS[0])
    free = {k: v for k, v in late.items() if k not in ("pvt_assigned_to", "pvt_transaction")}
    revision = pool.put({**free, "pvt_status": "available"}).revision
    recover(later, log)
    assert pool.put({**late, "_rev": revision}).revision is None
    assert (owners(pool), transaction.state) == ({None}, State.PENDING)


def test_a_release_that_is_decided_shows_when_it_is_asked_for(
    begin: Callable[..., Transaction],
    services: Services,
    log: TransactionLog,
    alice: Member,
    bob: Member,
) -> None:
    log.commit(begin(Action.RELEASE), IPS)
    assert services.ips.fetch(IPS[0]).assigned_to is None
    assert services.ips.assign(AssignIP(bob.id, IPS[1]), uuid4().hex).assigned_to == bob.id


def test_a_release_that_is_undecided_does_not_show(
    begin: Callable[..., Transaction], services: Services, alice: Member
) -> None:
    begin(Action.RELEASE)
    assert services.ips.fetch(IPS[0]).assigned_to == alice.id


@pytest.mark.parametrize("action", Action)
def test_what_a_living_process_has_not_decided_yet_is_not_to_be_had(
    begin: Callable[..., Transaction],
    services: Services,
    pool: Database,
    alice: Member,
    action: Action,
) -> None:
    begin(action)
    with pytest.raises(Conflict):
        services.ips.release(ReleaseIP(alice.id, IPS[0]), uuid4().hex)
    assert owners(pool) == {alice.id}


def test_what_a_dead_process_has_not_decided_is_settled_by_who_needs_it(
    begin: Callable[..., Transaction], later: Services, pool: Database, bob: Member
) -> None:
    begin(Action.ASSIGN)
    later.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex)
    assert owners(pool) == {bob.id, None}


def test_who_was_taken_for_dead_cannot_commit(
    begin: Callable[..., Transaction], later: Services, log: TransactionLog
) -> None:
    transaction = begin(Action.ASSIGN)
    later.housekeeping.recover()
    with pytest.raises(DatastoreUnreachable):
        log.commit(transaction, IPS)
    assert log.find(transaction.id) is None


def test_what_is_committed_cannot_be_aborted(
    begin: Callable[..., Transaction], log: TransactionLog
) -> None:
    transaction = begin(Action.ASSIGN)
    log.commit(transaction, IPS)
    assert log.abort(transaction) is None


@pytest.mark.parametrize("kind", ["deleted", "committed"])
def test_of_two_revisions_of_a_record_the_one_that_ends_it_counts(
    begin: Callable[..., Transaction],
    later: Services,
    log: TransactionLog,
    couch: Couch,
    pool: Database,
    alice: Member,
    kind: str,
) -> None:
    """A node that has slept took part in somebody's attempt to abort it."""
    transaction = begin(Action.ASSIGN)
    database = couch.database("kazoo_ips")
    record = database.get(f"transaction-{transaction.id}")
    committed = log.commit(transaction, IPS)
    if kind == "deleted":
        log.finish([committed])
    aborted = {**record, "state": "aborted", "_rev": f"2-{'f' * 32}"}
    database.graft(aborted, parent=record["_rev"])
    assert eventually(lambda: transaction.id in left(log))
    later.housekeeping.recover()
    assert owners(pool) == {alice.id}


def test_a_later_attempt_keeps_an_earlier_one_from_beginning(
    log: TransactionLog, services: Services, add: Callable[..., Any], alice: Member, pool: Database
) -> None:
    for address in IPS:
        add(address)
    key = uuid4().hex
    services.ips.assign_all(AssignIPs(alice.id, IPS), uuid4().hex, attempt=Attempt(key, 2))
    with pytest.raises(DatastoreUnreachable):
        log.begin(Action.ASSIGN, alice.id, uuid4().hex, 1, IPS, Attempt(key, 1))


def test_a_later_attempt_takes_back_what_an_earlier_one_has_begun(
    begin: Callable[..., Transaction],
    services: Services,
    log: TransactionLog,
    alice: Member,
    pool: Database,
) -> None:
    key = uuid4().hex
    earlier = begin(Action.ASSIGN, Attempt(key, 1))
    with pytest.raises(ValidationFailed):
        services.ips.assign_all(
            AssignIPs(alice.id, (*IPS, "192.0.2.99")), earlier.request_id, attempt=Attempt(key, 2)
        )
    assert owners(pool) == {None}
    with pytest.raises(DatastoreUnreachable):
        log.commit(earlier, IPS)


@pytest.mark.parametrize("action", Action)
def test_a_later_attempt_tells_what_an_earlier_one_has_done(
    begin: Callable[..., Transaction],
    services: Services,
    log: TransactionLog,
    alice: Member,
    bob: Member,
    action: Action,
) -> None:
    """Whatever others have done with the addresses since."""
    key = uuid4().hex
    earlier = begin(action, Attempt(key, 1))
    log.commit(earlier, IPS)
    if action is Action.ASSIGN:
        services.ips.release(ReleaseIP(alice.id, IPS[0]), uuid4().hex)
    services.ips.assign(AssignIP(bob.id, IPS[0]), uuid4().hex)
    name, attempt = earlier.request_id, Attempt(key, 2)
    if action is Action.ASSIGN:
        told = services.ips.assign_all(AssignIPs(alice.id, IPS), name, attempt=attempt)
    else:
        told = services.ips.release_all(ReleaseIPs(alice.id, IPS), name, attempt=attempt)
    assert [ip.address for ip in told] == list(IPS)
    assert services.ips.fetch(IPS[0]).assigned_to == bob.id
