"""Stamps: when, in which request and by whom a change of an address was made."""

from typing import NamedTuple, NotRequired, TypedDict

from kazoo_ips.model.history import NOBODY, Author
from kazoo_ips.model.trail import RECENT_SECONDS, Trail


class Stamp(NamedTuple):
    """When a change was made, in which request, and by whom.

    :param at: the time in Gregorian seconds
    :param by: who made the change
    :param keyed: whether the request has an Idempotency-Key. Then a later attempt of the request
        may need the event, which stays in the trail for `KEY_SECONDS`
    """

    at: int
    request_id: str
    by: Author = NOBODY
    keyed: bool = False


class StampFields(TypedDict):
    """The fields of a `Stamp`, as keyword arguments."""

    at: int
    request_id: str
    by: NotRequired[Author]
    keyed: NotRequired[bool]


def ordered(stamp: Stamp, trail: Trail) -> Stamp:
    """Return a stamp that is not earlier than the events of a trail.

    A request takes its time before it reads the address, and another request may write it in
    between, by a clock that is a little ahead. The history is ordered by time. If the clock was
    set back by more than `RECENT_SECONDS`, the stamp keeps its time.
    """
    latest = max((event.at for event in trail), default=0)
    return stamp._replace(at=latest) if 0 < latest - stamp.at <= RECENT_SECONDS else stamp
