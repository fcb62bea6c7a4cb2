"""Lists of addresses as replies: one page, the first addresses, or the whole list; JSON or CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from flask import Response, g, request

from kazoo_ips.api import envelope, fields, resources, schemas
from kazoo_ips.api.route_descriptions import CSV
from kazoo_ips.model import Listing, ListIPs, Page
from kazoo_ips.model.names import printable
from kazoo_ips.services.pool.lists import walk

LINES = resources.IPListItemSchema(many=True)
OWNED_LINES = resources.AssignedIPListItemSchema(many=True)
"""The form of a list without and with the account of each address."""

_CHUNK = 1000
ListPage = Callable[[ListIPs], Page]


def reply(list_page: ListPage, *, owner: bool = False) -> Response:
    """Return the reply to a request for a list.

    :param list_page: returns one page of the list
    :param owner: whether each line has the account of the address
    """
    # A CSV file is usually stored, so it has all lines unless the query names a page.
    query = schemas.load_list(request.args, everything=g.media == CSV)

    def dump(listing: Listing) -> dict[str, Any]:
        return resources.dump_listing(listing, owner=owner)

    if g.media == CSV:
        columns = ["ip", "zone", "host", *(["assigned_to"] if owner else [])]
        return _csv(columns, map(dump, _lines(list_page, query)))
    if query.limit is None or query.limit > schemas.MAX_PAGE:
        return envelope.stream(_chunks(map(dump, walk(list_page, query))))
    page = list_page(query)
    data = [dump(listing) for listing in page.items]
    if not query.paged:
        return envelope.success(data)
    return envelope.success(
        data,
        page_size=len(data),
        start_key=request.args.get("start_key"),
        next_start_key=fields.start_key(page.after) if page.after else None,
    )


def names(column: str, values: list[str]) -> Response:
    """Return the reply with all names of zones or hosts.

    :param column: the header of the column in CSV
    """
    if g.media == CSV:
        return _csv([column], ({column: value} for value in values))
    return envelope.success(values)


def _lines(list_page: ListPage, query: ListIPs) -> Iterable[Listing]:
    return list_page(query).items if query.paged else walk(list_page, query)


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _escaped(cell: str) -> str:
    """Return the cell with nothing in it that a terminal or a spreadsheet would act on.

    Control and format characters are escaped. A formula gets an apostrophe in front. The usual
    names of zones and hosts stay as they are.
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
