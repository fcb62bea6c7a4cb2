"""Times as texts: Gregorian seconds, as everywhere in Crossbar, and ISO 8601."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from kazoo_ips.model import GREGORIAN_EPOCH

LATEST = 999_999_999_999
"""The latest time that a text can name, in Gregorian seconds."""
_SECONDS = re.compile(r"[0-9]{1,12}")
_YEAR_1 = datetime(1, 1, 1, tzinfo=UTC)
_SECONDS_OF_YEAR_0 = 366 * 86_400
"""The Gregorian calendar begins with the year 0, a leap year. Python's begins with the year 1."""
NEITHER = "neither Gregorian seconds nor ISO 8601"


def parse(text: str, rounding: Callable[[float], int] = math.ceil) -> int:
    """Return a time in Gregorian seconds. Without an offset, ISO 8601 is in UTC.

    :param rounding: makes whole seconds of a time with a fraction
    :raises ValueError: the text is no time

    >>> parse("2026-11-27T13:00:00+01:00"), parse("63963000000")
    (63963000000, 63963000000)
    """
    if _SECONDS.fullmatch(text):
        return int(text)
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    try:
        return rounding(time.timestamp()) + GREGORIAN_EPOCH
    except OverflowError as error:
        raise ValueError(text) from error


def date(day: int) -> str:
    """Return a day in ISO 8601.

    :param day: the number of days since the first of January of year 0

    >>> date(63_963_000_000 // 86_400)
    '2026-11-27'
    """
    seconds = day * 86_400 - _SECONDS_OF_YEAR_0
    return (_YEAR_1 + timedelta(seconds=seconds)).date().isoformat()


def iso_8601(at: int) -> str | None:
    """Return a time in ISO 8601, in UTC; None if no calendar has it.

    :param at: in Gregorian seconds

    >>> iso_8601(63_963_000_000)
    '2026-11-27T12:00:00Z'
    """
    try:
        time = _YEAR_1 + timedelta(seconds=at - _SECONDS_OF_YEAR_0)
    except OverflowError:
        return None
    return f"{time.replace(tzinfo=None).isoformat()}Z"
