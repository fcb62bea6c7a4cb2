"""Lists of addresses as replies: one page, the first addresses, or the whole list; JSON or CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from flask import Response, g, request
from marshmallow.fields import String

from kazoo_ips.api import envelope, fields, queries, resources
from kazoo_ips.api.route_descriptions import CSV, NDJSON
from kazoo_ips.api.routes import services
from kazoo_ips.model import Listing, Status
from kazoo_ips.model.names import csv_cell
from kazoo_ips.services.history.json_objects import csv_line
from kazoo_ips.services.pool.lists import ListPage, walk, walk_chunks

_ACCOUNT_NAME: dict[str, Any] = {
    "metadata": {"description": "Name of the account; missing if it does not exist"}
}


class IPListItemSchema(resources.ReplySchema):
    """One line of a list."""

    ip = String(attribute="address", **resources.ADDRESS)
    zone = String(**resources.ZONE)
    host = String(**resources.HOST)


class AssignedIPListItemSchema(IPListItemSchema):
    """One line of a list of the addresses of all accounts."""

    assigned_to = String(**resources.OWNER)
    account_name = String(**_ACCOUNT_NAME)


class PoolIPListItemSchema(IPListItemSchema):
    """One line of a list of the pool.

    A list of available addresses has neither `status`, `assigned_to` nor `account_name`.
    """

    assigned_to = String(**{**resources.OWNER, "required": False})
    status = String(**{**resources.STATUS, "required": False})
    account_name = String(**_ACCOUNT_NAME)


LINES = IPListItemSchema(many=True)
OWNED_LINES = AssignedIPListItemSchema(many=True)
POOL_LINES = PoolIPListItemSchema(many=True)
"""The forms of a list: lines without the account, lines with the account, and lines with the
members that `detailed` of `reply` adds."""

_CHUNK = 1000
_NOT_PLAIN = ',;"'
"""Characters for which a cell of CSV needs quotes, or which `csv_cell` may escape."""
Item = TypeVar("Item")
Dump = Callable[[Sequence[Listing]], list[dict[str, Any]]]


def reply(list_page: ListPage, *, owner: bool = False, detailed: bool = False) -> Response:
    """Return the reply to a request for a list.

    :param list_page: returns one page of the list
    :param owner: whether each line has the account of the address and its name
    :param detailed: whether each line has the status, the account and its name, unless the query
        is for available addresses only
    """
    # A CSV file is usually stored, so it has all lines unless the query names a page.
    query = queries.load_list(g.query, everything=g.media == CSV)
    columns = ["ip", "zone", "host"]
    dump: Dump = _dump_own
    if detailed and query.status != Status.AVAILABLE:
        columns = ["ip", "zone", "host", "status", "assigned_to", "account_name"]
        dump = _with_names(dump_pool_listing)
    elif owner:
        columns = ["ip", "zone", "host", "assigned_to", "account_name"]
        dump = _with_names(dump_assigned_listing)
    if g.media == CSV:
        parts = [list_page(query).items] if query.paged else walk_chunks(list_page, query)
        if dump is _dump_own:
            return csv_rows(columns, map(_own_cells, filter(None, parts)))
        return csv_reply(columns, chain.from_iterable(map(dump, parts)))
    if query.limit is None or query.limit > queries.MAX_PAGE:
        return envelope.stream(map(dump, filter(None, walk_chunks(list_page, query))))
    if not query.paged:
        return envelope.success(dump([*walk(list_page, query)]))
    page = list_page(query)
    return page_reply(dump(page.items), page.key)


def short(
    items: Sequence[Item],
    position: Callable[[Item], tuple[int, str]],
    dump: Callable[[Item], dict[str, Any]],
    columns: list[str],
) -> Response:
    """Return the reply for a list that was read as a whole: a page, all of it, or CSV.

    :param items: all items, in the order of their positions
    :param dump: returns one of them as JSON
    :param columns: the members that CSV has
    """
    paged = queries.is_paged(g.query, everything=g.media == CSV)
    start = g.query.get("start_key") if paged else None
    left = [item for item in items if start is None or position(item) > start]
    shown = left[: g.query.get("page_size", queries.PAGE)] if paged else left
    lines = [dump(item) for item in shown]
    if g.media == CSV:
        return csv_reply(columns, (csv_line(line, columns) for line in lines))
    if not paged:
        return envelope.success(lines)
    return page_reply(lines, position(shown[-1]) if len(shown) < len(left) else None)


def page_reply(lines: Sequence[dict[str, Any]], after: tuple[object, ...] | None) -> Response:
    """Return one page of a list.

    :param after: the position of the next page; None if there is none
    """
    return envelope.success(
        lines,
        page_size=len(lines),
        start_key=request.args.get("start_key"),
        next_start_key=fields.start_key(after) if after else None,
    )


def dump_listing(listing: Listing) -> dict[str, Any]:
    """Return one line of a list of an account as JSON: an `IPListItemSchema`.

    Lists can have a million lines. A schema would take at least six times as long.
    """
    return {"ip": listing.address, "zone": listing.zone, "host": listing.host}


def dump_assigned_listing(listing: Listing, names: Mapping[str, str]) -> dict[str, Any]:
    """Return one line of a list as JSON, with the account of the address and its name.

    :param names: the names of accounts by id
    """
    line = dump_listing(listing)
    owner = listing.assigned_to
    if owner is not None:
        line["assigned_to"] = owner
        if owner in names:
            line["account_name"] = names[owner]
    return line


def dump_pool_listing(listing: Listing, names: Mapping[str, str]) -> dict[str, Any]:
    """Return one line of a list of the pool as JSON, with its status and its account.

    :param names: the names of accounts by id
    """
    line = dump_assigned_listing(listing, names)
    line["status"] = str(listing.status)
    return line


def _dump_own(listings: Sequence[Listing]) -> list[dict[str, Any]]:
    return [dump_listing(listing) for listing in listings]


def _own_cells(listings: Sequence[Listing]) -> list[Sequence[str]]:
    """Return the cells of `ip`, `zone` and `host`. `_dump_own` would take six times as long."""
    return [(line.address, line.zone, line.host) for line in listings]


def _with_names(dump: Callable[[Listing, Mapping[str, str]], dict[str, Any]]) -> Dump:
    """Return a function that dumps the parts of a list, and reads the name of each account once.

    :param dump: dumps one line, with the names of accounts by id
    """
    accounts = services().accounts  # a stream calls `dump_all` after the request context has ended
    known: dict[str, str] = {}
    looked_up: set[str] = set()

    def dump_all(listings: Sequence[Listing]) -> list[dict[str, Any]]:
        owners = {listing.assigned_to for listing in listings if listing.assigned_to}
        owners -= looked_up
        looked_up.update(owners)
        known.update(accounts.names(owners))
        return [dump(listing, known) for listing in listings]

    return dump_all


def names(column: str, values: list[str]) -> Response:
    """Return the reply with all names of zones or hosts.

    :param column: the header of the column in CSV
    """
    if g.media == CSV:
        return csv_reply([column], ({column: value} for value in values))
    return envelope.success(values)


def chunks(items: Iterator[Item]) -> Iterator[Sequence[Item]]:
    """Yield the items in lists of 1,000. The last list may be shorter."""
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def csv_reply(columns: list[str], lines: Iterable[dict[str, Any]]) -> Response:
    """Return lines as CSV, with a header, as a stream.

    :param lines: each with a text for each column
    """
    rows = ([line.get(column, "") for column in columns] for line in lines)
    return csv_rows(columns, chunks(rows))


def csv_rows(columns: list[str], parts: Iterable[Sequence[Sequence[str]]]) -> Response:
    """Return rows as CSV, with a header, as a stream.

    :param parts: rows, each with a cell for each column
    """
    texts = (csv_lines(rows).encode() for rows in chain([[columns]], parts))
    return Response(envelope.read_ahead(texts), content_type="text/csv")


def csv_lines(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV: with quotes where they are necessary, and with cells that are harmless.

    Most lists have nothing that needs quotes or escapes. Then this takes half the time.
    """
    cells = [cell for row in rows for cell in row]
    text, firsts = "".join(cells), "".join([cell[:1] for cell in cells])
    starts_plainly = firsts.isalnum() and len(firsts) == len(cells)
    if starts_plainly and text.isprintable() and not any(each in text for each in _NOT_PLAIN):
        return "\r\n".join(map(",".join, rows)) + "\r\n"
    buffer = io.StringIO()
    csv.writer(buffer).writerows([csv_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def ndjson_reply(
    lines: Iterable[Mapping[str, Any]], to_json: Callable[[Mapping[str, Any]], str] = json.dumps
) -> Response:
    """Return lines as NDJSON, one JSON object a line, as a stream.

    :param to_json: returns a line as JSON
    """
    parts = (
        "".join(f"{to_json(line)}\n" for line in chunk).encode() for chunk in chunks(iter(lines))
    )
    return Response(envelope.read_ahead(parts), content_type=NDJSON)
