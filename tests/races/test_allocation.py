"""Concurrent allocations in one process with many threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import unquote
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import InsufficientIPs
from kazoo_ips.model import AllocateIPs, DedicatedIP
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from tests.conftest import Member
from tests.timing import await_replicas

CLIENTS = 64


@pytest.fixture
def add_many(couch: Couch, pool: object) -> Callable[[Iterable[DedicatedIP]], None]:
    """Return a function that writes addresses to the pool."""
    repository = IPRepository(couch, ListRepository(couch))
    return lambda ips: repository.save_all(list(ips))


@pytest.fixture
def many(add_many: Callable[[Iterable[DedicatedIP]], None]) -> Callable[[int], None]:
    """Return a function that adds addresses to the pool."""

    def fill(count: int) -> None:
        add_many(
            DedicatedIP(f"198.51.{n // 250}.{n % 250}", "us-east", f"proxy{n % 7}", 1, 1)
            for n in range(count)
        )

    return fill


def test_concurrent_allocations_rarely_choose_the_same_address(
    settings: Settings, many: Callable[[int], None], alice: Member
) -> None:
    many(200)
    writes: list[str] = []

    def trace(method: str, url: str) -> None:
        if method == "PUT" and "dedicated_ips/" in url:
            writes.append(url)

    services = composition.build(replace(settings, threads=CLIENTS), trace=trace)
    command = AllocateIPs(alice.id, 1)
    with ThreadPoolExecutor(CLIENTS) as clients:
        futures = [
            clients.submit(services.allocation.allocate, command, uuid4().hex) for _ in range(150)
        ]
        taken = [ip.address for future in futures for ip in future.result()]
    assert len(set(taken)) == 150
    # While a quarter of the pool is left, two addresses take at most three attempts.
    assert len(writes) <= 1.5 * 150


def test_of_two_large_allocations_one_gets_all_and_the_other_nothing(
    services: Instance, many: Callable[[int], None], alice: Member, bob: Member
) -> None:
    many(100)

    def allocate(member: Member) -> list[DedicatedIP]:
        return services.allocation.allocate(AllocateIPs(member.id, 60), uuid4().hex)

    with ThreadPoolExecutor(2) as clients:
        futures = [clients.submit(allocate, member) for member in (alice, bob)]
        errors = [future.exception() for future in futures]
    [refused] = [error for error in errors if error]
    assert isinstance(refused, InsufficientIPs)
    assert (refused.requested, refused.available) == (60, 40)
    assert len([1 for _, status in services.lists.summary() if status == "assigned"]) == 60
    services.background.recover()
    own = {row.address for row in services.lists.all_assigned()}
    assert not [found for found in services.doctor.examine() if found.address in own]


@pytest.mark.parametrize("option", ["distinct_hosts", "distinct_zones"])
def test_distinct_hosts_and_zones_are_distinct(
    services: Instance, add: Callable[..., DedicatedIP], alice: Member, option: str
) -> None:
    for n in range(12):
        add(f"192.0.2.{n}", zone=f"zone{n % 4}", host=f"host{n % 4}.example.com")
    command = AllocateIPs(alice.id, 4, **{option: True})
    ips = services.allocation.allocate(command, uuid4().hex)
    assert len({ip.host for ip in ips}) == len({ip.zone for ip in ips}) == 4
    with pytest.raises(InsufficientIPs) as refused:
        services.allocation.allocate(replace(command, quantity=5), uuid4().hex)
    assert (refused.value.requested, refused.value.available) == (5, 4)


def test_as_many_distinct_hosts_as_there_are(
    services: Instance, add_many: Callable[[Iterable[DedicatedIP]], None], alice: Member
) -> None:
    # More than are read at a time. Every host has addresses in both zones.
    add_many(
        DedicatedIP(f"198.51.{zone}.{n}", f"zone{zone}", f"host{n % 100}.example.com", 1, 1)
        for zone in range(2)
        for n in range(200)
    )
    for zone in ("zone1", None):
        command = AllocateIPs(alice.id, 100, zone, distinct_hosts=True)
        ips = services.allocation.allocate(command, uuid4().hex, dry_run=True)
        assert len({ip.host for ip in ips}) == len(ips) == 100
        with pytest.raises(InsufficientIPs) as refused:
            services.allocation.allocate(replace(command, quantity=101), uuid4().hex)
        assert refused.value.available == 100


@pytest.mark.parametrize("option", ["distinct_hosts", "distinct_zones"])
def test_zones_are_read_again_only_if_the_known_ones_are_not_enough(
    settings: Settings,
    pool: Database,
    add: Callable[..., DedicatedIP],
    alice: Member,
    option: str,
) -> None:
    sent: list[str] = []
    services = composition.build(settings, trace=lambda _, url: sent.append(url))

    def choose(quantity: int) -> set[str]:
        await_replicas(pool)
        sent.clear()
        command = AllocateIPs(alice.id, quantity, **{option: True})
        found = services.allocation.allocate(command, uuid4().hex, dry_run=True)
        return {ip.address for ip in found}

    add("192.0.2.1", zone="zone1", host="host1.example.com")
    assert choose(1) == {"192.0.2.1"}
    assert choose(1) == {"192.0.2.1"}
    assert [url for url in sent if "group_level" in url] == []
    add("192.0.2.2", zone="zone2", host="host2.example.com")
    assert choose(2) == {"192.0.2.1", "192.0.2.2"}
    assert len([url for url in sent if "group_level" in url]) == 1


@pytest.mark.parametrize("where", [{"zone": "us-east"}, {"host": "proxy3"}])
def test_different_hosts_are_found_without_reading_all_of_them(
    settings: Settings, many: Callable[[int], None], alice: Member, where: dict[str, str]
) -> None:
    many(100)
    sent: list[str] = []
    services = composition.build(settings, trace=lambda _, url: sent.append(url))
    command = AllocateIPs(alice.id, 1, **where, distinct_hosts=True)
    services.allocation.allocate(command, uuid4().hex, dry_run=True)
    views = [unquote(url) for url in sent if "/_design/ips/" in url]
    assert views
    assert [url for url in views if "limit=" not in url and "other_spellings" not in url] == []


@pytest.mark.parametrize(
    ("option", "place"), [("distinct_hosts", "host3.example.com"), ("distinct_zones", "zone3")]
)
def test_distinct_hosts_and_zones_are_of_the_requested_ones(
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    option: str,
    place: str,
) -> None:
    for n in range(8):
        add(f"192.0.2.{n}", zone=f"zone{n % 4}", host=f"host{n % 4}.example.com")
    name = "host" if option == "distinct_hosts" else "zone"
    command = AllocateIPs(alice.id, 2, **{option: True, name: place})
    with pytest.raises(InsufficientIPs) as refused:
        services.allocation.allocate(command, uuid4().hex)
    assert (refused.value.requested, refused.value.available) == (2, 1)
    [ip] = services.allocation.allocate(replace(command, quantity=1), uuid4().hex)
    assert getattr(ip, name) == place


def test_zone_and_host_of_an_allocation_are_respected(
    services: Instance, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    for n in range(8):
        add(f"192.0.2.{n}", zone=f"zone{n % 2}", host=f"host{n // 4}.example.com")
    ips = services.allocation.allocate(
        AllocateIPs(alice.id, 2, zone="zone1", host="host1.example.com"), uuid4().hex
    )
    assert {(ip.zone, ip.host) for ip in ips} == {("zone1", "host1.example.com")}
    with pytest.raises(InsufficientIPs):
        services.allocation.allocate(
            AllocateIPs(alice.id, 1, "zone1", "host1.example.com"), uuid4().hex
        )
