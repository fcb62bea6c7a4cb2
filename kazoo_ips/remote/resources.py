"""JSON resources of the API as models: the reverse of `api/resources.py` and of
`services/history/json_objects.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from typing import Any, cast

from kazoo_ips.model import Account, Disabled, Listing, Scope
from kazoo_ips.model.history import Author, HistoryEvent, PoolLevel, Source, State
from kazoo_ips.model.timelines import Holder
from kazoo_ips.model.usage import Forecast
from kazoo_ips.services.pool.bulk_additions import AdditionOutcome

Resource = Mapping[str, Any]
_YEAR_0 = 365
"""The days from the first of January of year 0 to the day before that of year 1."""


@dataclass(frozen=True, slots=True)
class Addition:
    """The result of adding one address, as `AdditionResult`.

    :param ip: the address in the pool; None if it does not exist, or that is unknown
    """

    outcome: AdditionOutcome
    ip: Listing | None = None


def account(given: Resource) -> Account:
    """Return an account. The API returns no secrets."""
    return Account(
        id=given["id"],
        name=given["name"],
        realm=given["realm"],
        tree=tuple(given["tree"]),
        enabled=given["enabled"],
        expires=given["expires"],
        operator=given["operator"],
        reseller_id=given["reseller_id"],
        is_reseller=given["is_reseller"],
        language=given["language"],
    )


def listing(given: Resource) -> Listing:
    """Return a dedicated IP, or a line of a list."""
    return Listing(
        given["ip"],
        given["zone"],
        given["host"],
        given.get("assigned_to"),
        given.get("status", ""),
    )


def cidr(between: tuple[str, str]) -> str:
    """Return the CIDR block whose addresses have sort keys from the first to the second.

    :raises ValueError: no single block has exactly these
    """
    kind = IPv4Address if between[0].startswith("4") else IPv6Address
    first, last = (kind(int(key[1:], 16)) for key in between)
    [block] = summarize_address_range(first, last)
    return str(block)


def addition(given: Resource) -> Addition:
    """Return the result of adding one address."""
    place = Listing(given["ip"], given["zone"], given["host"]) if "zone" in given else None
    return Addition(AdditionOutcome(given["result"]), place)


def event(given: Resource) -> HistoryEvent:
    """Return an event of the history."""
    return HistoryEvent(
        id=given["id"],
        address=given.get("ip", ""),
        event=given["event"],
        at=given["at"],
        account_id=given.get("account_id"),
        before=_state(given.get("before")),
        after=_state(given.get("after")),
        by=author(given),
        request_id=given.get("request_id"),
        source=cast(Source, given["source"]),  # or the name of one that only a newer release knows
        certain=given["certain"],
        revision=given.get("revision"),
        retracts=given.get("retracts"),
        reason=given.get("reason"),
        level=PoolLevel(*(given[name] for name in PoolLevel._fields)) if "zone" in given else None,
    )


def holder(given: Resource) -> Holder:
    """Return who had an address at a time."""
    return Holder(
        given["ip"],
        given.get("status"),
        given.get("account_id"),
        given.get("since"),
        given.get("until"),
        given["certain"],
        author(given),
        given.get("request_id"),
    )


def _state(given: Resource | None) -> State | None:
    if given is None:
        return None
    return State(given["status"], given.get("account_id"), given["zone"], given["host"])


def forecast(given: Resource | None) -> Forecast | None:
    """Return when a zone or the pool has no address left."""
    if given is None:
        return None
    earliest, latest = given["between"]
    return Forecast(
        day(given["date"]),
        day(earliest),
        None if latest is None else day(latest),
        given["rate_per_day"],
    )


def day(text: str) -> int:
    """Return a date as the number of days since the first of January of year 0."""
    return date.fromisoformat(text).toordinal() + _YEAR_0


def disabled(given: Resource, scope: Scope) -> Disabled:
    """Return why something is disabled.

    :param scope: what is disabled
    """
    return Disabled(given["reason"], given["at"], author(given), scope)


def author(given: Resource) -> Author:
    """Return the author of a change; without members if the author is unknown."""
    by = given.get("by", {})
    return Author(**{name: by.get(name) for name in Author._fields})
