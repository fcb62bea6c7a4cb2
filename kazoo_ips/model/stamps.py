"""Stamps: when, in which request and by whom a change of an address was made."""

from typing import NamedTuple, NotRequired, TypedDict

from kazoo_ips.model.history import NOBODY, Author


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
