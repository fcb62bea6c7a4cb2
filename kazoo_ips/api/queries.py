"""The queries of lists, of summaries and of the feed, converted to commands.

An error lists all broken rules.
"""

import math
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, ValidationError, validates_schema

from kazoo_ips.api import examples
from kazoo_ips.api.fields import (
    EventKey,
    Family,
    Flag,
    Label,
    NameKey,
    Network,
    Number,
    ShortListKey,
    StartKey,
    Text,
    Time,
    broken,
)
from kazoo_ips.api.schemas import RequestSchema
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import ListAccounts, ListIPs, Status
from kazoo_ips.model.timelines import ListEvents

MAX_PAGE = 1000
PAGE = 50
MAX_IDS = 100
"""Maximum number of ids in a query: most servers accept URLs of 8 kB."""
MAX_WAIT = 50
"""Maximum seconds that a reply waits for an event: proxies wait for a minute."""
ANY_STATUS = "all"
"""The value of `status` that means the addresses of every status."""


class ChangesSchema(RequestSchema):
    """The query of the feed of events."""

    since = Text(
        most=8000,
        metadata={
            "description": "The position after which the feed is read: `since` of an earlier "
            "reply; `0`, the default, is before the oldest event; `now` is the present end",
            "examples": ["0"],
        },
    )
    limit = Number(most=MAX_PAGE, metadata={"description": "Events of a reply; 100 by default"})
    feed = Text(
        one_of=("normal", "longpoll", "eventsource"),
        metadata={
            "description": "`normal`, the default: the service replies at once. `longpoll`: if "
            "there is no event, the service waits for one. `eventsource`: Server-Sent Events"
        },
    )
    timeout = Number(
        most=MAX_WAIT,
        metadata={
            "description": "Seconds after which a long poll ends without events, 30 by default, "
            "or after which a stream ends"
        },
    )


_START_KEY = {"description": "The `next_start_key` of the previous page"}


def _also(name: str) -> dict[str, str]:
    return {"description": f"The same as `{name}`, as in Crossbar"}


class PagedSchema(RequestSchema):
    """The query of a list that has pages."""

    page_size = Number(
        most=MAX_PAGE, metadata={"description": f"Lines on each page; {PAGE} by default"}
    )
    start_key: Any = StartKey(metadata=_START_KEY)
    paginate = Flag(metadata={"description": "`false`: the whole list in one reply"})


class ShortListSchema(PagedSchema):
    """The query of a list that is read as a whole: jobs, reservations."""

    start_key = ShortListKey(metadata=_START_KEY)


class ListSchema(PagedSchema):
    """The query of a list of addresses."""

    zone = Text(
        least=0,
        metadata={"description": "Only addresses of this zone", "examples": [examples.ZONE]},
    )
    filter_zone = Text(least=0, metadata=_also("zone"))
    host = Text(least=0, metadata={"description": "Only addresses of this host"})
    filter_host = Text(least=0, metadata=_also("host"))
    cidr = Network(
        metadata={
            "description": "Only addresses of this CIDR block; one address is a block too",
            "examples": ["192.0.2.0/24"],
        }
    )
    family = Family(metadata={"description": "Only IPv4 or only IPv6 addresses"})
    modified_from = Time(
        metadata={
            "description": "Only addresses that were changed at this time or later: Gregorian "
            "seconds, or ISO 8601, in UTC if it has no offset",
            "examples": ["2026-11-01T00:00:00Z"],
        }
    )
    quantity = Number(
        metadata={"description": "Number of addresses, from the first; without pages"}
    )


_FILTERS = {"zone": "zone", "host": "host", "status": "status", "assigned_to": "account_id"}
"""Members of a dedicated IP, each with the parameter that means the same as Crossbar's parameter
`filter_` with the member's name."""
_NO_ADDRESS = ("g", "")
"""A range of sort keys that contains no address."""


class AvailableSchema(ListSchema):
    """The query of the available addresses."""

    status = Text(
        one_of=("available",), metadata={"description": "The status of all of this list"}
    )
    filter_status = Text(one_of=("available",), metadata=_also("status"))


class AssignedSchema(ListSchema):
    """The query of the assigned addresses of an account."""

    status = Text(one_of=("assigned",), metadata={"description": "The status of all of this list"})
    filter_status = Text(one_of=("assigned",), metadata=_also("status"))


class AccountAssignedSchema(AssignedSchema):
    """The query of the assigned addresses of an account, and on request of those below it."""

    descendants = Flag(
        metadata={
            "description": "Also the addresses of the accounts below it, sorted by account. Each "
            "line then has the account and its name"
        }
    )


_OWNER = {"description": "Only addresses of this account"}
_LABEL = {"description": "Only addresses with this label", "examples": [":".join(examples.LABEL)]}


class AllAssignedSchema(AssignedSchema):
    """The query of the assigned addresses of all accounts."""

    label = Label(metadata=_LABEL)
    account_id = Text(least=0, metadata=_OWNER)
    filter_assigned_to = Text(least=0, metadata=_also("account_id"))


class PoolSchema(ListSchema):
    """The query of the pool."""

    status = Text(
        least=0,
        metadata={
            "description": "The status of the addresses, or `all`. By default `available`; with "
            "`account_id`, `assigned`; with `label`, `all`",
            "examples": ["all", "assigned"],
        },
    )
    filter_status = Text(least=0, metadata=_also("status"))
    label = Label(metadata=_LABEL)
    account_id = Text(least=0, metadata=_OWNER)
    filter_assigned_to = Text(least=0, metadata=_also("account_id"))


class AccountsSchema(PagedSchema):
    """The query of the list of accounts."""

    start_key = Text(metadata=_START_KEY)
    account = Text(
        metadata={
            "description": "Only accounts that have this id, realm or name, as in commands",
            "examples": [examples.ACCOUNT_ID],
        }
    )
    ids = Text(
        most=40 * MAX_IDS,
        metadata={
            "description": f"Only accounts with these ids: at most {MAX_IDS}, separated by commas"
        },
    )


_TIME = "Gregorian seconds, or ISO 8601, in UTC if it has no offset"
_BETWEEN = {
    "from": Time(
        metadata={
            "description": f"Only events at this time or later: {_TIME}",
            "examples": ["2026-11-01T00:00:00Z"],
        }
    ),
    "to": Time(metadata={"description": f"Only events before this time: {_TIME}"}),
}


class TenuresSchema(PagedSchema):
    """The query of the history of an account."""

    start_key = EventKey(metadata=_START_KEY)


class EventsSchema(TenuresSchema):
    """The query of a list of events."""

    class Meta:
        """`from` is a keyword in Python, so it cannot be an attribute."""

        unknown = EXCLUDE
        include = _BETWEEN


class AddressEventsSchema(EventsSchema):
    """The query of the history of an address."""

    class Meta:
        """As in `EventsSchema`."""

        unknown = EXCLUDE
        include = _BETWEEN

    at = Time(
        rounding=math.floor,
        metadata={"description": f"Return who had the address then, and no events: {_TIME}"},
    )


class AllEventsSchema(EventsSchema):
    """The query of the history of all addresses."""

    class Meta:
        """As in `EventsSchema`."""

        unknown = EXCLUDE
        include = _BETWEEN

    account_id = Text(
        metadata={
            "description": "Only events after or before which this account had the address: its "
            "id, realm or name"
        }
    )
    zone = Text(
        metadata={
            "description": "Only events after or before which the address was in this zone",
            "examples": [examples.ZONE],
        }
    )


class ExportSchema(RequestSchema):
    """The query of the export."""

    history = Flag(metadata={"description": "`false`: leave out the events of the history"})


class SummaryPageSchema(PagedSchema):
    """The query of the summary of an account."""

    start_key = NameKey(metadata=_START_KEY)


class SummarySchema(SummaryPageSchema):
    """The query of the summary of the pool."""

    by = Text(
        one_of=("status", "zone", "host", "account"),
        metadata={"description": "One line for each of these; by default the whole pool"},
    )
    zone = Text(
        metadata={
            "description": "Only addresses of this zone; not with `by=account`",
            "examples": [examples.ZONE],
        }
    )

    @validates_schema
    def no_zone_of_accounts(self, data: dict[str, Any], **_: Any) -> None:
        """:raises ValidationError: the counts of accounts of one zone are requested"""
        if "zone" in data and data.get("by") == "account":
            text = "only one of zone and by=account"
            raise ValidationError(broken("forbidden", text).messages, "zone")


def is_paged(given: Mapping[str, Any], *, everything: bool = False) -> bool:
    """Return whether the reply to a request for a list is one page of it.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    """
    if everything and not {"page_size", "start_key"} & given.keys():
        return False
    return bool(given.get("paginate", True))


def load_list(given: Mapping[str, Any], *, everything: bool = False) -> ListIPs:
    """Return the command to list addresses.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    """
    paged = "quantity" not in given and is_paged(given, everything=everything)
    filters: dict[str, str | None] = {}
    ranges = [given[name] for name in ("cidr", "family") if name in given]
    for member, name in _FILTERS.items():
        both = (given.get(name), given.get(f"filter_{member}"))
        values = {str(value) for value in both if value}
        if len(values) > 1:  # no address matches both
            ranges.append(_NO_ADDRESS)
        filters[name] = min(values, default=None)
    after = given.get("start_key") if paged else None
    if after and len(after) > 3 and not given.get("descendants"):
        rule = {"message": "Field is not in the correct format"}
        raise ValidationFailed({"start_key": {"wrong_format": rule}})
    implied = Status.AVAILABLE if not given.get("label") else ANY_STATUS
    status = filters["status"] or (Status.ASSIGNED if filters["account_id"] else implied)
    return ListIPs(
        **{**filters, "status": None if status == ANY_STATUS else status},
        between=(max(r[0] for r in ranges), min(r[1] for r in ranges)) if ranges else None,
        modified_from=given.get("modified_from"),
        label=given.get("label"),
        limit=given.get("page_size", PAGE) if paged else given.get("quantity"),
        after=after and after[:3],
        after_account=after[3] if after and len(after) > 3 else None,
        paged=paged,
    )


def load_summary(
    given: Mapping[str, Any], *, everything: bool = False
) -> tuple[str | None, int | None]:
    """Return the name after which a list of summaries starts, and its maximum number of lines.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    :returns: None for the start, and None for no limit
    """
    if not is_paged(given, everything=everything):
        return None, None
    return given.get("start_key"), given.get("page_size", PAGE)


def load_accounts(given: Mapping[str, Any]) -> ListAccounts:
    """Return the command to list accounts.

    :param given: the query, as `load_query` returns it
    :raises ValidationFailed: the query has both `account` and `ids`, or too many ids
    """
    name, ids = given.get("account"), given.get("ids")
    if name is not None and ids is not None:
        rule = {"message": "either account or ids", "value": ids}
        raise ValidationFailed({"ids": {"forbidden": rule}})
    listed = None if ids is None else tuple(dict.fromkeys(filter(None, ids.split(","))))
    if listed and len(listed) > MAX_IDS:
        text = f"Array must have at most {MAX_IDS} items"
        raise ValidationFailed({"ids": {"maxItems": {"message": text, "target": MAX_IDS}}})
    limit = given.get("page_size", PAGE) if given.get("paginate", True) else None
    return ListAccounts(name, listed, limit, given.get("start_key"))


def load_events(given: Mapping[str, Any], *, everything: bool = False) -> ListEvents:
    """Return the command to list events.

    :param given: the query, as `load_query` returns it
    :param everything: whether a query without page_size and start_key means the whole list
    :raises ValidationFailed: the end is not later than the beginning, or the query has `at` and
        other parameters
    """
    since, until = given.get("from"), given.get("to")
    if since is not None and until is not None and since >= until:
        text = "Value must be later than `from`"
        raise ValidationFailed({"to": {"minimum": {"message": text, "value": until}}})
    others = sorted({*given} - {"at"})
    if "at" in given and others:
        text = "only one of at and " + ", ".join(others)
        raise ValidationFailed({"at": {"forbidden": {"message": text, "target": others}}})
    paged = is_paged(given, everything=everything)
    return ListEvents(
        zone=given.get("zone"),
        since=since,
        until=until,
        limit=given.get("page_size", PAGE) if paged else None,
        after=given.get("start_key") if paged else None,
        paged=paged,
    )
