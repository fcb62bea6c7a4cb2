"""Limits: what a ledger counts, when it is counted again, and what other programs assign."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import LimitReached
from kazoo_ips.model import (
    GREGORIAN_EPOCH,
    AllocateIPs,
    AssignIP,
    AssignIPs,
    Attempt,
    DedicatedIP,
    ReleaseIP,
    ReleaseIPs,
    TransferIPs,
)
from kazoo_ips.model.commands import AssignReserved, ReserveIPs
from kazoo_ips.model.limits import Ledger, Limits
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from kazoo_ips.services.assigning import account_holdings
from kazoo_ips.services.assigning.allocation import _Allocation
from kazoo_ips.services.assigning.limits import SETTLE
from kazoo_ips.services.assigning.recovery import LEASE
from tests.clocks import ManualClock
from tests.conftest import Member
from tests.faults.conftest import proxied_settings, proxy, running_proxy
from tests.faults.proxy import FaultProxy, Forward, Reply

__all__ = ["proxied_settings", "proxy", "running_proxy"]


@pytest.fixture
def limited(settings: Settings, clock: ManualClock, add: Any) -> Instance:
    """The services on a clock of their own, with an empty pool."""
    return composition.build(settings, clock=clock, pause=lambda seconds: None)


def settled(services: Instance, clock: ManualClock, member: Member, limits: Limits) -> None:
    """Set the limits of an account, and let the time pass until every process knows them."""
    services.limits.set(member.id, limits, uuid4().hex)
    clock.now += SETTLE + 1


Set = Callable[..., None]


@pytest.fixture
def set_limits(limited: Instance, clock: ManualClock) -> Iterator[Set]:
    """A function that sets the limits of an account, and waits until every process knows them."""
    accounts: list[str] = []

    def set_and_wait(member: Member, **limits: Any) -> None:
        accounts.append(member.id)
        settled(limited, clock, member, Limits(**limits))

    yield set_and_wait
    for account_id in accounts:
        limited.limits.set(account_id, Limits(), uuid4().hex)


def allocate(services: Instance, member: Member, quantity: int = 1, **more: Any) -> list[str]:
    command = AllocateIPs(member.id, quantity, **more)
    return [ip.address for ip in services.allocation.allocate(command, uuid4().hex)]


def refused(call: Callable[[], object]) -> tuple[str, int, int, int]:
    with pytest.raises(LimitReached) as error:
        call()
    e = error.value
    return e.which, e.limit, e.used, e.requested


def fill(
    add: Callable[..., DedicatedIP], count: int, zone: str = "us-east", start: int = 1
) -> None:
    for number in range(start, start + count):
        add(f"192.0.2.{number}", zone)


def test_every_process_can_know_a_limit_before_it_is_written(
    limited: Instance,
    proxied_settings: Settings,
    proxy: FaultProxy,
    clock: ManualClock,
    alice: Member,
) -> None:
    """Otherwise a process that dies in between leaves a limit that no other process applies."""
    through, listed = composition.build(proxied_settings, clock=clock), []

    def read_ledger(forward: Forward) -> Reply:
        limited.limits.refresh()
        listed.append(limited.limits.is_limited(alice.id))
        return forward()

    proxy.rule(read_ledger, "PUT", f"-kazoo_ips/limit-{alice.id}", times=None)
    through.limits.set(alice.id, Limits(max=1), uuid4().hex)
    through.limits.set(alice.id, Limits(), uuid4().hex)
    assert listed == [True, True]


def test_every_way_to_get_an_address_obeys_the_limit(
    limited: Instance, add: Any, alice: Member, bob: Member, set_limits: Set
) -> None:
    fill(add, 6)
    set_limits(alice, max=2)
    limited.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    limited.ips.assign_all(AssignIPs(alice.id, ("192.0.2.2",)), uuid4().hex)
    one = AssignIP(alice.id, "192.0.2.6")
    several = AssignIPs(alice.id, ("192.0.2.5", "192.0.2.6"))
    assert refused(lambda: limited.ips.assign(one, uuid4().hex)) == ("max", 2, 2, 1)
    assert refused(lambda: limited.ips.assign(one, "", dry_run=True)) == ("max", 2, 2, 1)
    assert refused(lambda: limited.ips.assign_all(several, uuid4().hex)) == ("max", 2, 2, 2)
    assert refused(lambda: allocate(limited, alice)) == ("max", 2, 2, 1)
    assert refused(lambda: allocate(limited, alice, 3)) == ("max", 2, 2, 3)
    limited.ips.assign(AssignIP(bob.id, "192.0.2.6"), uuid4().hex)
    moved = TransferIPs(("192.0.2.6",), bob.id, alice.id)
    assert refused(lambda: limited.transfers.transfer(moved, uuid4().hex)) == ("max", 2, 2, 1)
    assert limited.limits.status(alice.id).used == 2


def test_a_dry_run_of_every_way_to_get_addresses_obeys_the_limit(
    limited: Instance, add: Any, alice: Member, bob: Member, set_limits: Set
) -> None:
    fill(add, 4)
    limited.ips.assign_all(AssignIPs(bob.id, ("192.0.2.3", "192.0.2.4")), uuid4().hex)
    set_limits(alice, max=1)
    several = AssignIPs(alice.id, ("192.0.2.1", "192.0.2.2"))
    moved = TransferIPs(("192.0.2.3", "192.0.2.4"), bob.id, alice.id)
    for attempted in (
        lambda: limited.ips.assign_all(several, "", dry_run=True),
        lambda: limited.transfers.transfer(moved, "", dry_run=True),
        lambda: limited.allocation.allocate(AllocateIPs(alice.id, 2), "", dry_run=True),
        lambda: limited.reservations.reserve(ReserveIPs(several, 60), "", dry_run=True),
    ):
        assert refused(attempted) == ("max", 1, 0, 2)


def test_a_process_knows_at_once_the_limits_that_it_sets_or_removes(
    limited: Instance, settings: Settings, clock: ManualClock, alice: Member
) -> None:
    other = composition.build(settings, clock=clock)
    for limits in (Limits(max=1), Limits()):
        limited.limits.set(alice.id, limits, uuid4().hex)
        other.limits.refresh()
        known = [each.limits.is_limited(alice.id) for each in (limited, other)]
        assert known == [limits.has_any] * 2


def test_limits_that_are_set_again_are_listed_if_they_were_not(
    limited: Instance, alice: Member, set_limits: Set
) -> None:
    """The process that has set them died before it listed the account."""
    set_limits(alice, max=1)
    limited.limits._limits.list_account(alice.id, Limits())
    limited.limits.set(alice.id, Limits(max=1), uuid4().hex)
    limited.limits.refresh()
    assert limited.limits.is_limited(alice.id)


def test_a_released_address_makes_room_at_once(
    limited: Instance, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 3)
    set_limits(alice, max=1)
    for _ in range(3):
        [address] = allocate(limited, alice)
        refused(lambda: allocate(limited, alice))
        limited.ips.release(ReleaseIP(alice.id, address), uuid4().hex)


@pytest.mark.parametrize("which", ["max", "descendants_max"])
def test_a_transaction_has_its_places_until_its_process_is_dead(
    limited: Instance, clock: ManualClock, couch: Couch, add: Any, alice: Member, child: Member,
    set_limits: Set, which: str,
) -> None:  # fmt: skip
    """Its documents are not written yet, so only the ledger counts its addresses."""
    fill(add, 2)
    set_limits(alice, **{which: 1})
    owner_id = alice.id if which == "max" else child.id
    free, log = limited.ips.fetch("192.0.2.1"), TransactionLog(Records(couch))
    at = int(clock.now) + GREGORIAN_EPOCH
    begun = log.begin(Action.ASSIGN, owner_id, uuid4().hex, at, [free.address])
    limited.limits.claim(begun.id, owner_id, [free.assign(owner_id, at=at, request_id="r")])
    other = AssignIP(owner_id, "192.0.2.2")
    for _ in range(2):
        assert refused(lambda: limited.ips.assign(other, uuid4().hex)) == (which, 1, 1, 1)
    clock.now += LEASE + 1
    limited.ips.assign(other, uuid4().hex)
    assert log.find(begun.id) is None


def test_a_request_waits_for_a_transaction_that_has_the_last_place(
    settings: Settings, clock: ManualClock, couch: Couch, add: Any, alice: Member, set_limits: Set
) -> None:
    """If no other transaction is pending, the request is refused at once."""
    fill(add, 2)
    set_limits(alice, max=1)
    log, at, pauses = TransactionLog(Records(couch)), int(clock.now) + GREGORIAN_EPOCH, []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        aborted = log.abort(begun)
        assert aborted
        log.finish([aborted])

    waiting = composition.build(settings, clock=clock, pause=pause)
    free, other = waiting.ips.fetch("192.0.2.1"), AssignIP(alice.id, "192.0.2.2")
    begun = log.begin(Action.ASSIGN, alice.id, uuid4().hex, at, [free.address])
    waiting.limits.claim(begun.id, alice.id, [free.assign(alice.id, at=at, request_id="r")])
    waiting.ips.assign(other, uuid4().hex)
    refused(lambda: waiting.ips.assign(AssignIP(alice.id, free.address), uuid4().hex))
    assert len(pauses) == 1


def test_an_allocation_goes_on_in_other_zones_when_a_limit_is_reached_on_the_way(
    settings: Settings,
    proxied_settings: Settings,
    proxy: FaultProxy,
    limited: Instance,
    clock: ManualClock,
    add: Any,
    alice: Member,
    bob: Member,
    set_limits: Set,
) -> None:
    """Another client takes one of its addresses. The limits permit few of the remaining ones."""
    fill(add, 1, "full")
    set_limits(alice, zones={"full": 1})
    allocate(limited, alice)
    fill(add, 2, "other", start=10)
    through = composition.build(proxied_settings, clock=clock, pause=lambda seconds: None)

    def takes(forward: Forward) -> Reply:
        limited.ips.assign(AssignIP(bob.id, "192.0.2.10"), uuid4().hex)
        fill(add, 20, "full", start=50)
        fill(add, 1, "other", start=12)
        return forward()

    proxy.rule(takes, "PUT|POST", "-dedicated_ips/_bulk_docs")
    assert set(allocate(through, alice, 2)) == {"192.0.2.11", "192.0.2.12"}


@pytest.mark.parametrize("chosen", ["zone", "distinct_hosts", "distinct_zones"])
def test_an_allocation_with_a_choice_of_its_own_is_refused_by_the_limit_of_a_zone(
    limited: Instance, add: Any, alice: Member, set_limits: Set, chosen: str
) -> None:
    """Other addresses would not be what the client asked for."""
    for number, zone in enumerate(("full", "full", "other"), 1):
        add(f"192.0.2.{number}", zone, f"host{number}")
    limit = 0 if chosen == "distinct_zones" else 1
    set_limits(alice, zones={"full": limit})
    options = {"zone": "full"} if chosen == "zone" else {chosen: True}
    quantity = 3 if chosen == "distinct_hosts" else 2
    assert refused(lambda: allocate(limited, alice, quantity, **options))[:2] == ("zones", limit)
    assert limited.limits.status(alice.id).used == 0


def test_an_allocation_past_the_limit_of_the_account_is_refused_at_once(
    settings: Settings, clock: ManualClock, add: Any, alice: Member, set_limits: Set
) -> None:
    """No other zone would help."""
    fill(add, 4)
    set_limits(alice, max=3)
    sent: list[str] = []
    services = composition.build(settings, clock=clock, trace=lambda _, url: sent.append(url))
    allocate(services, alice)
    sent.clear()
    assert refused(lambda: allocate(services, alice, 3)) == ("max", 3, 1, 3)
    assert len([url for url in sent if "/transaction-" in url]) <= 2


def test_an_allocation_that_keeps_to_no_place_left_in_a_zone_is_refused(
    limited: Instance, alice: Member
) -> None:
    """The limit of the zone has become lower than what the allocation has taken."""
    command = AllocateIPs(alice.id, 2)
    allocation = _Allocation(command, DedicatedIP.assign, None, False, False, rooms={"full": 0})
    reached = LimitReached("zones", 1, 2, 1, account_id=alice.id, zone="full")
    with pytest.raises(LimitReached):
        limited.allocation._limit_zone(allocation, reached)


def test_an_allocation_up_to_the_limit_replaces_an_address_that_is_lost(
    settings: Settings,
    proxied_settings: Settings,
    proxy: FaultProxy,
    limited: Instance,
    clock: ManualClock,
    add: Any,
    alice: Member,
    bob: Member,
    set_limits: Set,
) -> None:
    """The lost address does not count."""
    fill(add, 3)
    set_limits(alice, max=2)
    through = composition.build(proxied_settings, clock=clock, pause=lambda seconds: None)

    def takes(forward: Forward) -> Reply:
        wanted = json.loads(forward.request.body)["docs"]
        limited.ips.assign(AssignIP(bob.id, wanted[0]["_id"]), uuid4().hex)
        return forward()

    proxy.rule(takes, "POST", "-dedicated_ips/_bulk_docs", times=1)
    assert len(allocate(through, alice, 2)) == 2


def test_a_ledger_forgets_transactions_that_have_ended(
    limited: Instance, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 1)
    set_limits(alice, max=100)
    limited.limits.check(alice.id, [])
    ledger = limited.limits._limits.find(alice.id)
    assert ledger is not None
    ended = {f"assign-{number}": (f"192.0.2.{number}",) for number in range(100, 140)}
    limited.limits._limits.put(replace(ledger, counted=int(1e12), claims=ended))
    [address] = allocate(limited, alice)
    ledger = limited.limits._limits.find(alice.id)
    assert ledger is not None
    assert list(ledger.claims.values()) == [(address,)]


def test_no_ledger_is_written_for_an_account_that_has_no_limits_yet(
    limited: Instance, add: Any, alice: Member
) -> None:
    """The index lists the account before its ledger is written, and after its limits are gone."""
    added = add("192.0.2.1")
    limits = limited.limits
    limits._limits.list_account(alice.id, Limits(max=1))
    limits.refresh()
    assert limits.is_limited(alice.id)
    for ledger in limits.check(alice.id, [added]):
        assert not ledger.limits.has_any
    limits.claim("assign-1", alice.id, [added])
    assert limits._limits.find(alice.id) is None
    limits._limits.list_account(alice.id, Limits())
    limits.refresh()


def test_an_address_that_left_the_accounts_below_does_not_count(
    limited: Instance, add: Any, alice: Member, child: Member, bob: Member, set_limits: Set
) -> None:
    fill(add, 2)
    set_limits(alice, descendants_max=1)
    limited.ips.assign(AssignIP(child.id, "192.0.2.1"), uuid4().hex)
    limited.ips.release(ReleaseIP(child.id, "192.0.2.1"), uuid4().hex)
    limited.ips.assign(AssignIP(bob.id, "192.0.2.1"), uuid4().hex)
    limited.ips.assign(AssignIP(child.id, "192.0.2.2"), uuid4().hex)
    assert limited.limits.status(alice.id).descendants == 1


def test_the_addresses_of_an_account_that_is_new_below_count(
    limited: Instance, alice: Member, bob: Member, child: Member
) -> None:
    """The list of the accounts below may lack it."""
    shared, own = (Ledger(alice.id, limits) for limits in (Limits(descendants_max=1), Limits()))
    known: frozenset[str] = frozenset()
    assert limited.limits._is_below(child.id, shared, known)
    assert not limited.limits._is_below("d" * 32, shared, known)
    assert not limited.limits._is_below(bob.id, shared, known)
    assert not limited.limits._is_below(child.id, own, known)


def test_an_account_past_its_limit_may_release_several_addresses(
    limited: Instance, add: Any, pool: Database, alice: Member, set_limits: Set
) -> None:
    """The ledger lacks them: another program has assigned them."""
    fill(add, 3)
    set_limits(alice, max=1)
    allocate(limited, alice)
    free = [d for d in pool.range("", "\uffff") if d.get("pvt_status") == "available"]
    for document in free:
        pool.put({**document, "pvt_status": "assigned", "pvt_assigned_to": alice.id})
    named = ReleaseIPs(alice.id, tuple(document["_id"] for document in free))
    assert len(limited.ips.release_all(named, uuid4().hex)) == 2


def test_the_limits_of_each_request_with_a_key_are_set(limited: Instance, alice: Member) -> None:
    for maximum in (3, 4, None):
        limits = Limits(max=maximum)
        attempt = Attempt(uuid4().hex, 1)
        assert limited.limits.set(alice.id, limits, uuid4().hex, attempt=attempt).limits == limits
        assert limited.limits.status(alice.id).limits == limits


def test_limits_are_set_in_few_requests(
    settings: Settings, clock: ManualClock, add: Any, alice: Member, set_limits: Set
) -> None:
    sent: list[str] = []
    services = composition.build(settings, clock=clock, trace=lambda _, url: sent.append(url))
    set_limits(alice, max=4)
    sent.clear()
    services.limits.set(alice.id, Limits(max=5), uuid4().hex)
    assert len([url for url in sent if f"limit-{alice.id}" in url]) <= 6


def test_limits_that_are_set_again_are_the_same(
    limited: Instance, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 1)
    set_limits(alice, max=5)
    allocate(limited, alice)
    for dry_run in (True, False):
        again = limited.limits.set(alice.id, Limits(max=5), uuid4().hex, dry_run=dry_run)
        assert (again.limits, again.used) == (Limits(max=5), 1)


def test_a_dry_run_of_limits_counts_what_a_transaction_may_assign(
    limited: Instance,
    settings: Settings,
    clock: ManualClock,
    add: Any,
    alice: Member,
    set_limits: Set,
) -> None:
    added = add("192.0.2.1")
    set_limits(alice, max=5)
    after = added.assign(alice.id, at=int(clock.now) + GREGORIAN_EPOCH, request_id=uuid4().hex)
    transactions = limited.allocation._transactions
    begun = transactions.begin(Action.ASSIGN, alice.id, [after], None)
    assert limited.limits.set(alice.id, Limits(max=4), uuid4().hex, dry_run=True).used == 1
    transactions.abandon(begun)


def test_addresses_from_before_the_limit_count(
    limited: Instance, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 4)
    allocate(limited, alice, 3)
    set_limits(alice, max=2)
    assert limited.limits.status(alice.id).exceeded_by == 1
    assert refused(lambda: allocate(limited, alice)) == ("max", 2, 3, 1)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_jumps_by_hours_lets_no_account_exceed_its_limit(
    settings: Settings,
    limited: Instance,
    clock: ManualClock,
    add: Any,
    alice: Member,
    set_limits: Set,
    hours: int,
) -> None:
    fill(add, 6)
    set_limits(alice, max=3)
    other = composition.build(settings, clock=clock, pause=lambda seconds: None)
    allocate(other, alice)
    clock.now += hours * 3600
    allocate(limited, alice)
    allocate(other, alice)
    for services in (limited, other):
        assert refused(lambda s=services: allocate(s, alice)) == ("max", 3, 3, 1)  # type: ignore[misc]
    assert limited.limits.status(alice.id).used == 3


def test_addresses_that_were_reserved_before_the_limit_count(
    limited: Instance, add: Any, alice: Member, child: Member, set_limits: Set
) -> None:
    fill(add, 6)
    reserved = [
        limited.reservations.reserve(ReserveIPs(AllocateIPs(member.id, 2), 86_000), uuid4().hex)
        for member in (alice, child)
    ]
    set_limits(alice, max=2, descendants_max=5)
    status = limited.limits.status(alice.id)
    assert (status.used, status.descendants) == (2, 4)
    assert refused(lambda: allocate(limited, alice)) == ("max", 2, 2, 1)
    allocate(limited, child, 1)
    assert refused(lambda: allocate(limited, child)) == ("descendants_max", 5, 5, 1)
    for member, made in zip((alice, child), reserved, strict=True):
        command = AssignReserved(member.id, made.id)
        assert len(limited.reservations.assign(command, uuid4().hex)) == 2


@pytest.mark.parametrize("rows", [0, 1000])
def test_many_accounts_below_share_a_limit(
    monkeypatch: pytest.MonkeyPatch,
    limited: Instance,
    add: Any,
    alice: Member,
    child: Member,
    bob: Member,
    set_limits: Set,
    rows: int,
) -> None:
    # Either the list of each account is read, or that of all.
    monkeypatch.setattr(account_holdings, "_ROWS_OF_A_REQUEST", rows)
    fill(add, 6)
    allocate(limited, child, 2)
    allocate(limited, alice)
    allocate(limited, bob)
    set_limits(alice, descendants_max=4)
    allocate(limited, child)
    assert refused(lambda: allocate(limited, child)) == ("descendants_max", 4, 4, 1)
    status = limited.limits.status(alice.id)
    assert (status.used, status.descendants) == (1, 4)


def test_an_address_that_a_process_assigned_before_it_knew_the_limit_counts(
    settings: Settings,
    limited: Instance,
    clock: ManualClock,
    add: Any,
    alice: Member,
    set_limits: Set,
) -> None:
    fill(add, 4)
    other = composition.build(settings, clock=clock)
    other.limits.refresh()
    limited.limits.set(alice.id, Limits(max=2), uuid4().hex)
    allocate(other, alice, 2)
    assert refused(lambda: allocate(limited, alice)) == ("max", 2, 2, 1)
    set_limits(alice, max=2)
    assert refused(lambda: allocate(other, alice)) == ("max", 2, 2, 1)


def test_a_zone_has_a_limit_of_its_own(
    limited: Instance, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 3, "us-east")
    fill(add, 3, "eu-west", start=10)
    set_limits(alice, max=4, zones={"us-east": 1})
    allocate(limited, alice, zone="us-east")
    with pytest.raises(LimitReached) as error:
        allocate(limited, alice, zone="us-east")
    assert (error.value.which, error.value.zone) == ("zones", "us-east")
    allocate(limited, alice, 3, zone="eu-west")
    assert limited.limits.status(alice.id).zones == {"eu-west": 3, "us-east": 1}


def test_an_allocation_without_a_zone_takes_what_the_limits_of_zones_permit(
    limited: Instance, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 3, "us-east")
    fill(add, 3, "eu-west", start=10)
    set_limits(alice, zones={"us-east": 1, "eu-west": 3})
    allocate(limited, alice, 4)
    assert limited.limits.status(alice.id).zones == {"eu-west": 3, "us-east": 1}
    with pytest.raises(LimitReached):
        allocate(limited, alice)


def test_accounts_below_share_a_limit(
    limited: Instance, add: Any, alice: Member, child: Member, bob: Member, set_limits: Set
) -> None:
    fill(add, 6)
    allocate(limited, child)
    set_limits(alice, descendants_max=3)
    allocate(limited, child)
    allocate(limited, alice)
    assert refused(lambda: allocate(limited, child)) == ("descendants_max", 3, 3, 1)
    assert refused(lambda: allocate(limited, alice)) == ("descendants_max", 3, 3, 1)
    allocate(limited, bob, 2)
    status = limited.limits.status(alice.id)
    assert (status.used, status.descendants) == (1, 3)


def test_what_kazoo_assigns_past_the_limit_is_counted(
    limited: Instance, add: Any, pool: Database, alice: Member, set_limits: Set
) -> None:
    fill(add, 4)
    set_limits(alice, max=1)
    allocate(limited, alice, 1)
    taken = limited.limits.status(alice.id)
    free = next(d for d in pool.range("", "\uffff") if d.get("pvt_status") == "available")
    pool.put({**free, "pvt_status": "assigned", "pvt_assigned_to": alice.id})
    limited.limits.count_others([limited.ips.fetch(free["_id"])])
    assert (taken.exceeded_by, limited.limits.status(alice.id).exceeded_by) == (0, 1)
    assert refused(lambda: allocate(limited, alice)) == ("max", 1, 2, 1)
    [finding] = [f for f in limited.doctor.examine() if f.problem == "limit_exceeded"]
    assert finding.account_id == alice.id


def test_a_released_address_does_not_take_the_account_further_past_its_limit(
    limited: Instance, pool: Database, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 3)
    set_limits(alice, max=1)
    limited.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    for address in ("192.0.2.2", "192.0.2.3"):
        assign_as_kazoo(limited, pool, alice, address)
    limited.ips.release(ReleaseIP(alice.id, "192.0.2.1"), uuid4().hex)
    one = AssignIP(alice.id, "192.0.2.1")
    assert refused(lambda: limited.ips.assign(one, uuid4().hex)) == ("max", 1, 2, 1)
    assert refused(lambda: allocate(limited, alice)) == ("max", 1, 2, 1)


def test_a_released_address_is_not_past_a_limit(
    settings: Settings,
    clock: ManualClock,
    pool: Database,
    add: Any,
    alice: Member,
    set_limits: Set,
) -> None:
    metrics = Metrics()
    counting = composition.build(settings, clock=clock, metrics=metrics)
    fill(add, 2)
    set_limits(alice, max=1)
    counting.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    counting.ips.release(ReleaseIP(alice.id, "192.0.2.1"), uuid4().hex)
    assign_as_kazoo(counting, pool, alice, "192.0.2.2")
    assert metrics._own.get_sample_value("kazoo_ips_limits_exceeded_total") == 0
    assign_as_kazoo(counting, pool, alice, "192.0.2.1")
    assert metrics._own.get_sample_value("kazoo_ips_limits_exceeded_total") == 1


def test_what_kazoo_assigns_to_an_account_below_is_counted_once(
    settings: Settings, clock: ManualClock, pool: Database, add: Any, alice: Member, child: Member,
    set_limits: Set,
) -> None:  # fmt: skip
    metrics = Metrics()
    counting = composition.build(settings, clock=clock, metrics=metrics)
    fill(add, 2)
    set_limits(alice, descendants_max=1)
    counting.ips.assign(AssignIP(child.id, "192.0.2.1"), uuid4().hex)
    for _ in range(2):
        assign_as_kazoo(counting, pool, child, "192.0.2.2")
    assert metrics._own.get_sample_value("kazoo_ips_limits_exceeded_total") == 1


def test_an_address_from_before_the_limit_counts_although_kazoo_exceeds_it_first(
    settings: Settings, limited: Instance, clock: ManualClock, pool: Database, add: Any,
    alice: Member, set_limits: Set,
) -> None:  # fmt: skip
    """The ledger is not complete until it was counted after every process knows the limit."""
    fill(add, 4)
    unaware = composition.build(settings, clock=clock)
    unaware.limits.refresh()
    limited.limits.set(alice.id, Limits(max=1), uuid4().hex)
    unaware.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    clock.now += SETTLE + 1
    for address in ("192.0.2.2", "192.0.2.3"):
        assign_as_kazoo(limited, pool, alice, address)
    for address in ("192.0.2.2", "192.0.2.3"):
        limited.ips.release(ReleaseIP(alice.id, address), uuid4().hex)
    one = AssignIP(alice.id, "192.0.2.4")
    assert refused(lambda: limited.ips.assign(one, uuid4().hex)) == ("max", 1, 1, 1)
    set_limits(alice)


def test_what_kazoo_assigns_to_an_unknown_account_counts_for_nobody(
    limited: Instance, pool: Database, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 1)
    set_limits(alice, descendants_max=1)
    fields = {"pvt_status": "assigned", "pvt_assigned_to": "f" * 32}
    pool.put(pool.get("192.0.2.1") | fields)
    limited.limits.count_others([limited.ips.fetch("192.0.2.1")])
    assert limited.limits.status(alice.id).descendants == 0


def test_the_doctor_does_not_count_for_an_account_whose_limits_were_removed(
    limited: Instance, pool: Database, add: Any, alice: Member, set_limits: Set
) -> None:
    fill(add, 1)
    set_limits(alice, max=1)
    set_limits(alice)
    assign_as_kazoo(limited, pool, alice, "192.0.2.1")
    found = [each.account_id for each in limited.limits.examine(repair=False)]
    assert alice.id not in found


def assign_as_kazoo(services: Instance, pool: Database, member: Member, address: str) -> None:
    """Assign an address as a Kazoo node does; the follower notices it."""
    pool.put(pool.get(address) | {"pvt_status": "assigned", "pvt_assigned_to": member.id})
    services.limits.count_others([services.ips.fetch(address)])


def test_the_doctor_adds_what_a_ledger_lacks(
    limited: Instance, add: Any, pool: Database, alice: Member, set_limits: Set
) -> None:
    fill(add, 2)
    set_limits(alice, max=2)
    limited.limits.examine(repair=True)
    allocate(limited, alice, 1)
    free = next(d for d in pool.range("", "\uffff") if d.get("pvt_status") == "available")
    pool.put({**free, "pvt_status": "assigned", "pvt_assigned_to": alice.id})
    [found] = limited.limits.examine(repair=True)
    assert (found.missing, found.repaired) == ([free["_id"]], True)
    assert list(limited.limits.examine(repair=False)) == []


def test_the_doctor_changes_a_ledger_only_to_add_what_it_lacks(
    limited: Instance, add: Any, pool: Database, alice: Member, set_limits: Set
) -> None:
    fill(add, 2)
    set_limits(alice, max=1)
    allocate(limited, alice, 1)
    free = next(d for d in pool.range("", "\uffff") if d.get("pvt_status") == "available")
    pool.put({**free, "pvt_status": "assigned", "pvt_assigned_to": alice.id})
    for repair, missing, repaired in (
        (False, [free["_id"]], False),
        (False, [free["_id"]], False),
        (True, [free["_id"]], True),
        (True, [], False),
    ):
        [found] = [m for m in limited.limits.examine(repair=repair) if m.account_id == alice.id]
        assert (found.missing, found.exceeded_by, found.repaired) == (missing, 1, repaired)


def test_the_doctor_does_not_say_that_it_has_repaired_a_ledger_that_others_changed(
    limited: Instance,
    proxied_settings: Settings,
    proxy: FaultProxy,
    clock: ManualClock,
    add: Any,
    pool: Database,
    alice: Member,
    set_limits: Set,
) -> None:
    fill(add, 1)
    set_limits(alice, max=1)
    pool.put(pool.get("192.0.2.1") | {"pvt_status": "assigned", "pvt_assigned_to": alice.id})

    def changes(forward: Forward) -> Reply:
        limited.limits.set(alice.id, Limits(max=2), uuid4().hex)
        return forward()

    proxy.rule(changes, "PUT", f"-kazoo_ips/limit-{alice.id}")
    through = composition.build(proxied_settings, clock=clock)
    [found] = [m for m in through.limits.examine(repair=True) if m.account_id == alice.id]
    assert (found.missing, found.repaired) == (["192.0.2.1"], False)


def test_many_requests_at_once_get_exactly_the_limit(
    settings: Settings,
    limited: Instance,
    clock: ManualClock,
    add: Any,
    alice: Member,
    set_limits: Set,
) -> None:
    fill(add, 24)
    set_limits(alice, max=7)
    allocate(limited, alice)  # the ledger is counted once more, after every process knows it
    instances = [composition.build(settings, clock=clock) for _ in range(3)]

    def allocate_one(number: int) -> bool:
        try:
            allocate(instances[number % 3], alice)
        except LimitReached:
            return False
        return True

    with ThreadPoolExecutor(24) as clients:
        got = [future.result() for future in [clients.submit(allocate_one, n) for n in range(24)]]
    assert sum(got) == 6
    assert limited.limits.status(alice.id).used == 7
