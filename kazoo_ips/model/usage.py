"""How the use of a zone changes over time, and when the zone runs out. Standard library only.

Days are numbers: day 0 is the first of January of year 0, as in Kazoo's times. They are days in
UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

DAY = 86_400
"""Seconds of a day."""


class Trend(NamedTuple):
    """How many addresses a zone loses each day; negative if it gains some.

    :param rate: addresses a day
    :param slowest: the rate is at least this, with a probability of 90 %
    :param fastest: the rate is at most this, with a probability of 90 %
    """

    rate: float
    slowest: float
    fastest: float


class Forecast(NamedTuple):
    """When a zone has no address left, if its use goes on as in the last weeks.

    :param day: the most likely day
    :param earliest: it is this day or later, with a probability of 90 %
    :param latest: it is this day or earlier, with a probability of 90 %; None if it may never be
    :param rate: the addresses that are taken each day, less those that are given back
    """

    day: int
    earliest: int
    latest: int | None
    rate: float


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """The use of a zone, day by day.

    :param first: the first day
    :param counts: for each status that occurs, the number of addresses at the end of each day;
        today's number is the present one
    :param assigned: the number of assignments on each day
    :param released: the number of releases on each day
    :param forecast: None if the zone does not run out
    """

    zone: str
    first: int
    counts: Mapping[str, Sequence[int]]
    assigned: Sequence[int]
    released: Sequence[int]
    forecast: Forecast | None

    @property
    def days(self) -> range:
        """The days."""
        return range(self.first, self.first + len(self.assigned))


class DailyChanges(NamedTuple):
    """What happened in a zone, by day.

    :param statuses: the change of the number of addresses, by day and status
    :param events: the number of events, by day and kind
    """

    statuses: Mapping[int, Mapping[str, int]]
    events: Mapping[int, Mapping[str, int]]
