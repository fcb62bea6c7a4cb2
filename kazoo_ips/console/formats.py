"""Filters of the templates: times, numbers, and the parts of a bar."""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from flask import Blueprint

from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.services.history.times import iso_8601

_UNITS = ((86_400 * 365, "year"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
STATUSES = ("assigned", "reserved", "aging", "disabled", "available")
"""The statuses in the order of a bar. Statuses that this release does not know come after them."""


class BarSegment(NamedTuple):
    """A part of a bar.

    :param start: where it begins, in percent of the bar
    :param width: in percent of the bar
    """

    status: str
    number: int
    start: float
    width: float


def now() -> int:
    """Return the time in Gregorian seconds."""
    return int(time.time()) + GREGORIAN_EPOCH


def iso(at: int | None) -> str:
    """Return a time in ISO 8601; empty if there is none.

    :param at: in Gregorian seconds
    """
    return (iso_8601(at) or "") if at is not None else ""


def moment(at: int | None) -> str:
    """Return a time as people read it, in UTC.

    :param at: in Gregorian seconds

    >>> moment(63_963_000_000)
    '2026-11-27 12:00'
    """
    text = iso(at)
    return text[:16].replace("T", " ") if text else "not known"


def ago(at: int | None, until: int | None = None) -> str:
    """Return how long ago a time was, or how far ahead it is, in its largest unit.

    :param at: in Gregorian seconds

    >>> ago(100, 100 + 7200), ago(200, 100)
    ('2 hours ago', 'in 1 minute')
    """
    if at is None:
        return "not known"
    seconds = (now() if until is None else until) - at
    if abs(seconds) < 10:
        return "now"
    text = duration(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def duration(seconds: int) -> str:
    """Return a time span in its largest unit."""
    size, name = next(unit for unit in _UNITS if seconds >= unit[0] or unit[0] == 1)
    count = seconds // size
    return f"{count} {name}{'s' * (count != 1)}"


def number(value: int) -> str:
    """Return a number with a space before each three digits: `100 000`."""
    return f"{value:,}".replace(",", "\u202f")


def parts(counts: Mapping[str, int]) -> list[BarSegment]:
    """Return the parts of a bar that shows how many addresses have each status."""
    total, start, made = sum(counts.values()), 0.0, []
    for status in ordered(counts):
        width = 100 * counts[status] / total if total else 0
        if counts[status]:
            made.append(BarSegment(status, counts[status], round(start, 3), round(width, 3)))
        start += width
    return made


def ordered(counts: Collection[str]) -> Sequence[str]:
    """Return the statuses in the order of a bar."""
    others = sorted(set(counts) - set(STATUSES))
    return [*(status for status in STATUSES if status in counts), *others]


def status_class(status: str) -> str:
    """Return the CSS class of a status."""
    return f"s-{status if status in STATUSES else 'other'}"


def capfirst(text: str) -> str:
    """Return a text with its first letter in upper case, and the rest as it is."""
    return text[:1].upper() + text[1:]


def percent(part: int, whole: int) -> str:
    """Return a share in whole percent. `100` means exactly all, and `0` exactly none."""
    if not whole or part in (0, whole):
        return "100" if whole and part else "0"
    return str(min(max(round(100 * part / whole), 1), 99))


def day(at: int | None) -> str:
    """Return the date of a time in UTC: `27 Nov 2026`.

    :param at: in Gregorian seconds
    """
    if at is None:
        return "not known"
    return f"{datetime.fromtimestamp(at - GREGORIAN_EPOCH, UTC):%-d %b %Y}"


_FILTERS = (
    capfirst, iso, moment, ago, duration, number, parts, ordered, status_class, percent, day,
)  # fmt: skip


def register(blueprint: Blueprint) -> None:
    """Add the filters to the templates."""
    for filter_ in _FILTERS:
        blueprint.add_app_template_filter(filter_)
