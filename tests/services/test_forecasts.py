"""When a zone runs out: on sequences with known answers, and on a history in the database."""

from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.model import GREGORIAN_EPOCH, Summary
from kazoo_ips.model.history import NOBODY, HistoryEvent, Source, State
from kazoo_ips.model.trail_events import retraction
from kazoo_ips.model.usage import DAY, Forecast, Trend
from kazoo_ips.services.history.times import parse
from kazoo_ips.services.pool import forecasts
from tests.api.couchdb import Databases, kazoo_document
from tests.own_databases import own_databases

TODAY = parse("2027-01-10") // DAY
"""A day in January, so that the 28 days before it are in two years."""


# The estimate


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0, 3, 6, 9], 3),
        ([0, 1, 2, 100, 4, 5, 6], 1),  # one value is wrong
        ([5, 4, 3], -1),
        ([0, 0, 0, 0], 0),
    ],
)
def test_the_slope_is_the_median_of_all_pairs(levels: list[float], expected: float) -> None:
    assert forecasts.slope(levels) == expected


def test_the_same_number_each_day_is_the_rate_and_leaves_no_doubt() -> None:
    assert forecasts.trend([3] * 28) == Trend(3, 3, 3)


def test_one_large_customer_does_not_change_the_rate() -> None:
    for day in range(28):
        taken = [2] * 28
        taken[day] = 500
        trend = forecasts.trend(taken)
        assert trend is not None
        assert trend.rate == 2


def test_less_than_a_week_is_no_trend() -> None:
    assert forecasts.trend([3] * 6) is None
    assert forecasts.trend([3] * 7) is not None


def test_the_trend_of_the_same_days_is_always_the_same() -> None:
    taken = [Random(3).randrange(9) for _ in range(28)]
    assert forecasts.trend(taken) == forecasts.trend(list(taken))


def test_the_interval_has_the_true_rate_in_about_80_percent_of_cases() -> None:
    mix, hits = Random(1), 0
    for _ in range(200):
        # A mean of 4 a day; weekends are quieter.
        taken = [mix.randrange(3) if day % 7 > 4 else mix.randrange(11) for day in range(28)]
        trend = forecasts.trend(taken)
        assert trend is not None
        hits += trend.slowest <= (2 * 1 + 5 * 5) / 7 <= trend.fastest
    assert 120 <= hits <= 190, hits


FAR = 10_000


@pytest.mark.parametrize(
    ("left", "trend", "expected"),
    [
        (30, Trend(3, 2, 5), Forecast(TODAY + 10, TODAY + 6, TODAY + 15, 3)),
        (30, Trend(3, -1, 5), Forecast(TODAY + 10, TODAY + 6, None, 3)),
        (30, Trend(3, 0.001, 5), Forecast(TODAY + 10, TODAY + 6, None, 3)),
        (0, Trend(3, 2, 5), Forecast(TODAY, TODAY, TODAY, 3)),
        (0, Trend(-1, -2, 1), Forecast(TODAY, TODAY, TODAY, -1)),
        (30, Trend(0, -1, 1), None),
        (30, Trend(-2, -3, -1), None),
        (FAR, Trend(1, 0.5, 2), None),
        (30, None, None),
        (30, Trend(3, 4, 5), Forecast(TODAY + 10, TODAY + 6, TODAY + 10, 3)),
    ],
)
def test_the_day_without_addresses(
    left: int, trend: Trend | None, expected: Forecast | None
) -> None:
    assert forecasts.forecast(left, trend, TODAY) == expected


# From a history


class World:
    """Databases of their own, with a history to which a test adds single events."""

    def __init__(self, settings: Settings) -> None:
        now = TODAY * DAY - GREGORIAN_EPOCH + 3600
        self.services: Instance = composition.build(
            settings.as_administrator(), clock=lambda: float(now)
        )
        self.databases = Databases(settings.as_administrator().couchdb_url, settings.prefix)
        self.number = 0

    def add(self, day: int, kind: str, before: State | None, after: State | None) -> HistoryEvent:
        """Store an event on a day, counted from today."""
        self.number += 1
        event = HistoryEvent(
            f"{self.number}-{uuid4().hex[:8]}",
            f"192.0.2.{self.number % 250}",
            kind,
            (TODAY + day) * DAY + 43_200,
            None,
            before,
            after,
            NOBODY,
            None,
            Source.SERVICE,
        )
        self.services.archive.append([event])
        return event

    def add_all(
        self, count: int, day: int, kind: str, before: State | None, after: State | None
    ) -> None:
        """Store equal events of many addresses on a day, with one request."""
        at = (TODAY + day) * DAY + 43_200
        self.number += 1
        events = [
            HistoryEvent(f"{self.number}-{n}", f"198.18.{n // 250}.{n % 250}", kind, at, None,
                         before, after, NOBODY, None, Source.SERVICE)
            for n in range(count)
        ]  # fmt: skip
        for start in range(0, count, 200):
            self.services.archive.append(events[start : start + 200])

    def take(self, day: int, zone: str = "us-east", count: int = 1) -> None:
        """Assign addresses on a day."""
        for _ in range(count):
            self.add(day, "assigned", State("available", None, zone, "h"),
                     State("assigned", "a", zone, "h"))  # fmt: skip

    def give(self, day: int, zone: str = "us-east") -> HistoryEvent:
        """Release an address on a day."""
        return self.add(day, "released", State("assigned", "a", zone, "h"),
                        State("available", None, zone, "h"))  # fmt: skip


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    with own_databases(settings) as own:
        made = World(own)
        for year in (2026, 2027):
            composition.history_years(own).create(year)
        yield made


def summary(zone: str = "us-east", **counts: int) -> Summary:
    return Summary(counts, zone)


def test_a_steady_use_over_the_turn_of_the_year_runs_out_on_the_known_day(world: World) -> None:
    for day in range(-28, 0):
        world.take(day, count=2)
    world.take(0, count=1)  # today is not over, so its changes do not count
    forecast = world.services.usage.forecast(summary(available=20, assigned=57))
    assert forecast == Forecast(TODAY + 10, TODAY + 10, TODAY + 10, 2)


def test_a_pool_whose_events_are_archived_later_has_a_forecast_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kazoo_ips.services.pool.usage._EMPTY_TIME", 0.0)
    assert world.services.usage.forecast(summary(available=20)) is None
    for day in range(-28, 0):
        world.take(day)
    assert world.services.usage.forecast(summary(available=20)) is not None


def test_addresses_that_rest_are_left_and_reserved_ones_are_taken(world: World) -> None:
    free, held = State("available", None, "us-east", "h"), State("reserved", None, "us-east", "h")
    for day in range(-28, 0):
        world.add(day, "reserved", free, held)
    forecast = world.services.usage.forecast(summary(available=5, aging=5, reserved=28))
    assert forecast == Forecast(TODAY + 10, TODAY + 10, TODAY + 10, 1)


def test_a_zone_that_gives_back_what_it_takes_does_not_run_out(world: World) -> None:
    for day in range(-28, 0):
        world.take(day)
        world.give(day)
    assert world.services.usage.forecast(summary(available=5)) is None


def test_zones_are_separate_and_a_new_one_has_no_forecast(world: World) -> None:
    for day in range(-28, 0):
        world.take(day, "us-west")
    for day in range(-5, 0):
        world.take(day)
    usage = world.services.usage
    assert usage.forecast(summary(available=5)) is None
    west = usage.forecast(summary("us-west", available=7))
    assert west is not None
    assert west.day == TODAY + 7
    assert usage.forecast(summary("nowhere", available=5)) is None


def test_a_move_to_another_zone_counts_as_use_of_the_new_zone_only(world: World) -> None:
    world.take(-28)
    for day in range(-28, 0):
        world.add(day, "changed", State("assigned", "a", "us-east", "h"),
                  State("assigned", "a", "us-west", "h"))  # fmt: skip
    usage = world.services.usage
    west = usage.forecast(summary("us-west", available=3))
    assert west is not None
    assert west.rate == 1
    assert usage.forecast(summary(available=3)) is None


def test_retracted_events_do_not_count(world: World) -> None:
    for day in range(-28, 0):
        world.take(day)
        wrong = world.add(day, "assigned", State("available", None, "us-east", "h"),
                          State("assigned", "a", "us-east", "h"))  # fmt: skip
        world.services.archive.append([retraction(wrong, wrong.at + 5)])
    forecast = world.services.usage.forecast(summary(available=10))
    assert forecast is not None
    assert forecast.rate == 1


FREE, HELD = State("available", None, "us-east", "h"), State("assigned", "a", "us-east", "h")


@pytest.mark.parametrize("day", [-27, -14, -1])
def test_addresses_that_the_operator_adds_change_what_is_left_and_not_the_rate(
    world: World, day: int
) -> None:
    for each in range(-28, 0):
        world.take(each, count=2)
    before = world.services.usage.forecast(summary(available=20, assigned=56))
    world.add_all(1000, day, "created", None, FREE)
    after = world.services.usage.forecast(summary(available=1020, assigned=56))
    assert before == Forecast(TODAY + 10, TODAY + 10, TODAY + 10, 2)
    assert after == Forecast(TODAY + 510, TODAY + 510, TODAY + 510, 2)
    series = world.services.usage.series("us-east", 60)
    assert series.forecast is None  # the pool itself is empty, so the zone has no addresses


@pytest.mark.parametrize("day", [-24, -14, -2])
def test_a_customer_who_takes_500_at_once_does_not_change_the_rate(world: World, day: int) -> None:
    for each in range(-28, 0):
        world.take(each, count=2)
    world.add_all(500, day, "assigned", FREE, HELD)
    forecast = world.services.usage.forecast(summary(available=500, assigned=556))
    assert forecast is not None
    assert (forecast.rate, forecast.day) == (2, TODAY + 250)  # the mean of the days is 20
    # Another such day is possible, so the interval is wide.
    assert forecast.earliest < forecast.day
    assert forecast.latest == TODAY + 250


def test_a_zone_that_gives_back_more_than_it_takes_has_no_forecast(world: World) -> None:
    world.add_all(500, -28, "assigned", FREE, HELD)
    for each in range(-28, 0):
        world.take(each)
        world.give(each)
        world.give(each)
    assert world.services.usage.forecast(summary(available=50, assigned=472)) is None


def test_the_series_counts_back_from_the_present_numbers(world: World) -> None:
    documents = [
        kazoo_document(f"192.0.2.{n}", owner="a" * 32 if n < 6 else None) for n in range(10)
    ]
    world.databases.put("dedicated_ips", *documents)
    for _ in range(10):
        world.add(-40, "created", None, State("available", None, "us-east", "h"))
    world.take(-20, count=5)
    world.give(-10)
    world.take(0, count=2)
    series = world.services.usage.series("us-east", 60)
    assert series.first == TODAY - 40
    assert [*series.days][-1] == TODAY
    expected = [0] * 20 + [5] * 10 + [4] * 10 + [6]
    assert series.counts == {"assigned": expected, "available": [10 - n for n in expected]}
    assert (series.assigned[20], series.released[30], series.assigned[40]) == (5, 1, 2)
    assert (sum(series.assigned), sum(series.released)) == (7, 1)
    short = world.services.usage.series("us-east", 15)
    assert short.first == TODAY - 14
    assert short.counts["assigned"] == expected[-15:]
    empty = world.services.usage.series("nowhere")
    assert (empty.first, empty.counts, empty.assigned) == (TODAY, {}, [0])


def test_the_summary_shows_the_forecast(world: World) -> None:
    documents = [kazoo_document(f"192.0.2.{n}") for n in range(10)]
    world.databases.put("dedicated_ips", *documents)
    for day in range(-28, 0):
        world.take(day)
    (zone,) = world.services.summaries.zones(None, 10).items
    assert zone.forecast == Forecast(TODAY + 10, TODAY + 10, TODAY + 10, 1)
    assert world.services.summaries.pool().forecast == zone.forecast
    assert world.services.summaries.zone("us-east").forecast == zone.forecast


def test_a_forecast_is_cached(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(-28, 0):
        world.take(day)
    usage = world.services.usage
    first = usage.forecast(summary(available=10))

    def fail(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("kazoo_ips.repositories.usage.UsageRepository.changes", fail)
    assert usage.forecast(summary(available=10)) == first
    later = usage.forecast(summary(available=20))
    assert later is not None
    assert later.day == TODAY + 20
