"""A worker finishes or rolls back its own interrupted requests as soon as it can.

Other workers may not do so for a minute, because it is alive. So no test waits for a lease.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import (
    Conflict,
    DatastoreForbidden,
    DatastoreUnreachable,
    InsufficientIPs,
    LimitReached,
    PreconditionFailed,
)
from kazoo_ips.model import (
    AllocateIPs,
    AssignIP,
    AssignIPs,
    Attempt,
    ChangeIP,
    Changes,
    DedicatedIP,
    Outcome,
    ReleaseIP,
    ReleaseIPs,
    TransferIPs,
)
from kazoo_ips.model.commands import ReserveIPs
from kazoo_ips.model.limits import Limits
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.services.assigning.recovery import LEASE
from kazoo_ips.services.assigning.transactions import _LATE
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import Clock
from tests.faults.proxy import Fault, FaultProxy, Forward, Reply

IPS = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
MANY = "-dedicated_ips/_bulk_docs"
RECORD = "-kazoo_ips/transaction-"


class Worker:
    """The services of one worker behind the proxy, and what they have written."""

    def __init__(self, proxy: FaultProxy, settings: Settings, couch: Couch, who: Member) -> None:
        self.proxy = proxy
        self.services = composition.build(settings, trace=self.trace)
        self.gone_at: str | None = None
        self.gone_before = 1
        self.couch = couch
        self.who = who
        self.pool = couch.database("dedicated_ips")
        self.refused: type[Exception] | None = None

    def trace(self, method: str, url: str) -> None:
        """Called before each request is sent."""
        if method != "GET" and self.gone_at and self.gone_at in url:
            self.gone_before -= 1
            if not self.gone_before:
                self.proxy.stop_listening()

    def assign(self, attempt: Attempt | None = None, count: int = 3) -> list[DedicatedIP]:
        command = AssignIPs(self.who.id, IPS[:count])
        return self.services.ips.assign_all(command, uuid4().hex, attempt=attempt)

    def release(self, attempt: Attempt | None = None) -> list[DedicatedIP]:
        command = ReleaseIPs(self.who.id, IPS)
        return self.services.ips.release_all(command, uuid4().hex, attempt=attempt)

    def allocate(self, count: int = 2) -> list[DedicatedIP]:
        return self.services.allocation.allocate(AllocateIPs(self.who.id, count), uuid4().hex)

    def cause(self, fault: Fault, path: str, first: int = 1, times: int | None = None) -> None:
        """Apply a fault to the writes to a path, from the write of a number on."""
        self.proxy.rule(fault, "PUT|POST", path, first=first, times=times)

    def recover(self) -> None:
        """End the outage of the database, and let the worker do its retries."""
        self.gone_at = None
        self.proxy.start_listening()
        self.proxy.clear()
        self.services.background.work()

    @property
    def copies(self) -> set[str]:
        return set(self.couch.database(account_database(self.who.id)).get_all(IPS))

    @property
    def owned(self) -> set[str]:
        found = self.pool.get_all(IPS)
        return {a for a, d in found.items() if d.get("pvt_assigned_to") == self.who.id}

    @property
    def records(self) -> list[str]:
        return self.records_of("transaction-")

    def records_of(self, prefix: str) -> list[str]:
        """The states of the records whose ids begin with the prefix."""
        records = self.couch.database("kazoo_ips").range(prefix, f"{prefix}\uffff")
        return [d["state"] + (", finished" if d["finished"] else "") for d in records]

    def has(self, addresses: Sequence[str]) -> bool:
        """Whether the account has these addresses, the copies agree, and no record is left."""
        return (self.owned, self.copies, self.records) == ({*addresses}, {*addresses}, [])


@pytest.fixture
def worker(
    proxy: FaultProxy,
    proxied_settings: Settings,
    couch: Couch,
    add: Callable[..., DedicatedIP],
    alice: Member,
) -> Worker:
    for address in IPS:
        add(address)
    database = couch.database("kazoo_ips")
    left = list(database.range("transaction-", "transaction-\uffff"))
    database.put_all([{"_id": d["_id"], "_rev": d["_rev"], "_deleted": True} for d in left])
    return Worker(proxy, proxied_settings, couch, alice)


@pytest.fixture
def taking(services: Instance, bob: Member) -> Callable[[str], Fault]:
    """A fault: another client assigns an address just before the write arrives."""

    def make(address: str, then: Fault = lambda forward: forward()) -> Fault:
        def fault(forward: Forward) -> Reply:
            services.ips.assign(AssignIP(bob.id, address), uuid4().hex)
            return then(forward)

        return fault

    return make


def test_nothing_is_left_of_an_assignment_that_lost_a_race(
    worker: Worker, taking: Callable[..., Fault]
) -> None:
    worker.cause(taking(IPS[1]), MANY, times=1)
    with pytest.raises(Conflict) as conflict:
        worker.assign()
    assert conflict.value.addresses == (IPS[1],)
    assert worker.has([])


def test_nothing_is_left_of_a_release_that_lost_a_race(
    worker: Worker, services: Instance, alice: Member
) -> None:
    worker.assign()
    worker.recover()

    def fault(forward: Forward) -> Reply:
        services.ips.release(ReleaseIP(alice.id, IPS[1]), uuid4().hex)
        return forward()

    worker.cause(fault, MANY, times=1)
    with pytest.raises(Conflict) as conflict:
        worker.release()
    assert conflict.value.addresses == (IPS[1],)
    assert worker.has([IPS[0], IPS[2]])


def test_an_address_deleted_during_the_confirmation_of_a_release_stays_deleted(
    worker: Worker, proxied_settings: Settings, alice: Member
) -> None:
    def deleted(forward: Forward) -> Reply:
        document = worker.pool.get(IPS[1])
        # A node that does not have the deletion accepts the write.
        reply = faults.answer_202(forward)
        event = {"event": "deleted", "request_id": "d", "at": document["pvt_modified"] + 1}
        trail = [*document["pvt_trail"], event]
        revision = f"{int(document['_rev'].split('-')[0]) + 1}-{'0' * 32}"
        deletion = {**document, "_rev": revision, "_deleted": True, "pvt_trail": trail}
        worker.pool.graft(deletion, parent=document["_rev"])
        return reply

    worker.assign()
    worker.recover()
    worker.proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    worker.cause(faults.lose_reply, MANY, first=2, times=1)
    worker.cause(deleted, MANY, first=3, times=1)
    on_a_cluster = composition.build(proxied_settings)
    on_a_cluster.ips.release_all(ReleaseIPs(alice.id, IPS), uuid4().hex)
    assert worker.pool.find(IPS[1]) is None
    assert {worker.pool.get(ip)["pvt_status"] for ip in (IPS[0], IPS[2])} == {"available"}


def test_nothing_is_left_of_a_transfer_of_several_that_lost_a_race(
    worker: Worker, services: Instance, bob: Member
) -> None:
    before = worker.records_of("transfer-")
    worker.assign()

    def releases(forward: Forward) -> Reply:
        services.ips.release(ReleaseIP(worker.who.id, IPS[1]), uuid4().hex)
        return forward()

    worker.cause(releases, MANY, times=1)
    with pytest.raises(Conflict):
        worker.services.transfers.transfer(TransferIPs(IPS, worker.who.id, bob.id), uuid4().hex)
    worker.recover()
    assert worker.has([IPS[0], IPS[2]])
    assert worker.records_of("transfer-") == before


def test_nothing_is_left_of_a_reservation_of_several_that_lost_a_race(
    worker: Worker, taking: Callable[..., Fault]
) -> None:
    before = worker.records_of("reserve-")
    worker.cause(taking(IPS[1]), MANY, times=1)
    command = ReserveIPs(AssignIPs(worker.who.id, IPS), 60)
    with pytest.raises(Conflict):
        worker.services.reservations.reserve(command, uuid4().hex)
    statuses = [worker.pool.get(address)["pvt_status"] for address in IPS]
    assert statuses == ["available", "assigned", "available"]
    worker.recover()
    assert worker.records_of("reserve-") == before


@pytest.mark.parametrize(("number", "error"), [(1, Conflict), (2, DatastoreUnreachable)])
def test_a_later_attempt_that_lost_a_race_has_an_unknown_outcome(
    worker: Worker, taking: Callable[..., Fault], number: int, error: type[Exception]
) -> None:
    """It may have lost to an earlier attempt of the same request."""
    worker.cause(taking(IPS[1]), MANY, times=1)
    with pytest.raises(error):
        worker.assign(Attempt(uuid4().hex, number))


def test_a_lost_and_an_unknown_write_make_an_unknown_outcome(
    worker: Worker, taking: Callable[..., Fault]
) -> None:
    worker.cause(taking(IPS[1], faults.lose_reply), MANY, times=1)
    worker.proxy.rule(faults.error_without_type, "GET", f"-dedicated_ips/{IPS[0]}", times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.assign()
    worker.recover()
    assert worker.has([])


@pytest.mark.parametrize("count", [1, 3])
def test_no_copy_is_left_of_an_assignment_whose_copies_are_uncertain(
    worker: Worker, alice: Member, count: int
) -> None:
    database = f"{alice.id[4:]}/"
    worker.cause(faults.lose_reply, database, times=1)
    worker.proxy.rule(faults.error_without_type, "GET", database)
    with pytest.raises(DatastoreUnreachable):
        worker.assign(count=count)
    assert worker.has([])


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_left_of_an_assignment_to_an_account_without_a_database(
    worker: Worker, count: int
) -> None:
    with pytest.raises(DatastoreUnreachable):
        worker.services.ips.assign_all(AssignIPs(uuid4().hex, IPS[:count]), uuid4().hex)
    worker.recover()
    assert {d["pvt_status"] for d in worker.pool.get_all(IPS).values()} == {"available"}


@pytest.mark.parametrize("count", [1, 3])
def test_an_assignment_whose_copies_are_forbidden_is_rolled_back(
    worker: Worker, alice: Member, count: int
) -> None:
    worker.cause(faults.forbid, f"{alice.id[4:]}/")
    with pytest.raises(DatastoreForbidden):
        worker.assign(count=count)
    assert worker.has([])


@pytest.mark.parametrize(
    ("fault", "fails"),
    [(faults.cut, True), (faults.answer_202, False), (faults.lose_reply, False)],
)
def test_the_copy_of_a_changed_address_is_written_later_if_that_is_necessary(
    worker: Worker, fault: Fault, fails: bool
) -> None:
    """It is not necessary if the account's database has the copy although the write failed."""
    worker.assign(count=1)
    worker.services.background.check_due(now=1e12)
    command = ChangeIP(IPS[0], Changes(zone="moved"), if_match=("*",))
    worker.cause(fault, f"{worker.who.id[4:]}/")
    with pytest.raises(DatastoreUnreachable) if fails else nullcontext():
        worker.services.address_changes.change(command, uuid4().hex)
    worker.proxy.clear()
    assert worker.services.background.check_due(now=1e12) == fails
    copy = worker.couch.database(account_database(worker.who.id)).get(IPS[0])
    assert copy["pvt_zone"] == "moved"


@pytest.mark.parametrize("released", [False, True], ids=["", "released meanwhile"])
def test_a_transfer_of_one_address_moves_its_copy_or_changes_nothing(
    worker: Worker, services: Instance, couch: Couch, bob: Member, released: bool
) -> None:
    worker.assign(count=1)

    def releases(forward: Forward) -> Reply:
        services.ips.release(ReleaseIP(worker.who.id, IPS[0]), uuid4().hex)
        return forward()

    if released:
        worker.cause(releases, f"-dedicated_ips/{IPS[0]}", times=1)
    command = TransferIPs(IPS[:1], worker.who.id, bob.id)
    with pytest.raises(Conflict) if released else nullcontext():
        worker.services.transfers.transfer(command, uuid4().hex)
    copies = couch.database(account_database(bob.id)).get_all(IPS[:1])
    assert (worker.copies, bool(copies)) == (set(), not released)


@pytest.mark.parametrize(
    ("if_match", "error"), [((), Conflict), (("*",), PreconditionFailed)], ids=["", "If-Match"]
)
def test_a_change_that_lost_a_race_is_refused(
    worker: Worker, taking: Callable[..., Fault], if_match: tuple[str, ...], error: type[Exception]
) -> None:
    worker.cause(taking(IPS[0]), f"-dedicated_ips/{IPS[0]}", times=1)
    command = ChangeIP(IPS[0], Changes(zone="moved"), if_match=if_match)
    with pytest.raises(error):
        worker.services.address_changes.change(command, uuid4().hex)
    assert worker.pool.get(IPS[0])["pvt_zone"] != "moved"


@pytest.mark.parametrize(
    ("if_match", "error"), [((), Conflict), (("*",), PreconditionFailed)], ids=["", "If-Match"]
)
@pytest.mark.parametrize("action", ["assign", "release"])
def test_a_write_of_one_address_that_lost_a_race_is_refused(
    worker: Worker, services: Instance, bob: Member, action: str, if_match: Any, error: Any
) -> None:
    who, address = worker.who.id, IPS[0]

    def loses(forward: Forward) -> Reply:
        if action == "assign":
            services.ips.assign(AssignIP(bob.id, address), uuid4().hex)
        else:
            services.ips.release(ReleaseIP(who, address), uuid4().hex)
        return forward()

    if action == "release":
        worker.assign(count=1)
    worker.cause(loses, f"-dedicated_ips/{address}", times=1)
    ips = worker.services.ips
    write: Callable[..., DedicatedIP] = ips.assign if action == "assign" else ips.release
    command = (AssignIP if action == "assign" else ReleaseIP)(who, address, if_match)
    with pytest.raises(error):
        write(command, uuid4().hex)


def test_an_address_of_an_account_without_a_database_can_be_changed(worker: Worker) -> None:
    """Another program has assigned it."""
    nobody = {"pvt_status": "assigned", "pvt_assigned_to": uuid4().hex}
    worker.pool.put({**worker.pool.get(IPS[0]), **nobody})
    command = ChangeIP(IPS[0], Changes(zone="moved"), if_match=("*",))
    assert worker.services.address_changes.change(command, uuid4().hex).zone == "moved"
    assert worker.services.background.check_due(now=1e12) == 0


def test_the_release_of_an_earlier_assignment_keeps_the_copy_of_a_later_one(
    worker: Worker, alice: Member
) -> None:
    [earlier] = worker.assign(count=1)
    worker.services.ips.release(ReleaseIP(alice.id, IPS[0]), uuid4().hex)
    worker.assign(count=1)
    worker.services.copies.remove([earlier])
    assert worker.has(IPS[:1])


@pytest.mark.parametrize("late", [False, True], ids=["not removed", "written late"])
def test_a_copy_that_is_there_after_a_release_is_removed_later(
    worker: Worker, couch: Couch, alice: Member, late: bool
) -> None:
    worker.assign(count=1)
    database = couch.database(account_database(alice.id))
    copy = database.get(IPS[0])
    if late:  # as if the request that assigned the address had not written the copy yet
        database.remove(IPS[0], copy.pop("_rev"))
    else:
        worker.cause(faults.cut, f"{alice.id[4:]}/")
    worker.services.ips.release(ReleaseIP(alice.id, IPS[0]), uuid4().hex)
    worker.proxy.clear()
    if late:
        database.put(copy)
    assert (worker.owned, worker.copies) == (set(), {IPS[0]})
    worker.services.background.check_due(now=1e12)
    assert worker.has([])


@pytest.mark.parametrize(
    ("fault", "path", "first"),
    [
        (faults.error_without_type, RECORD, 2),
        (faults.cut, RECORD, 2),
        ("away", RECORD, 2),
        ("away", MANY, 1),
        (faults.cut, MANY, 1),
        (faults.lose_reply, MANY, 1),
    ],
)
def test_an_assignment_that_fails_by_an_outage_is_rolled_back_after_it(
    worker: Worker, fault: Fault | str, path: str, first: int
) -> None:
    worker.cause(worker.proxy.stop_at_request if fault == "away" else fault, path, first)  # type: ignore[arg-type]
    if path == MANY and fault != "away":  # then its outcome is unknown
        worker.proxy.rule(faults.error_without_type, "GET", "-dedicated_ips/192", times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.assign()
    worker.recover()
    assert worker.has([])


def test_a_roll_back_that_an_outage_prevents_is_done_after_it(
    worker: Worker, taking: Callable[..., Fault]
) -> None:
    worker.cause(taking(IPS[1]), MANY, times=1)
    worker.cause(worker.proxy.stop_at_request, MANY, first=2)
    with pytest.raises(DatastoreUnreachable):
        worker.assign()
    worker.recover()
    assert worker.has([])


def test_an_abort_that_an_outage_prevents_is_recorded_after_it(
    worker: Worker, taking: Callable[..., Fault]
) -> None:
    worker.cause(taking(IPS[1]), MANY, times=1)
    worker.cause(faults.error_without_type, RECORD, first=2)
    with pytest.raises(Conflict):
        worker.assign(Attempt(uuid4().hex, 1))
    assert (worker.owned, worker.records) == (set(), ["pending"])
    worker.recover()
    assert (worker.owned, worker.records) == (set(), ["aborted, finished"])


def test_nothing_is_left_of_an_allocation_with_too_few_addresses(
    worker: Worker, taking: Callable[..., Fault]
) -> None:
    worker.cause(taking(IPS[1]), MANY, times=1)
    with pytest.raises(InsufficientIPs):
        worker.allocate(3)
    assert worker.has([])


def test_nothing_is_written_for_an_allocation_of_more_than_there_is(worker: Worker) -> None:
    before = list(worker.proxy.records)
    with pytest.raises(InsufficientIPs):
        worker.allocate(4)
    sent = worker.proxy.records[len(before) :]
    assert [r for r in sent if "dedicated_ips/_bulk_docs" in r.request.path] == []


@pytest.mark.parametrize("count", [1, 3])
def test_an_allocation_without_a_quorum_is_not_refused_for_lack_of_addresses(
    worker: Worker, count: int
) -> None:
    worker.cause(faults.answer_202, "-dedicated_ips/192" if count == 1 else MANY)
    with pytest.raises(DatastoreUnreachable):
        worker.allocate(count)
    worker.recover()
    assert worker.has([])


def test_an_allocation_with_an_unknown_outcome_is_rolled_back(worker: Worker) -> None:
    worker.cause(faults.lose_reply, MANY, times=1)
    worker.proxy.rule(faults.error_without_type, "GET", "-dedicated_ips/192", times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.allocate()
    worker.recover()
    assert worker.has([])


def test_an_allocation_of_one_with_an_unknown_outcome_takes_no_other_address(
    worker: Worker,
) -> None:
    """The write may have been done, so the account could get two addresses."""
    rule = worker.proxy.rule(faults.lose_reply, "PUT", "-dedicated_ips/192", times=1)
    worker.proxy.rule(faults.error_without_type, "GET", "-dedicated_ips/192", times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.allocate(1)
    puts = [r for r in worker.proxy.records if r.rule is rule or r.request.method == "PUT"]
    assert len([r for r in puts if "-dedicated_ips/" in r.request.path]) == 1


def test_the_record_of_an_unknown_outcome_stays_until_the_documents_are_known(
    worker: Worker,
) -> None:
    worker.cause(faults.lose_reply, MANY, times=1)
    worker.proxy.rule(faults.error_without_type, "GET", "-dedicated_ips/192", times=None)
    worker.cause(faults.cut, RECORD, first=2)
    with pytest.raises(DatastoreUnreachable):
        worker.assign()
    assert (worker.owned, worker.records) == (set(IPS), ["pending"])
    worker.recover()
    assert worker.has([])


@pytest.fixture
def limited(worker: Worker, services: Instance, alice: Member) -> Iterator[Worker]:
    """The account of the worker's requests has a limit, which they do not reach."""
    services.limits.set(alice.id, Limits(max=5), uuid4().hex)
    yield worker
    services.limits.set(alice.id, Limits(), uuid4().hex)


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_left_of_an_assignment_that_could_not_be_counted(
    limited: Worker, count: int
) -> None:
    limited.cause(faults.cut, "-kazoo_ips/limit-")
    with pytest.raises(DatastoreUnreachable):
        limited.assign(count=count)
    limited.recover()
    assert limited.has([])


def test_nothing_is_left_of_an_assignment_if_another_request_takes_the_last_place(
    limited: Worker, services: Instance
) -> None:
    account_id = limited.who.id
    services.limits.set(account_id, Limits(max=1), uuid4().hex)
    limited.services.limits.refresh()

    def takes(forward: Forward) -> Reply:
        services.ips.assign(AssignIP(account_id, IPS[1]), uuid4().hex)
        return forward()

    limited.cause(takes, "-kazoo_ips/limit-", times=1)
    with pytest.raises(LimitReached):
        limited.assign(count=1)
    services.background.work()
    assert limited.has([IPS[1]])


def test_nothing_is_left_of_a_reservation_that_could_not_be_recorded(worker: Worker) -> None:
    command = ReserveIPs(AssignIPs(worker.who.id, IPS), 60)
    worker.cause(faults.cut, "-kazoo_ips/reservations-")
    with pytest.raises(DatastoreUnreachable):
        worker.services.reservations.reserve(command, uuid4().hex)
    worker.recover()
    statuses = {document["pvt_status"] for document in worker.pool.get_all(IPS).values()}
    assert (statuses, worker.records_of("reserve-")) == ({"available"}, [])


def test_an_allocation_tries_again_if_an_address_was_taken_and_is_available_again(
    worker: Worker, services: Instance, bob: Member
) -> None:
    def fault(forward: Forward) -> Reply:
        services.ips.assign(AssignIP(bob.id, IPS[1]), uuid4().hex)
        services.ips.release(ReleaseIP(bob.id, IPS[1]), uuid4().hex)
        return forward()

    worker.cause(fault, MANY, times=1)
    assert len(worker.allocate(3)) == 3
    worker.recover()
    assert worker.has(IPS)


def test_an_allocation_takes_another_address_in_place_of_one_that_is_lost(
    worker: Worker, services: Instance, bob: Member
) -> None:
    worker.cause(_take_first(services, bob), MANY, times=1)
    allocated = worker.allocate()
    worker.recover()
    assert len(allocated) == 2
    assert worker.has([ip.address for ip in allocated])


def test_an_allocation_keeps_its_other_addresses_when_one_is_lost(
    worker: Worker, services: Instance, bob: Member
) -> None:
    worker.cause(_take_first(services, bob), MANY, times=1)
    worker.allocate()
    requests = [record.request for record in worker.proxy.records]
    several = [json.loads(each.body)["docs"] for each in requests if MANY in each.path]
    puts = [r for r in requests if r.method == "PUT" and "-dedicated_ips/" in r.path]
    assert len(several[0]) + len(several[1:]) + len(puts) == len(IPS)


def _take_first(services: Instance, bob: Member) -> Fault:
    """A fault: another client assigns the first of the addresses that are about to be written."""

    def fault(forward: Forward) -> Reply:
        wanted = json.loads(forward.request.body)["docs"]
        services.ips.assign(AssignIP(bob.id, wanted[0]["_id"]), uuid4().hex)
        return forward()

    return fault


def test_an_assignment_that_cannot_be_sent_is_rolled_back_after_the_outage(
    worker: Worker,
) -> None:
    worker.gone_at = MANY
    with pytest.raises(DatastoreUnreachable):
        worker.assign()
    worker.recover()
    assert worker.has([])


@pytest.mark.parametrize("first", [2, 3], ids=["not extended", "not committed"])
def test_an_interrupted_allocation_is_rolled_back_after_the_outage(
    worker: Worker, services: Instance, bob: Member, first: int
) -> None:
    worker.cause(_take_first(services, bob), MANY, times=1)
    worker.cause(faults.cut, RECORD, first=first)
    with pytest.raises(DatastoreUnreachable):
        worker.allocate()
    worker.recover()
    assert worker.has([])


@pytest.mark.parametrize("fault", [faults.answer_202, faults.cut, "away"])
def test_a_committed_release_is_rolled_forward_after_the_outage(
    worker: Worker, fault: Fault | str
) -> None:
    worker.assign()
    worker.recover()
    stop = worker.proxy.stop_at_request
    worker.cause(stop if fault == "away" else fault, MANY, first=2, times=1)  # type: ignore[arg-type]
    released = worker.release()
    worker.recover()
    assert (worker.owned, worker.records) == (set(), [])
    assert {document["pvt_request_id"] for document in worker.pool.get_all(IPS).values()} == {
        ip.request_id for ip in released
    }


def test_a_committed_release_that_was_not_sent_is_rolled_forward_after_the_outage(
    worker: Worker,
) -> None:
    worker.assign()
    worker.recover()
    worker.gone_at, worker.gone_before = MANY, 2
    assert len(worker.release()) == 3
    worker.recover()
    assert (worker.owned, worker.records) == (set(), [])


def test_a_committed_release_is_rolled_forward_despite_other_writers(worker: Worker) -> None:
    worker.assign()
    worker.recover()

    def fault(forward: Forward) -> Reply:
        worker.pool.put({**worker.pool.get(IPS[0]), "pvt_zone": "moved"})
        return forward()

    worker.cause(fault, MANY, first=2, times=1)
    worker.release()
    assert worker.has([])


def test_a_later_attempt_finds_a_lost_assignment_aborted(
    worker: Worker, taking: Callable[..., Fault]
) -> None:
    worker.cause(taking(IPS[1]), MANY, times=1)
    with pytest.raises(Conflict):
        worker.assign(Attempt(uuid4().hex, 1))
    assert worker.records == ["aborted, finished"]


def test_on_a_cluster_a_release_without_a_majority_is_written_again(
    worker: Worker,
) -> None:
    worker.proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    worker.assign()
    before = {a: int(d["_rev"].split("-")[0]) for a, d in worker.pool.get_all(IPS).items()}
    worker.cause(faults.answer_202, MANY, first=2, times=1)
    worker.release()
    after = {a: int(d["_rev"].split("-")[0]) for a, d in worker.pool.get_all(IPS).items()}
    # Each document is marked, made available, and written once more.
    assert {a: after[a] - before[a] for a in IPS} == dict.fromkeys(IPS, 3)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_worker_taken_for_dead_while_it_writes_copies_leaves_none(
    worker: Worker, settings: Settings, alice: Member, keyed: bool
) -> None:
    clock = Clock()
    clock.ahead = LEASE + 10
    other = composition.build(settings, clock=clock)

    def fault(forward: Forward) -> Reply:
        other.background.recover()
        return forward()

    worker.cause(fault, f"{alice.id[4:]}/_bulk_docs", times=1)
    with pytest.raises(DatastoreUnreachable):
        worker.assign(Attempt(uuid4().hex, 1) if keyed else None)
    assert (worker.owned, worker.copies) == (set(), set())
    assert worker.records == (["aborted, finished"] if keyed else [])


@pytest.mark.parametrize("action", ["assign", "release"])
def test_the_record_of_a_finished_transaction_is_deleted_soon(worker: Worker, action: str) -> None:
    worker.assign()
    if action == "release":
        worker.release()
    worker.recover()
    assert worker.has(IPS if action == "assign" else [])
    assert worker.services.background.work() == 0


def test_the_record_of_a_finished_transfer_is_deleted_soon(worker: Worker, bob: Member) -> None:
    before = worker.records_of("transfer-")
    worker.assign()
    command = TransferIPs(IPS, worker.who.id, bob.id)
    worker.services.transfers.transfer(command, uuid4().hex)
    worker.recover()
    assert worker.has([])
    assert worker.records_of("transfer-") == before


@pytest.mark.parametrize("lost", [False, True])
def test_a_record_that_may_arrive_again_is_not_deleted(
    worker: Worker, taking: Callable[..., Fault], lost: bool
) -> None:
    """A late write would make it pending again, and recovery would undo the assignment."""
    late: list[bytes] = []

    def fault(forward: Forward) -> Reply:
        late.append(forward.request.body)
        return faults.cut(forward)

    worker.cause(fault, RECORD, times=1)
    if lost:
        worker.cause(taking(IPS[1]), MANY, times=1)
        with pytest.raises(Conflict):
            worker.assign()
    else:
        worker.assign()
    worker.recover()
    arrived = worker.couch.database("kazoo_ips").put(json.loads(late[0]))
    assert arrived.outcome is Outcome.REFUSED
    assert worker.owned == (set() if lost else set(IPS))
    assert worker.records == ["aborted, finished" if lost else "committed, finished"]


def test_on_a_cluster_the_record_of_an_assignment_is_deleted_later(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lagging node could receive the deletion before the creation."""
    worker.proxy.rule(faults.three_copies, "GET", "-dedicated_ips/?$", times=None)
    worker.assign()
    worker.services.background.work()
    assert worker.records == ["committed"]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + _LATE)
    worker.services.background.work()
    assert worker.has(IPS)


def test_records_that_could_not_be_deleted_are_deleted_after_the_outage(
    worker: Worker,
) -> None:
    worker.assign()
    worker.proxy.stop_listening()
    worker.services.background.work()
    assert worker.records == ["committed"]
    worker.recover()
    assert worker.has(IPS)


@pytest.mark.parametrize("fault", [faults.cut, faults.error_without_type, faults.lose_reply])
@pytest.mark.parametrize("action", ["assign", "release"])
def test_a_record_whose_deletion_was_not_confirmed_is_deleted(
    worker: Worker, fault: Fault, action: str
) -> None:
    worker.assign()
    if action == "release":
        worker.services.background.work()
        worker.release()
    worker.cause(fault, "kazoo_ips/_bulk_docs", times=1)
    worker.services.background.work()
    worker.recover()
    assert worker.has(IPS if action == "assign" else [])


@pytest.mark.parametrize("action", ["assign", "release"])
def test_a_record_that_another_worker_has_changed_is_finished_at_once(
    worker: Worker, action: str
) -> None:
    """Another worker has read a marked document, confirmed the record, and then died."""
    worker.assign()
    if action == "release":
        worker.services.background.work()
        worker.release()
    database = worker.couch.database("kazoo_ips")
    [record] = database.range("transaction-", "transaction-\uffff")
    database.put(record)
    worker.services.background.work()
    assert worker.has(IPS if action == "assign" else [])


def test_the_record_of_a_request_with_a_key_stays_until_its_reply_is_stored(
    worker: Worker,
) -> None:
    key = uuid4().hex
    worker.assign(Attempt(key, 1))
    worker.recover()
    assert worker.records == ["committed"]
    worker.services.idempotency._transactions.forget(key)
    worker.recover()
    assert worker.has(IPS)
