"""Low zones: zones with few available addresses. Standard library only."""

from typing import NamedTuple

_RECOVERED = 1.5
"""A low zone recovers above this multiple of the percentage at which it became low. Without this
distance, each assignment and release of one address could be two events."""


class LowMark(NamedTuple):
    """Whether a zone is low, and the latest event about that.

    :param since: when it became low or recovered, in Gregorian seconds
    :param event_id: the id of the event
    :param available: the number of available addresses at the event
    :param total: the number of all addresses at the event
    :param low_percent: the percentage at which the zone was low at the event
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

    :param available: the number of available addresses
    :param total: the number of all addresses
    :param percent: the percentage of available addresses at which it becomes low; 0 is never
    :param was_low: whether it is low already. Then it recovers at a higher percentage
    """
    if percent <= 0 or total <= 0:
        return False
    # The limit is at most halfway between the percentage and 100, so that every zone can recover.
    limit = min(percent * _RECOVERED, (percent + 100) / 2) if was_low else percent
    return available * 100 <= limit * total
