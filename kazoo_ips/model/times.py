"""Kazoo's times: Gregorian seconds."""

from collections.abc import Callable

GREGORIAN_EPOCH = 62_167_219_200
"""Seconds from the epoch of Gregorian seconds, the year 0, to that of Unix seconds, 1970. Erlang's
`calendar` and Kazoo count Gregorian seconds."""


def gregorian(clock: Callable[[], float]) -> Callable[[], int]:
    """Return a clock: a function that returns the time in Gregorian seconds.

    :param clock: returns the time in Unix seconds
    """

    def now() -> int:
        return int(clock()) + GREGORIAN_EPOCH

    return now
