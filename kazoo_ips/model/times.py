"""Kazoo's times: Gregorian seconds."""

from collections.abc import Callable

GREGORIAN_EPOCH = 62_167_219_200
"""Seconds from the year 0, the epoch of Erlang's and Kazoo's times, to 1970, the epoch of Unix."""


def gregorian(clock: Callable[[], float]) -> Callable[[], int]:
    """Return a clock in Gregorian seconds.

    :param clock: returns the time in Unix seconds
    """

    def now() -> int:
        return int(clock()) + GREGORIAN_EPOCH

    return now
