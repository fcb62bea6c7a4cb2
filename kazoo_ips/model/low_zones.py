"""When a zone has few available addresses. Standard library only."""

from typing import NamedTuple

_RECOVERED = 1.5
"""A zone that is low recovers above this multiple of the percentage at which it became low. So an
address that is taken and given back again does not make two events each time."""


class LowMark(NamedTuple):
    """Whether a zone is low, and the event that has said so.

    :param since: when it became low or recovered, in Gregorian seconds
    :param event_id: the id of the event
    :param published: whether the event is known to be in the archive
    """

    low: bool
    since: int
    event_id: str
    available: int
    total: int
    low_percent: float
    published: bool = False


def is_low(available: int, total: int, percent: float, *, was_low: bool) -> bool:
    """Return whether a zone is low.

    :param percent: the percentage of available addresses at which it becomes low; 0 is never
    :param was_low: whether it is low already; then it takes more addresses to recover
    """
    if percent <= 0 or total <= 0:
        return False
    # In the middle between the percentage and 100 at most, so that every zone can recover.
    limit = min(percent * _RECOVERED, (percent + 100) / 2) if was_low else percent
    return available * 100 <= limit * total
