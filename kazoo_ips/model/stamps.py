"""What every change of an address records: when, in which request, and by whom."""

from typing import NamedTuple, NotRequired, TypedDict

from kazoo_ips.model.history import NOBODY, Author


class Stamp(NamedTuple):
    """When a change was made, in which request, and by whom.

    :param at: the time in Gregorian seconds
    :param by: who has made it
    :param keyed: whether the request has an Idempotency-Key, so that a later attempt looks for the
        event
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
