"""Low zones: each crossing of the limit has one event, in the feed, in webhooks and in metrics."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.errors import DatastoreError
from kazoo_ips.model import AssignIPs, CreateIP, DeleteIP, ReleaseIPs
from kazoo_ips.model.history import HistoryEvent, PoolLevel
from kazoo_ips.model.low_zones import is_low
from kazoo_ips.repositories.records import Records
from tests.openapi_check import CheckedApp
from tests.own_databases import own_databases

ZONE, HOST = "us-east", "proxy1.example.com"


@pytest.mark.parametrize(
    ("available", "total", "percent", "was_low", "low"),
    [
        (10, 100, 10, False, True), (11, 100, 10, False, False),
        (11, 100, 10, True, True), (15, 100, 10, True, True), (16, 100, 10, True, False),
        (0, 4, 10, False, True), (1, 4, 10, False, False), (1, 4, 10, True, False),
        (0, 100, 0, False, False), (0, 100, 0, True, False), (0, 0, 10, True, False),
        (95, 100, 90, True, True), (96, 100, 90, True, False),
    ],
)  # fmt: skip
def test_when_a_zone_is_low(
    available: int, total: int, percent: float, was_low: bool, low: bool
) -> None:
    assert is_low(available, total, percent, was_low=was_low) is low


@given(st.integers(1, 500), st.floats(0, 90))
def test_every_zone_recovers_when_all_of_it_is_available(total: int, percent: float) -> None:
    assert not is_low(total, total, percent, was_low=True)


class World:
    """A pool of ten addresses in databases of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.as_administrator()
        self.now = 1_796_000_000.0
        self.services = self.instance()
        account = self.services.accounts.create("Operator", "operator.example.com")
        self.account = account.id
        self.addresses = tuple(f"192.0.2.{n}" for n in range(10))
        for address in self.addresses:
            self.services.pool.create(CreateIP(address, ZONE, HOST), uuid4().hex)

    def instance(self, trace: Callable[[str, str], None] | None = None) -> Instance:
        """Another instance of the service."""
        return composition.build(self.settings, clock=lambda: self.now, trace=trace)

    def use(self, count: int) -> None:
        """Assign or release addresses, until the account has this number."""
        self.services.ips.release_all(ReleaseIPs(self.account, None), uuid4().hex)
        if count:
            command = AssignIPs(self.account, self.addresses[:count])
            self.services.ips.assign_all(command, uuid4().hex)

    def events(self) -> list[HistoryEvent]:
        """The events of zones in the feed."""
        return [e.event for e in self.services.changes.read("0", 1000).entries if e.event.level]

    def kinds(self) -> list[str]:
        return [str(event.event) for event in self.events()]


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    with own_databases(settings) as own:
        yield World(own)


def test_each_crossing_has_one_event(world: World) -> None:
    check = world.services.low_zones.check
    check()
    assert world.events() == []
    world.use(9)
    for _ in range(3):
        check()
    (event,) = world.events()
    assert event.event == "pool.low"
    assert event.level == PoolLevel(ZONE, 1, 10, 10.0)
    assert event.zones == (ZONE,)  # webhooks are filtered by this
    assert world.services.low_zones.low() == {ZONE: True}
    world.use(10)
    check()
    assert len(world.events()) == 1
    world.use(8)
    for _ in range(3):
        check()
    assert world.kinds() == ["pool.low", "pool.recovered"]
    assert world.services.low_zones.low() == {ZONE: False}
    world.use(9)
    check()
    assert world.kinds() == ["pool.low", "pool.recovered", "pool.low"]


def test_the_summary_says_which_zone_is_low(world: World) -> None:
    summaries = world.services.summaries
    assert not summaries.pool().low
    world.use(9)
    world.services.low_zones.check()
    assert summaries.pool().low
    assert summaries.zone(ZONE).low
    assert [zone.low for zone in summaries.zones(None, 5).items] == [True]


def test_a_zone_can_have_a_percentage_of_its_own_or_none(world: World) -> None:
    records = Records(composition.connect(world.settings))
    zones = {ZONE: {"low_percent": 50}, "us-west": {"newer": 1}}
    stored = records.put({"_id": "place-settings", "zones": zones})
    assert stored is not None
    world.use(5)
    world.services.low_zones.check()
    assert world.kinds() == ["pool.low"]
    records.put({**stored, "zones": {ZONE: {"low_percent": 0}}})
    world.services.low_zones.check()
    assert world.kinds() == ["pool.low", "pool.recovered"]
    world.use(10)
    world.services.low_zones.check()
    assert len(world.events()) == 2


def test_the_service_can_be_set_to_mark_no_zone(world: World) -> None:
    world.settings = replace(world.settings, low_percent=0)
    world.use(10)
    world.instance().low_zones.check()
    assert world.events() == []


def test_a_zone_that_was_deleted_is_forgotten(world: World) -> None:
    world.use(9)
    world.services.low_zones.check()
    world.use(0)
    for address in world.addresses:
        world.services.pool.delete(DeleteIP(address), uuid4().hex)
    world.services.low_zones.check()
    assert world.services.low_zones.low() == {}
    assert world.kinds() == ["pool.low"]


def test_instances_that_check_at_once_make_one_event(world: World) -> None:
    world.use(9)
    together = threading.Barrier(4)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            instance = world.instance()
            instance.low_zones.low()
            together.wait(10)
            instance.low_zones.check()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    world.services.low_zones.check()
    assert world.kinds() == ["pool.low"]


class Killed(Exception):
    """The process was killed before one of its requests."""


def test_a_kill_at_any_request_neither_loses_nor_repeats_an_event(world: World) -> None:
    """The process is killed before each request of a check in turn."""
    expected: list[str] = []
    number, was_killed = 0, True
    while was_killed:
        low = len(expected) % 2 == 0
        world.use(9 if low else 5)
        sent, was_killed = 0, False

        def kill(_method: str, _url: str, at: int = number) -> None:
            nonlocal sent, was_killed
            sent += 1
            if sent > at:
                was_killed = True
                raise Killed

        try:
            world.instance(trace=kill).low_zones.check()
        except (Killed, DatastoreError):
            assert was_killed
        world.services.low_zones.check()
        expected.append("pool.low" if low else "pool.recovered")
        assert world.kinds() == expected, number
        number += 1
    assert number > 5


def test_an_account_never_sees_an_event_of_a_zone(world: World) -> None:
    world.use(9)
    world.services.low_zones.check()
    own = world.services.changes.read("0", 1000, world.account).entries
    assert own == [] or all(entry.event.level is None for entry in own)


def test_the_feed_shows_the_event_as_json_and_as_cloudevent(world: World) -> None:
    world.use(9)
    world.services.low_zones.check()
    api = CheckedApp(composition.create_app(world.settings, clock=lambda: world.now))
    account = world.services.accounts.fetch(world.account)
    headers = {"X-Auth-Token": world.services.auth.open_session(account).token}
    (event,) = [
        e for e in api.get("/v2/ips/changes", headers=headers).json["data"] if "ip" not in e
    ]
    assert (event["event"], event["zone"], event["available"], event["total"]) == (
        "pool.low", ZONE, 1, 10,
    )  # fmt: skip
    assert event["low_percent"] == 10
    cloud = api.get(
        "/v2/ips/changes",
        headers={**headers, "Accept": "application/cloudevents-batch+json"},
    )
    (sent,) = [e for e in cloud.json if e["type"] == "kazoo_ips.pool.low"]
    assert (sent["source"], sent["subject"]) == (f"/v2/ips/zones/{ZONE}", ZONE)
    assert all("ip" in e for e in api.get("/v2/ips/history", headers=headers).json["data"])


def test_the_metrics_have_the_zones_that_are_low(world: World) -> None:
    world.use(9)
    world.services.low_zones.check()
    api = CheckedApp(composition.create_app(world.settings, clock=lambda: world.now))
    assert f'kazoo_ips_zone_low{{zone="{ZONE}"}} 1.0' in api.get("/metrics").text
