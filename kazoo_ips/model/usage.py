"""How the use of a zone changes over time, and when the zone runs out. Standard library only.

A day is a number of days in UTC. Day 0 is 1 January of the year 0, the epoch of Gregorian seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

DAY = 86_400
"""Seconds of a day."""


class Trend(NamedTuple):
    """How many available addresses a zone loses each day; negative if it gains some.

    :param rate: addresses per day
    :param slowest: with a probability of 90 %, the rate is at least this
    :param fastest: with a probability of 90 %, the rate is at most this
    """

    rate: float
    slowest: float
    fastest: float


class Forecast(NamedTuple):
    """When a zone runs out, which means that no address is available, if the trend continues.

    :param day: the most likely day
    :param earliest: with a probability of 90 %, the zone runs out on this day or later
    :param latest: with a probability of 90 %, it runs out on this day or earlier; None if it may
        never run out
    :param rate: the number of available addresses that the zone loses per day
    """

    day: int
    earliest: int
    latest: int | None
    rate: float


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """The use of a zone, day by day. Each sequence has one number for each of `days`.

    :param first: the first day
    :param counts: for each status that occurs, the number of addresses at the end of each day. The
        number of today is the present one
    :param assigned: the number of assignments on each day
    :param released: the number of releases on each day
    :param forecast: when the zone runs out; None if no such day is known
    """

    zone: str
    first: int
    counts: Mapping[str, Sequence[int]]
    assigned: Sequence[int]
    released: Sequence[int]
    forecast: Forecast | None

    @property
    def days(self) -> range:
        """The days from the first one to today."""
        return range(self.first, self.first + len(self.assigned))


class DailyChanges(NamedTuple):
    """How the number of addresses of a zone changed, by day.

    :param statuses: by day and status, how much the number of addresses with the status changed
    :param events: by day and kind, the number of events
    """

    statuses: Mapping[int, Mapping[str, int]]
    events: Mapping[int, Mapping[str, int]]
