"""Lists of addresses as replies: one page, the first addresses, or the whole list; JSON or CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from flask import Response, g, request

from kazoo_ips.api import envelope, fields, resources, schemas
from kazoo_ips.api.route_descriptions import CSV
from kazoo_ips.api.routes import services
from kazoo_ips.model import Listing, ListIPs, Page, Status
from kazoo_ips.model.names import printable
from kazoo_ips.services.pool.lists import walk

LINES = resources.IPListItemSchema(many=True)
OWNED_LINES = resources.AssignedIPListItemSchema(many=True)
POOL_LINES = resources.PoolIPListItemSchema(many=True)
"""The forms of a list: lines without the account, lines with the account, and lines with the
members that `detailed` of `reply` adds."""

_CHUNK = 1000
ListPage = Callable[[ListIPs], Page]
Dump = Callable[[Sequence[Listing]], list[dict[str, Any]]]


def reply(list_page: ListPage, *, owner: bool = False, detailed: bool = False) -> Response:
    """Return the reply to a request for a list.

    :param list_page: returns one page of the list
    :param owner: whether each line has the account of the address and its name
    :param detailed: whether each line has the status, the account and its name, unless the query
        is for available addresses only
    """
    # A CSV file is usually stored, so it has all lines unless the query names a page.
    query = schemas.load_list(g.query, everything=g.media == CSV)
    columns = ["ip", "zone", "host"]
    dump: Dump = _dump_own
    if detailed and query.status != Status.AVAILABLE:
        columns = ["ip", "zone", "host", "status", "assigned_to", "account_name"]
        dump = _with_names(resources.dump_pool_listing)
    elif owner:
        columns = ["ip", "zone", "host", "assigned_to", "account_name"]
        dump = _with_names(resources.dump_assigned_listing)
    if g.media == CSV:
        chunks = [list_page(query).items] if query.paged else _chunks(walk(list_page, query))
        return _csv(columns, chain.from_iterable(map(dump, chunks)))
    if query.limit is None or query.limit > schemas.MAX_PAGE:
        return envelope.stream(map(dump, _chunks(walk(list_page, query))))
    if not query.paged:
        return envelope.success(dump([*walk(list_page, query)]))
    page = list_page(query)
    return envelope.success(
        dump(page.items),
        page_size=len(page.items),
        start_key=request.args.get("start_key"),
        next_start_key=fields.start_key(page.after) if page.after else None,
    )


def _dump_own(listings: Sequence[Listing]) -> list[dict[str, Any]]:
    return [resources.dump_listing(listing) for listing in listings]


def _with_names(dump: Callable[[Listing, Mapping[str, str]], dict[str, Any]]) -> Dump:
    """Return a function that dumps the parts of a list, and reads the name of each account once.

    :param dump: dumps one line, with the names of accounts by id
    """
    known: dict[str, str] = {}
    asked: set[str] = set()

    def dump_all(listings: Sequence[Listing]) -> list[dict[str, Any]]:
        owners = {listing.assigned_to for listing in listings if listing.assigned_to} - asked
        asked.update(owners)
        known.update(services().accounts.names(owners))
        return [dump(listing, known) for listing in listings]

    return dump_all


def names(column: str, values: list[str]) -> Response:
    """Return the reply with all names of zones or hosts.

    :param column: the header of the column in CSV
    """
    if g.media == CSV:
        return _csv([column], ({column: value} for value in values))
    return envelope.success(values)


def _chunks(items: Iterator[Listing]) -> Iterator[Sequence[Listing]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _escaped(cell: str) -> str:
    """Return the cell without characters that a terminal or a spreadsheet would act on.

    Control and format characters are escaped. A formula is prefixed with an apostrophe. Usual
    names of zones and hosts do not change.
    """
    text = printable(cell, keep="\t\r\n")
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv(columns: list[str], lines: Iterable[dict[str, Any]]) -> Response:
    def rows() -> Iterator[bytes]:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns)
        writer.writeheader()
        for line in lines:
            writer.writerow({name: _escaped(cell) for name, cell in line.items()})
            if buffer.tell() > 16_384:
                yield buffer.getvalue().encode()
                buffer.seek(0)
                buffer.truncate()
        yield buffer.getvalue().encode()

    return Response(envelope.read_ahead(rows()), content_type="text/csv")
