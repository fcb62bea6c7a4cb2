"""The addresses that are proposed to an allocation, and how many it could take."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.model import GREGORIAN_EPOCH, AllocateIPs, AssignIP, DedicatedIP, ReleaseIP, Scope
from kazoo_ips.services.assigning.supply import _ZONES_TTL, SupplyService
from kazoo_ips.services.states.draining import Place
from kazoo_ips.services.states.place_changes import ChangePlace
from tests.clocks import ManualClock
from tests.conftest import Member
from tests.timing import await_replicas

REST = 1000

Add = Callable[..., DedicatedIP]


@pytest.fixture
def sent() -> list[str]:
    """The URLs of the requests to the database."""
    return []


@pytest.fixture
def worker(settings: Settings, clock: ManualClock, sent: list[str], pool: Database) -> Instance:
    """The services on a clock of their own, with an empty pool."""
    return composition.build(settings, clock=clock, trace=lambda _, url: sent.append(url))


@pytest.fixture
def supply(worker: Instance) -> SupplyService:
    return worker.allocation._supply


@pytest.fixture
def place(add: Add) -> Callable[..., None]:
    """A function that adds addresses, each given as its last number, its zone and its host."""

    def do(*places: tuple[int, str, str]) -> None:
        for number, zone, host in places:
            add(f"192.0.2.{number}", zone, host)

    return do


@pytest.fixture
def rest(worker: Instance, place: Callable[..., None], bob: Member) -> Callable[..., None]:
    """A function that adds addresses which rest after an account had them."""

    def do(*places: tuple[int, str, str], oldest: bool = False) -> None:
        place(*places)
        for zone in {zone for _, zone, _ in places}:
            command = ChangePlace(Place(Scope.ZONE, zone), aging_seconds=REST, takes_oldest=oldest)
            worker.places.set(command)
        for number, _, _ in places:
            worker.ips.assign(AssignIP(bob.id, f"192.0.2.{number}"), uuid4().hex)
            worker.ips.release(ReleaseIP(bob.id, f"192.0.2.{number}"), uuid4().hex)

    return do


def allocation(quantity: int, **more: Any) -> AllocateIPs:
    return AllocateIPs("a" * 32, quantity, **more)


def proposed(
    supply: SupplyService, command: AllocateIPs, *tried: int, taken: tuple[DedicatedIP, ...] = ()
) -> set[int]:
    """The last numbers of the proposed addresses."""
    found = supply.propose(command, taken, {f"192.0.2.{number}" for number in tried})
    assert len(found) == len(set(found))
    return {int(address.rpartition(".")[2]) for address in found}


def test_addresses_that_have_rested_come_after_the_available_ones(
    supply: SupplyService, place: Any, rest: Any, clock: ManualClock
) -> None:
    rest((1, "z1", "a"))
    place((2, "z1", "a"))
    clock.now += REST
    assert proposed(supply, allocation(1)) == {2}
    assert proposed(supply, allocation(2)) == {1, 2}
    assert supply.count(allocation(5)) == 2


@pytest.mark.parametrize(("zone", "found"), [(None, {1}), ("z1", {1}), ("z2", set())])
def test_addresses_rest_less_only_in_zones_that_permit_it(
    supply: SupplyService, rest: Any, zone: str | None, found: set[int]
) -> None:
    rest((1, "z1", "a"), oldest=True)
    rest((2, "z2", "a"))
    assert proposed(supply, allocation(2, zone=zone)) == found
    assert supply.count(allocation(2, zone=zone)) == len(found)


def test_the_oldest_of_another_zone_is_not_proposed(supply: SupplyService, rest: Any) -> None:
    rest((1, "z1", "a"), (2, "z2", "a"), oldest=True)
    assert proposed(supply, allocation(2, zone="z2")) == {2}


@pytest.mark.parametrize("zones", [("z1", "z2"), ("z2", "z1")])
def test_of_several_zones_the_address_that_rests_least_is_proposed_first(
    supply: SupplyService, rest: Any, clock: ManualClock, zones: tuple[str, str]
) -> None:
    for number, zone in enumerate(zones, 1):
        rest((number, zone, "a"), oldest=True)
        clock.now += 10
    assert proposed(supply, allocation(1)) == {1}


def test_only_addresses_that_still_rest_are_counted_as_resting(
    supply: SupplyService, rest: Any, clock: ManualClock
) -> None:
    rest((1, "z1", "a"))
    clock.now += REST - 10
    rest((2, "z2", "a"))
    clock.now += 20
    count, until = supply.resting(allocation(1))
    assert (count, until) == (1, int(clock.now) + GREGORIAN_EPOCH + REST - 20)


def test_zones_give_no_more_addresses_than_their_limits_permit(
    supply: SupplyService, add: Add, place: Any, rest: Any, clock: ManualClock
) -> None:
    rest((1, "z1", "a"))
    clock.now += REST
    taken = add("192.0.2.2", "z2", "a")
    place((3, "z2", "a"), (4, "z2", "a"), (5, "z3", "a"))
    found = supply.propose(allocation(6), (taken,), {taken.address}, {"z2": 2, "z3": 0})
    assert {address[-1] for address in found} in ({"1", "3"}, {"1", "4"})


def test_an_address_of_each_host_of_a_zone_is_proposed(supply: SupplyService, place: Any) -> None:
    place((1, "z1", "a"), (2, "z1", "b"), (3, "z1", "c"))
    assert proposed(supply, allocation(3, distinct_hosts=True)) == {1, 2, 3}


def test_a_host_whose_addresses_were_all_tried_is_left_out(
    supply: SupplyService, place: Any
) -> None:
    place((1, "z1", "a"), (2, "z1", "b"))
    assert proposed(supply, allocation(2, distinct_hosts=True), 1) == {2}


def test_a_host_of_which_an_address_was_taken_is_left_out(
    supply: SupplyService, place: Any, add: Add
) -> None:
    taken = add("192.0.2.1", "z1", "a")
    place((2, "z1", "a"), (3, "z1", "b"))
    command = allocation(3, distinct_hosts=True)
    assert proposed(supply, command, 1, taken=(taken,)) == {3}


def test_one_address_of_each_zone_is_proposed_whatever_the_hosts(
    supply: SupplyService, place: Any
) -> None:
    place((1, "z1", "a"), (2, "z1", "b"), (3, "z2", "a"))
    command = allocation(3, distinct_zones=True)
    assert len(proposed(supply, command)) == 2
    assert supply.count(command) == 2


def test_one_address_of_each_zone_may_be_of_one_host(supply: SupplyService, place: Any) -> None:
    place((1, "z1", "a"), (2, "z2", "a"), (3, "z3", "b"))
    command = allocation(3, host="a", distinct_zones=True)
    assert proposed(supply, command) == {1, 2}
    assert supply.count(command) == 2


@pytest.mark.parametrize(("host", "count"), [("a", 1), ("x", 0)])
def test_different_hosts_of_one_host_are_one(
    supply: SupplyService, place: Any, host: str, count: int
) -> None:
    place((1, "z1", "a"), (2, "z1", "a"), (3, "z1", "b"))
    command = allocation(3, host=host, distinct_hosts=True)
    assert len(proposed(supply, command)) == count
    assert supply.count(command) == count


def test_different_hosts_of_a_zone_have_addresses_in_it(supply: SupplyService, place: Any) -> None:
    place((1, "z1", "a"), (2, "z2", "b"))
    command = allocation(2, zone="z1", distinct_hosts=True)
    assert proposed(supply, command) == {1}
    assert supply.count(command) == 1


def test_a_host_whose_addresses_have_no_zone_is_found(
    supply: SupplyService, place: Any, pool: Database
) -> None:
    """Another program can write an address without a zone."""
    place((1, "z1", "a"), (2, "z1", "b"))
    document = pool.get("192.0.2.2")
    pool.put({name: value for name, value in document.items() if name != "pvt_zone"})
    await_replicas(pool)
    assert proposed(supply, allocation(2, distinct_hosts=True)) == {1, 2}


def test_hosts_whose_addresses_have_rested_are_counted(
    supply: SupplyService, place: Any, rest: Any, clock: ManualClock
) -> None:
    rest((1, "z1", "a"))
    place((2, "z1", "b"))
    clock.now += REST
    for option in ("distinct_hosts", "distinct_zones"):
        command = allocation(2, **{option: True})
        count = 2 if option == "distinct_hosts" else 1
        assert len(proposed(supply, command)) == supply.count(command) == count


def test_an_address_that_has_rested_is_left_out_if_it_was_tried_or_its_host_is_taken(
    supply: SupplyService, add: Add, rest: Any, clock: ManualClock
) -> None:
    rest((1, "z1", "a"), (2, "z1", "b"), (3, "z1", "c"))
    taken = add("192.0.2.4", "z1", "a")
    clock.now += REST
    command = allocation(4, distinct_hosts=True)
    assert proposed(supply, command, 2, 4, taken=(taken,)) == {3}


def test_the_known_zones_are_read_again_after_some_time(
    supply: SupplyService, place: Any, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place((1, "z1", "a"))
    command, now = allocation(1, distinct_zones=True), time.monotonic()
    assert proposed(supply, command) == {1}
    for passed, reads in ((0, 0), (_ZONES_TTL + 1, 1)):
        sent.clear()
        monkeypatch.setattr(time, "monotonic", lambda passed=passed: now + passed)
        assert proposed(supply, command) == {1}
        assert len([url for url in sent if "group_level" in url]) == reads
