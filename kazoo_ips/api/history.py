"""The history of addresses: their events, who had one, and what an account had."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from flask import Response, g

from kazoo_ips.api import envelope, examples, lists, queries
from kazoo_ips.api import history_resources as resources
from kazoo_ips.api.event_resources import EVENTS
from kazoo_ips.api.route_descriptions import CSV, NDJSON, Who
from kazoo_ips.api.routes import Routes, services
from kazoo_ips.errors import BadIdentifier, ValidationFailed
from kazoo_ips.model.timelines import EventPage, EventPosition, ListEvents
from kazoo_ips.services.history import json_objects
from kazoo_ips.services.history.queries import walk

routes = Routes("history", __name__, url_prefix="/v2")


@routes.on(
    "GET",
    "/ips/<address:address>/history",
    who=Who.OPERATOR,
    replies=(EVENTS, resources.HolderSchema()),
    query=queries.AddressEventsSchema,
    csv=True,
    operation_id="get_ip_history",
    examples={"address": examples.ASSIGNED[0]},
    links=("get_pool_ip",),
)
def of_address(address: str) -> Response:
    """The events of one address, the latest first; with `at`, who had it at that time.

    The history keeps the events of a deleted address.
    """
    query = queries.load_events(g.query, everything=g.media == CSV)
    if "at" in g.query:
        holder = services().history.holder(address, g.query["at"])
        names = services().accounts.names({holder.account_id} if holder.account_id else set())
        line = json_objects.of_holder(holder, names)
        if g.media == CSV:
            return _csv(json_objects.HOLDER_COLUMNS, [line])
        return envelope.success(line)
    return _events(services().history.of_address, replace(query, address=address))


@routes.on(
    "GET",
    "/ips/history",
    who=Who.OPERATOR,
    replies=EVENTS,
    query=queries.AllEventsSchema,
    csv=True,
    operation_id="list_ip_history",
    links=("get_pool_ip",),
)
def of_all() -> Response:
    """The events of all addresses, the latest first, or those of an account or a zone."""
    query = queries.load_events(g.query, everything=g.media == CSV)
    given = g.query.get("account_id")
    account_id = None if given is None else _account_id(given)
    return _events(services().history.events, replace(query, account_id=account_id))


@routes.on(
    "GET",
    "/ips/history/years",
    who=Who.OPERATOR,
    replies=resources.YEARS,
    operation_id="list_history_years",
)
def years() -> Response:
    """The years of which the history has a database, in ascending order."""
    return envelope.success(services().history.years())


@routes.on(
    "GET",
    "/ips/history/years/<year>",
    who=Who.OPERATOR,
    replies=None,
    media=NDJSON,
    media_types=(NDJSON, CSV),
    csv=True,
    operation_id="export_history_year",
)
def of_year(year: str) -> Response:
    """All events in the database of a year, the earliest first, as NDJSON or as CSV.

    The database of the oldest year also has the events of all years before it. The reply is a
    stream of any length.
    """
    if year not in map(str, services().history.years()):
        raise BadIdentifier(year)
    found = map(json_objects.of_event, services().history.export(int(year)))
    if g.media == CSV:
        return _csv(json_objects.EVENT_COLUMNS, found)
    return lists.ndjson_reply(found)


@routes.on(
    "GET",
    "/accounts/<account_id>/ips/history",
    who=Who.ACCOUNT,
    replies=resources.TENURES,
    query=queries.TenuresSchema,
    csv=True,
    operation_id="list_tenures",
    links=("get_ip",),
)
def of_account(account_id: str) -> Response:
    """The addresses that the account had or has, each with the beginning and the end.

    The address that it got last comes first. Those whose beginning the history does not know come
    last.
    """
    query = queries.load_events(g.query, everything=g.media == CSV)
    dump, service = json_objects.of_tenure, services().tenures
    if query.limit is None:
        found = map(dump, service.all(account_id))
        return _csv(json_objects.TENURE_COLUMNS, found) if g.media == CSV else _stream(found)
    page = service.page(account_id, query.limit, query.after)
    return _page([dump(each) for each in page.items], page.after, json_objects.TENURE_COLUMNS)


def _account_id(given: str) -> str:
    """Return the id of an account that a parameter names.

    :raises ValidationFailed: no account or several have that name
    """
    found = services().accounts.ids(given)
    if len(found) == 1:
        return str(found[0])
    rule = "not_found" if not found else "ambiguous"
    text = "no account has this id, realm or name" if not found else "several accounts match"
    more = {"target": sorted(found)} if found else {}
    raise ValidationFailed({"account_id": {rule: {"message": text, "value": given, **more}}})


def _events(list_page: Callable[[ListEvents], EventPage], query: ListEvents) -> Response:
    columns = json_objects.EVENT_COLUMNS
    if query.limit is None:
        found = map(json_objects.of_event, walk(list_page, query))
        return _csv(columns, found) if g.media == CSV else _stream(found)
    page = list_page(query)
    return _page([json_objects.of_event(event) for event in page.items], page.after, columns)


def _page(
    found: Sequence[dict[str, Any]], after: EventPosition | None, columns: list[str]
) -> Response:
    if g.media == CSV:
        return _csv(columns, found)
    return lists.page_reply(found, after)


def _stream(found: Iterator[dict[str, Any]]) -> Response:
    return envelope.stream(lists.chunks(found))


def _csv(columns: list[str], found: Iterable[dict[str, Any]]) -> Response:
    return lists.csv_reply(columns, (json_objects.csv_line(each, columns) for each in found))
