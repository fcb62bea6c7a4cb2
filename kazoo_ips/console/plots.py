"""Plots of the use of a zone over time.

The server draws them as SVG. With JavaScript, uPlot draws them again from the same numbers, so
that the numbers of each day can be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kazoo_ips.console.formats import ordered
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.usage import DAY, UsageSeries

WIDTH, HEIGHT = 720, 200
"""The size of the drawing, in its own units."""
_AHEAD = 45
"""Maximum number of days that a plot shows of the future."""


@dataclass(frozen=True)
class Area:
    """The addresses of one status, on top of those of the statuses before it.

    :param points: the corners of a polygon, as SVG writes them
    """

    status: str
    points: str


@dataclass(frozen=True)
class UsePlot:
    """The use of a zone.

    :param first: the first day, in Gregorian seconds
    :param today: the last day with numbers
    :param last: the last day of the plot
    :param top: the number at the upper edge
    :param now: where today is, from the left
    :param forecast: the line of the forecast, as SVG writes it; empty without a forecast
    :param data: the numbers, for uPlot
    """

    first: int
    today: int
    last: int
    top: int
    now: float
    areas: Sequence[Area]
    forecast: str
    data: dict[str, Any]


def use_of(series: UsageSeries) -> UsePlot | None:
    """Return the plot of a zone; None if it has no history of several days."""
    days = len(series.days)
    if days < 2 or not series.counts:
        return None
    ahead = _days_ahead(series)
    names = ordered(series.counts)
    levels = _stacked([series.counts[name] for name in names])
    top = max(*levels[-1], 1)
    last = days - 1 + ahead
    across = [WIDTH * day / last for day in range(days)]
    floor, areas = [0] * days, []
    for name, level in zip(names, levels, strict=True):
        upper = [(x, _y(n, top)) for x, n in zip(across, level, strict=True)]
        lower = [(x, _y(n, top)) for x, n in zip(across, floor, strict=True)]
        areas.append(Area(name, _points([*upper, *reversed(lower)])))
        floor = level
    taken = levels[-1][-1] - _left(series)
    start, end = (across[-1], _y(taken, top)), (WIDTH, _y(_reached(series, taken, ahead), top))
    first = series.first * DAY
    return UsePlot(
        first,
        first + (days - 1) * DAY,
        first + last * DAY,
        top,
        round(across[-1], 1),
        areas,
        _points([start, end]) if ahead else "",
        _data(series, names, taken, ahead),
    )


def _data(series: UsageSeries, names: Sequence[str], taken: int, ahead: int) -> dict[str, Any]:
    """Return the numbers of the plots, with times in Unix seconds."""
    known = len(series.days)
    times = [(series.first + day) * DAY - GREGORIAN_EPOCH for day in range(known + ahead)]
    rate = series.forecast.rate if series.forecast else 0
    future = [round(taken + rate * day, 1) for day in range(ahead + 1)]
    return {
        "times": times,
        "known": known,
        "statuses": {name: list(series.counts[name]) for name in names},
        "forecast": future if ahead else [],
        "assigned": list(series.assigned),
        "released": list(series.released),
    }


def _days_ahead(series: UsageSeries) -> int:
    """Return how many days of the future the plot shows: until the zone runs out."""
    if series.forecast is None:
        return 0
    return min(max(series.forecast.day - series.days[-1], 1), _AHEAD)


def _left(series: UsageSeries) -> int:
    return sum(series.counts[name][-1] for name in ("available", "aging") if name in series.counts)


def _reached(series: UsageSeries, taken: int, ahead: int) -> float:
    rate = series.forecast.rate if series.forecast else 0
    return taken + rate * ahead


def _stacked(levels: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return each sequence with all sequences before it added."""
    found: list[list[int]] = []
    for level in levels:
        below = found[-1] if found else [0] * len(level)
        found.append([a + b for a, b in zip(below, level, strict=True)])
    return found


def _y(number: float, top: int) -> float:
    return HEIGHT - HEIGHT * min(number, top) / top


def _points(corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
