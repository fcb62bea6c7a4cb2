"""The use of zones over time, from the history, and the forecast of when a zone runs out."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from threading import Lock
from typing import Any

from cachetools import TLRUCache, cachedmethod
from cachetools.keys import methodkey

from kazoo_ips.model import Status, Summary
from kazoo_ips.model.history import HistoryEventKind
from kazoo_ips.model.usage import DAY, Forecast, Trend, UsageSeries
from kazoo_ips.repositories.counts import CountRepository
from kazoo_ips.repositories.usage import UsageRepository
from kazoo_ips.services.pool import forecasts

DAYS, MAX_DAYS = 90, 3660
"""Number of days of a series, unless the caller says otherwise; and the maximum."""
_TAKEN = (Status.ASSIGNED, Status.RESERVED)
"""Statuses of addresses that no other account can have. An address that is taken was available
before, or has become available again since."""
_LEFT = (Status.AVAILABLE, Status.AGING)
"""Statuses of addresses that are left. Those that rest become available by themselves."""
_ZONES, _CACHE_TIME = 1000, 900.0
"""The number of zones whose trends are cached, and the seconds."""
_EMPTY_TIME = 10.0
"""Seconds for which it is cached that a zone has no trend: the archive may be about to read the
events of a new pool."""


class UsageService:
    """Returns the use of zones over time.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self, usage: UsageRepository, counts: CountRepository, now: Callable[[], int]
    ) -> None:
        self._usage = usage
        self._counts = counts
        self._now = now
        self._cache: TLRUCache[Any, Any] = TLRUCache(_ZONES, _expires)
        self._lock = Lock()

    def series(self, zone: str, days: int = DAYS) -> UsageSeries:
        """Return the use of a zone, day by day until today.

        It begins at the zone's first event, if that is later.

        :param days: the maximum number of days
        """
        today = self._today()
        earliest = self._usage.first_day(zone)
        first = today if earliest is None else min(max(today - days + 1, earliest), today)
        found = self._usage.changes(zone, first, today)
        summary = next((each for each in self._counts.by_zone() if each.name == zone), None)
        counts = summary.counts if summary else {}
        return UsageSeries(
            zone,
            first,
            _levels(counts, found.statuses, range(first, today + 1)),
            _of_kind(found.events, HistoryEventKind.ASSIGNED, range(first, today + 1)),
            _of_kind(found.events, HistoryEventKind.RELEASED, range(first, today + 1)),
            self.forecast(summary) if summary else None,
        )

    def forecast(self, zone: Summary) -> Forecast | None:
        """Return when a zone has no address left.

        :returns: None if it does not shrink, or if its history is shorter than a week
        """
        today = self._today()
        return forecasts.forecast(_left(zone), self._trend(zone.name, today), today)

    def forecast_of_all(self, zones: Iterable[Summary]) -> Forecast | None:
        """Return when all zones together have no address left, as for one zone."""
        today, all_zones = self._today(), list(zones)
        taken = [self._taken(zone.name, today) for zone in all_zones]
        length = max(map(len, taken), default=0)
        # A zone that is newer than the others has taken nothing before.
        padded = [[0] * (length - len(each)) + list(each) for each in taken]
        trend = forecasts.trend([sum(day) for day in zip(*padded, strict=True)])
        return forecasts.forecast(sum(map(_left, all_zones)), trend, today)

    @cachedmethod(attrgetter("_cache"), key=methodkey, lock=attrgetter("_lock"))
    def _trend(self, zone: str, today: int) -> Trend | None:
        return forecasts.trend(self._taken(zone, today))

    @cachedmethod(
        attrgetter("_cache"), key=lambda _, *key: ("taken", *key), lock=attrgetter("_lock")
    )
    def _taken(self, zone: str, today: int) -> Sequence[int]:
        """Return the addresses taken on each of the last whole days, less those given back."""
        earliest = self._usage.first_day(zone)
        if earliest is None:
            return []
        days = range(max(today - forecasts.WINDOW, earliest), today)
        found = self._usage.changes(zone, days.start, today - 1).statuses if days else {}
        return [sum(found.get(day, {}).get(status, 0) for status in _TAKEN) for day in days]

    def _today(self) -> int:
        return self._now() // DAY


def _expires(_: object, found: object, now: float) -> float:
    """Return when something that was read leaves the cache."""
    return now + (_CACHE_TIME if found else _EMPTY_TIME)


def _left(zone: Summary) -> int:
    return sum(zone.counts.get(status, 0) for status in _LEFT)


def _levels(
    present: Mapping[str, int], changes: Mapping[int, Mapping[str, int]], days: range
) -> dict[str, list[int]]:
    """Return the number of addresses of each status at the end of each day.

    They are counted back from the present numbers.
    """
    names = sorted({*present, *(status for day in changes.values() for status in day)})
    level = Counter(present)
    levels: dict[str, list[int]] = {name: [] for name in names}
    for day in reversed(days):
        for name in names:
            levels[name].append(max(level[name], 0))
        level.subtract(changes.get(day, {}))
    return {name: values[::-1] for name, values in levels.items() if any(values)}


def _of_kind(events: Mapping[int, Mapping[str, int]], kind: str, days: range) -> list[int]:
    return [events.get(day, {}).get(kind, 0) for day in days]
