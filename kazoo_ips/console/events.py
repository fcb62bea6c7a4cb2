"""The events of addresses: the latest ones of the pool, and the tenures of an account."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from flask import request

from kazoo_ips.api import fields, queries, schemas
from kazoo_ips.api.route_descriptions import Who
from kazoo_ips.api.routes import services
from kazoo_ips.console import forms, parts
from kazoo_ips.console.pages import account_of, caller, is_partial, page, pages
from kazoo_ips.console.parts import Part
from kazoo_ips.errors import AccountNotFound, ValidationFailed
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.timelines import EventPage, ListEvents

_GROUPED = 10
"""Number of events that are read for each group: most requests change fewer addresses."""


@pages.on("GET", "/history", who=Who.OPERATOR)
def show_history() -> str:
    """The events of all addresses, the latest first."""
    query, problem = _query()
    account, unknown = forms.account_named(request.args.get("account", ""))
    problem = problem or unknown
    query = replace(query, account_id=account.id if account else None, limit=queries.PAGE)
    found = parts.read(
        events=Part("the events", lambda: _named(query)),
        zones=Part("the names of the zones", services().lists.zones, ()),
    )
    events, names = found["events"] or (EventPage(()), {})
    return page(
        "_events.html" if is_partial() else "history.html",
        events=() if problem else events.items,
        names=names,
        next_page=forms.next_page(events.after),
        problem=problem,
        is_left_out=found["events"] is None,
        zones=found["zones"],
    )


def _named(query: ListEvents) -> tuple[EventPage, dict[str, str]]:
    """Return events, and the names of the accounts in them."""
    found = services().history.events(query)
    return found, names_in(found.items)


@pages.on("GET", "/accounts/<account_id>/history", who=Who.ACCOUNT)
def show_tenures(account_id: str) -> str:
    """The addresses that an account had and has."""
    account = account_of(account_id, "history")
    query, problem = _query()
    tenures = services().tenures
    found = parts.read(
        tenures=Part("the history", lambda: tenures.page(account_id, queries.PAGE, query.after))
    )["tenures"]
    return page(
        "_tenures.html" if is_partial() else "tenures.html",
        account=account,
        tenures=found.items if found else (),
        next_page=forms.next_page(found.after) if found else None,
        problem=problem,
        is_left_out=found is None,
    )


def _query() -> tuple[ListEvents, str]:
    """Return the filters of the URL, and what is wrong with them."""
    given = [(k, v) for k, v in forms.given() if k in ("zone", "from", "to", "start_key")]
    try:
        return queries.load_events(schemas.load_query((queries.AllEventsSchema(),), given)), ""
    except ValidationFailed as error:
        return ListEvents(), forms.problem(error)


class Group(NamedTuple):
    """Events of one kind that one request has made of several addresses.

    :param event: the latest one
    :param others: the number of the other ones
    """

    event: HistoryEvent
    others: int


def latest(limit: int, zone: str | None = None) -> dict[str, Any]:
    """Return the latest events of the pool or of a zone, and the names of the accounts in them.

    :param limit: the maximum number of groups
    """
    events = services().history.events(ListEvents(zone=zone, limit=limit * _GROUPED)).items
    groups = []
    for _, group in groupby(events, _cause):
        event, *others = group
        groups.append(Group(event, len(others)))
    return {"groups": groups[:limit], "names": names_in(events)}


def _cause(event: HistoryEvent) -> tuple[str, ...]:
    """Return what the events of one group have in common."""
    request = event.request_id or event.id
    return request, event.event, event.account_before or "", event.account_after or ""


def of_address(address: str) -> dict[str, Any]:
    """Return the latest events of an address that the caller may see, and the names in them.

    :raises IPNotFound: neither the pool nor the history has the address
    """
    start = request.args.get("start_key")
    after = schemas.load_query((queries.EventsSchema(),), [("start_key", start)]) if start else {}
    query = ListEvents(address=address, after=after.get("start_key"))
    found = services().history.of_address(query)
    events: Sequence[HistoryEvent] = found.items
    if not caller().is_operator:
        events = [seen for event in events if (seen := event.seen_by(_may_see))]
    next_key = fields.start_key(found.after) if found.after else None
    return {"items": events, "names": names_in(events), "next_key": next_key}


def _may_see(account_id: str) -> bool:
    try:
        return caller().may_see(services().accounts.fetch(account_id))
    except AccountNotFound:
        return False


def names_in(events: Iterable[HistoryEvent]) -> dict[str, str]:
    """Return the names of all accounts in these events, by id."""
    ids = {account_id for event in events for account_id in (*event.accounts, event.by.account_id)}
    return services().accounts.names({account_id for account_id in ids if account_id})
