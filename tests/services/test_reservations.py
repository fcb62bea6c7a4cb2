"""Reservations: addresses set aside for an account until it gets them or their time is over."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import (
    Conflict,
    KazooIPsError,
    LimitReached,
    ReservationExpired,
    ReservationLimitReached,
    ReservationNotFound,
    ValidationFailed,
)
from kazoo_ips.model import AllocateIPs, AssignIP, AssignIPs, Attempt, DeleteIP, Scope, Status
from kazoo_ips.model.commands import AssignReserved, ExtendReservation, ReserveIPs
from kazoo_ips.model.limits import Limits
from kazoo_ips.model.reservations import MAX_OPEN, Reservation
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from kazoo_ips.services.assigning import reservations
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.clocks import ManualClock
from tests.conftest import Member
from tests.emptying import remove_place_settings
from tests.faults.conftest import proxied_settings, proxy, running_proxy
from tests.faults.proxy import FaultProxy, Forward, Reply
from tests.services.test_limits import fill

__all__ = ["proxied_settings", "proxy", "running_proxy"]

NAMED = ("192.0.2.1", "192.0.2.2")


@pytest.fixture
def timed(
    settings: Settings, clock: ManualClock, add: Any, couch: Couch, alice: Member
) -> Instance:
    """The services on a clock of their own; the account has no reservations."""
    records = couch.database("kazoo_ips")
    book = records.find(f"reservations-{alice.id}")
    if book:
        records.remove(book["_id"], book["_rev"])
    fill(add, 5)
    return composition.build(settings, clock=clock, pause=lambda seconds: None)


def reserve(
    services: Instance, member: Member, quantity: int = 2, seconds: int = 60
) -> Reservation:
    command = ReserveIPs(AllocateIPs(member.id, quantity), seconds)
    return services.reservations.reserve(command, uuid4().hex)


def take(services: Instance, member: Member, reservation: Reservation) -> list[str]:
    command = AssignReserved(member.id, reservation.id)
    return [ip.address for ip in services.reservations.assign(command, uuid4().hex)]


def test_reserved_addresses_are_for_their_account_alone(
    timed: Instance, alice: Member, bob: Member, couch: Couch
) -> None:
    named = ReserveIPs(AssignIPs(alice.id, NAMED), 60)
    made = timed.reservations.reserve(named, uuid4().hex)
    assert made.addresses == NAMED
    for member in (alice, bob):
        with pytest.raises(ValidationFailed):
            timed.ips.assign(AssignIP(member.id, NAMED[0]), uuid4().hex)
    allocated = timed.allocation.allocate(AllocateIPs(bob.id, 3), uuid4().hex)
    assert not {ip.address for ip in allocated} & {*NAMED}
    assert couch.database(account_database(alice.id)).get_all(list(NAMED)) == {}
    assert take(timed, alice, made) == [*NAMED]
    assert len(couch.database(account_database(alice.id)).get_all(list(NAMED))) == 2
    with pytest.raises(ReservationExpired):
        take(timed, alice, made)
    assert timed.reservations.all_open(alice.id) == []


def test_an_expired_reservation_assigns_nothing_although_its_addresses_are_available(
    timed: Instance, clock: ManualClock, alice: Member, bob: Member
) -> None:
    made = reserve(timed, alice)
    clock.now += 61
    with pytest.raises(ReservationExpired):
        take(timed, alice, made)
    assert timed.reservations.all_open(alice.id) == []
    ip = timed.ips.assign(AssignIP(bob.id, made.addresses[0]), uuid4().hex)
    assert ip.assigned_to == bob.id


def test_a_reservation_is_extended_up_to_a_day_from_its_start(
    timed: Instance, clock: ManualClock, alice: Member
) -> None:
    made = reserve(timed, alice)
    clock.now += 50
    command = ExtendReservation(alice.id, made.id, 100)
    assert timed.reservations.extend(command, uuid4().hex).until == made.until + 90
    clock.now += 90
    assert [r.until for r in timed.reservations.all_open(alice.id)] == [made.until + 90]
    with pytest.raises(ValidationFailed):
        timed.reservations.extend(ExtendReservation(alice.id, made.id, 86_400), uuid4().hex)
    assert len(take(timed, alice, made)) == 2


def test_a_clock_that_jumps_by_hours_gives_no_reserved_address_to_two_accounts(
    timed: Instance, clock: ManualClock, alice: Member, bob: Member
) -> None:
    first, second = reserve(timed, alice), reserve(timed, alice)
    start = clock.now
    clock.now = start - 5 * 3600
    with pytest.raises(ValidationFailed):
        timed.ips.assign(AssignIP(bob.id, first.addresses[0]), uuid4().hex)
    assert len(timed.reservations.all_open(alice.id)) == 2
    shorter = timed.reservations.extend(ExtendReservation(alice.id, second.id, 60), uuid4().hex)
    assert shorter.until < shorter.started
    assert take(timed, alice, second) == [*second.addresses]
    clock.now = start + 5 * 3600
    with pytest.raises(ReservationExpired):
        take(timed, alice, first)
    timed.ips.assign(AssignIP(bob.id, first.addresses[0]), uuid4().hex)
    clock.now = start  # the reservation has not ended by this clock, but has lost an address
    with pytest.raises(ReservationExpired):
        take(timed, alice, first)
    assert timed.reservations.all_open(alice.id) == []
    assert timed.ips.fetch(first.addresses[0]).assigned_to == bob.id


def test_a_reservation_that_ends_at_that_time_already_is_not_written(
    timed: Instance, alice: Member, couch: Couch
) -> None:
    made = reserve(timed, alice)
    timed.reservations.extend(ExtendReservation(alice.id, made.id, 100), uuid4().hex)

    def written() -> list[str]:
        names = ("dedicated_ips", "kazoo_ips")
        return [str(couch.database(each).info()["update_seq"]) for each in names]

    before = written()
    timed.reservations.extend(ExtendReservation(alice.id, made.id, 100), uuid4().hex)
    assert written() == before


def test_a_cancelled_reservation_gives_its_addresses_back(
    timed: Instance, alice: Member, bob: Member
) -> None:
    made = reserve(timed, alice)
    with pytest.raises(ReservationNotFound):
        timed.reservations.cancel(bob.id, made.id, uuid4().hex)
    assert timed.reservations.cancel(alice.id, made.id, uuid4().hex).addresses == made.addresses
    for call in (timed.reservations.fetch, lambda a, i: timed.reservations.cancel(a, i, "")):
        with pytest.raises(ReservationNotFound):
            call(alice.id, made.id)
    assert timed.ips.fetch(made.addresses[0]).status is Status.AVAILABLE


def test_a_reservation_of_several_is_all_or_none(
    timed: Instance, alice: Member, bob: Member
) -> None:
    timed.ips.assign(AssignIP(bob.id, NAMED[1]), uuid4().hex)
    with pytest.raises(ValidationFailed):
        timed.reservations.reserve(ReserveIPs(AssignIPs(alice.id, NAMED), 60), uuid4().hex)
    assert timed.ips.fetch(NAMED[0]).status is Status.AVAILABLE


def test_a_repeated_request_with_a_key_gets_the_same_reservation(
    timed: Instance, alice: Member
) -> None:
    command, request_id = ReserveIPs(AllocateIPs(alice.id, 2), 60), uuid4().hex
    key = f"{uuid4().hex}-1"
    first = timed.reservations.reserve(command, request_id, attempt=Attempt(key, 1))
    again = timed.reservations.reserve(command, request_id, attempt=Attempt(key, 2))
    assert (again.id, again.addresses, again.until) == (first.id, first.addresses, first.until)
    cancelled = timed.reservations.cancel(alice.id, first.id, "r1", attempt=Attempt("k", 1))
    again = timed.reservations.cancel(alice.id, first.id, "r1", attempt=Attempt("k", 2))
    assert again.addresses == cancelled.addresses


def test_a_later_attempt_gets_the_single_address_of_a_reservation(
    timed: Instance, alice: Member
) -> None:
    reservation, key = reserve(timed, alice, 1), uuid4().hex
    command, request_id = AssignReserved(alice.id, reservation.id), uuid4().hex
    taken = [
        timed.reservations.assign(command, request_id, attempt=Attempt(key, number))[0]
        for number in (1, 2)
    ]
    assert [ip.address for ip in taken] == [*reservation.addresses] * 2


def test_only_a_later_attempt_may_find_its_reservation_cancelled(
    timed: Instance, alice: Member
) -> None:
    """Clients choose request ids, and may use one twice."""
    reservation, request_id = reserve(timed, alice), uuid4().hex
    timed.reservations.cancel(alice.id, reservation.id, request_id)
    with pytest.raises(ReservationNotFound):
        timed.reservations.cancel(alice.id, reservation.id, request_id)
    later = Attempt(uuid4().hex, 2)
    again = timed.reservations.cancel(alice.id, reservation.id, request_id, attempt=later)
    assert again.id == reservation.id
    with pytest.raises(ReservationNotFound):
        timed.reservations.cancel(alice.id, reservation.id, uuid4().hex, attempt=later)


def test_an_account_has_a_maximum_of_open_reservations(
    timed: Instance, clock: ManualClock, alice: Member, couch: Couch
) -> None:
    made = reserve(timed, alice, 1)
    records = couch.database("kazoo_ips")
    book = records.find(f"reservations-{alice.id}")
    assert book
    entry = book["reservations"][made.id]
    many = {f"{n:032}": entry for n in range(MAX_OPEN)}
    records.put({**book, "reservations": many})
    reserve(timed, alice, 1)  # none of these holds its address, so they are not open
    assert len(timed.reservations.all_open(alice.id)) == 1
    held = [reserve(timed, alice, 1) for _ in range(2)]
    assert {r.id for r in timed.reservations.all_open(alice.id)} >= {r.id for r in held}


def test_an_account_with_too_many_open_reservations_gets_no_more(
    timed: Instance, alice: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MAX_OPEN", 2)
    held = [reserve(timed, alice, 1) for _ in range(2)]
    with pytest.raises(ReservationLimitReached):
        reserve(timed, alice, 1)
    timed.reservations.cancel(alice.id, held[0].id, uuid4().hex)
    reserve(timed, alice, 1)


def test_an_unknown_reservation_is_neither_extended_nor_assigned(
    timed: Instance, alice: Member
) -> None:
    unknown = uuid4().hex
    with pytest.raises(ReservationNotFound):
        timed.reservations.extend(ExtendReservation(alice.id, unknown, 90), uuid4().hex)
    with pytest.raises(ReservationExpired):
        timed.reservations.assign(AssignReserved(alice.id, unknown), uuid4().hex)


def test_a_reservation_that_has_lost_an_address_is_not_open(
    timed: Instance, alice: Member
) -> None:
    made = timed.reservations.reserve(ReserveIPs(AssignIPs(alice.id, NAMED), 60), uuid4().hex)
    timed.pool.delete(DeleteIP(NAMED[0], force=True), uuid4().hex)
    with pytest.raises(ReservationNotFound):
        timed.reservations.extend(ExtendReservation(alice.id, made.id, 90), uuid4().hex)
    with pytest.raises(ReservationExpired):
        take(timed, alice, made)
    assert timed.reservations.all_open(alice.id) == []


def test_the_last_permitted_reservation_can_be_extended(
    timed: Instance, alice: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MAX_OPEN", 1)
    made = reserve(timed, alice)
    command = ExtendReservation(alice.id, made.id, 90)
    assert timed.reservations.extend(command, uuid4().hex).until == made.until + 30


def test_two_reservations_at_once_are_both_recorded(
    timed: Instance,
    proxied_settings: Settings,
    proxy: FaultProxy,
    clock: ManualClock,
    alice: Member,
) -> None:
    through = composition.build(proxied_settings, clock=clock, pause=lambda seconds: None)
    others: list[Reservation] = []

    def reserves(forward: Forward) -> Reply:
        others.append(reserve(timed, alice))
        return forward()

    proxy.rule(reserves, "PUT", f"-kazoo_ips/reservations-{alice.id}")
    made = reserve(through, alice)
    listed = {each.id for each in timed.reservations.all_open(alice.id)}
    assert listed == {made.id, others[0].id}


def test_a_cancelled_reservation_is_listed_as_such(timed: Instance, alice: Member) -> None:
    """So its addresses are not read to find out whether it is open."""
    made, request_id = reserve(timed, alice), uuid4().hex
    timed.reservations.cancel(alice.id, made.id, request_id)
    book = timed.reservations._reservations.book(alice.id)
    assert book.reservations[made.id].cancelled_by == request_id


def test_an_extension_that_lost_a_race_is_a_conflict(
    timed: Instance,
    proxied_settings: Settings,
    proxy: FaultProxy,
    clock: ManualClock,
    alice: Member,
) -> None:
    through, made = composition.build(proxied_settings, clock=clock), reserve(timed, alice)

    def cancels(forward: Forward) -> Reply:
        timed.reservations.cancel(alice.id, made.id, uuid4().hex)
        return forward()

    proxy.rule(cancels, "PUT|POST", "-dedicated_ips/_bulk_docs")
    with pytest.raises(Conflict):
        through.reservations.extend(ExtendReservation(alice.id, made.id, 90), uuid4().hex)


def test_an_address_that_was_deleted_is_no_address_of_a_reservation(
    timed: Instance, alice: Member
) -> None:
    made = timed.reservations.reserve(ReserveIPs(AssignIPs(alice.id, NAMED), 60), uuid4().hex)
    timed.pool.delete(DeleteIP(NAMED[0], force=True), uuid4().hex)
    assert [ip.address for ip in timed.reservations.addresses(made)] == [NAMED[1]]


def test_a_reservation_is_open_once_its_transaction_is_committed(
    timed: Instance, alice: Member, couch: Couch
) -> None:
    made, log = reserve(timed, alice, 1), TransactionLog(Records(couch))
    [address] = made.addresses
    begun = log.begin(Action.RESERVE, alice.id, uuid4().hex, made.started, [address])
    pool = couch.database("dedicated_ips")
    pool.put({**pool.get(address), "pvt_transaction": begun.id})
    for _ in range(2):
        assert timed.reservations.all_open(alice.id) == []
    committed = log.commit(begun, [address])
    assert [each.id for each in timed.reservations.all_open(alice.id)] == [made.id]
    log.sweep([committed])
    assert [each.id for each in timed.reservations.all_open(alice.id)] == [made.id]


def test_a_reservation_at_a_drained_host_assigns_nothing(
    timed: Instance, alice: Member, couch: Couch
) -> None:
    made, pool = reserve(timed, alice), couch.database("dedicated_ips")
    reserved = pool.get_all(made.addresses)
    change = ChangePlace(Place(Scope.HOST, "proxy1.example.com"), enabled=False, reason="goes")
    timed.places.change(change, uuid4().hex)
    try:
        with pytest.raises(ReservationExpired):
            take(timed, alice, made)
        for address, document in reserved.items():  # as before the drain changes this address
            pool.put({**document, "_rev": pool.get(address)["_rev"]})
        with pytest.raises(ReservationExpired):
            take(timed, alice, made)
    finally:
        remove_place_settings(couch, timed)
    assert len(take(timed, alice, made)) == 2


def test_reserved_addresses_count_against_the_limit(
    timed: Instance, clock: ManualClock, alice: Member
) -> None:
    timed.limits.set(alice.id, Limits(max=3), uuid4().hex)
    try:
        made = reserve(timed, alice, 2)
        with pytest.raises(LimitReached):
            reserve(timed, alice, 2)
        with pytest.raises(LimitReached):
            timed.allocation.allocate(AllocateIPs(alice.id, 2), uuid4().hex)
        assert timed.limits.status(alice.id).used == 2
        timed.limits.set(alice.id, Limits(max=1), uuid4().hex)
        assert len(take(timed, alice, made)) == 2  # they count already
    finally:
        timed.limits.set(alice.id, Limits(), uuid4().hex)


def test_confirming_and_others_at_once_never_share_an_address(
    settings: Settings, timed: Instance, clock: ManualClock, alice: Member, bob: Member
) -> None:
    made = reserve(timed, alice, 3)
    instances = [composition.build(settings, clock=clock) for _ in range(3)]

    def outcome_of(call: Callable[[], object]) -> object:
        try:
            return call()
        except KazooIPsError as error:
            return error

    calls: list[Callable[[], object]] = [
        lambda: take(instances[0], alice, made),
        lambda: take(instances[1], alice, made),
        lambda: instances[2].reservations.cancel(alice.id, made.id, uuid4().hex),
        lambda: instances[2].allocation.allocate(AllocateIPs(bob.id, 3), uuid4().hex),
    ]
    with ThreadPoolExecutor(4) as clients:
        results = [
            future.result() for future in [clients.submit(outcome_of, call) for call in calls]
        ]
    confirmed = [r for r in results[:2] if isinstance(r, list)]
    assert len(confirmed) <= 1
    owners = {timed.ips.fetch(address).assigned_to for address in made.addresses}
    if confirmed:
        assert owners == {alice.id}
    else:
        assert alice.id not in owners
