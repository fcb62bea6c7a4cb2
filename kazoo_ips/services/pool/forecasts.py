"""When a zone runs out: a robust estimate from the addresses taken on each day.

The rate is the median of the slopes between pairs of days (Theil 1950, Sen 1968) of what was taken
in all since the first day. The pairs are a week to eleven days apart, if there are four weeks. If
one customer takes hundreds of addresses on one day, the sums of all later days are higher. If that
day is in the middle of the four weeks, it lies between the days of more than half of all pairs, so
the median over all pairs would be the rate of that day. It lies between the days of at most 45 %
of the chosen pairs, wherever it is. For other sequences both medians have the same error. The
interval comes from resampling: the same estimate is made for other sequences of the same weeks.
"""

from collections.abc import Sequence
from itertools import accumulate
from random import Random
from statistics import median

from kazoo_ips.model.usage import Forecast, Trend

WINDOW = 28
"""Number of days that an estimate is made from: four weeks."""
LEAST = 7
"""Minimum number of days for an estimate."""
_BLOCK = 7
"""Number of consecutive days that are resampled together, because use depends on the weekday."""
_SAMPLES = 200
_MARGIN = 0.1
"""The part of the samples that lies outside of each end of the interval, which is 80 %."""
_HORIZON = 3650
"""Maximum number of days of a forecast. A zone that lasts longer counts as never running out."""


def slope(levels: Sequence[float]) -> float:
    """Return the median of the slopes between pairs of values.

    The values of a pair are between a quarter and two fifths of the whole length apart.

    :param levels: values at equal distances
    """
    length = len(levels) - 1
    nearest = -(-length // 4)
    farthest = max(2 * length // 5, nearest)
    return median(
        (levels[i + apart] - levels[i]) / apart
        for apart in range(nearest, farthest + 1)
        for i in range(len(levels) - apart)
    )


def trend(taken: Sequence[int]) -> Trend | None:
    """Return how many addresses are taken each day, with an interval.

    :param taken: the addresses that were taken on each day, less those that were given back
    :returns: None if there are too few days
    """
    if len(taken) < LEAST:
        return None
    rates = sorted(slope(_levels(sample)) for sample in _samples(taken))
    outside = int(len(rates) * _MARGIN)
    return Trend(slope(_levels(taken)), rates[outside], rates[-1 - outside])


def forecast(left: int, change: Trend | None, today: int) -> Forecast | None:
    """Return when no address is left.

    :param left: the number of addresses that are left now
    :returns: None if that is never, or in the far future, or if it is not known
    """
    if change is None:
        return None
    day = _day(left, change.rate, today)
    if day is None:
        return None
    # The estimate itself is always within the interval.
    earliest = _day(left, max(change.fastest, change.rate), today)
    latest = _day(left, min(change.slowest, change.rate), today)
    return Forecast(day, day if earliest is None else earliest, latest, change.rate)


def _day(left: int, rate: float, today: int) -> int | None:
    if left <= 0:
        return today
    if rate <= 0 or left / rate > _HORIZON:
        return None
    return today + int(left / rate)


def _levels(taken: Sequence[int]) -> list[int]:
    return [0, *accumulate(taken)]


def _samples(taken: Sequence[int]) -> list[list[int]]:
    """Return sequences made of random blocks of days, the same ones for the same days."""
    random = Random(repr(taken))
    around = [*taken, *taken]
    samples = []
    for _ in range(_SAMPLES):
        sample: list[int] = []
        while len(sample) < len(taken):
            start = random.randrange(len(taken))
            sample += around[start : start + _BLOCK]
        samples.append(sample[: len(taken)])
    return samples
