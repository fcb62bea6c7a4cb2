"""Lists with filters that no single range of one view answers.

A page costs about the same however large the pool is:

* If one of the filters matches at most `_FEW` addresses, these are read from the view of that
  filter. This module applies the other filters and sorts the result.
* Otherwise the list is read zone by zone, in its order, until the page is full. After `_MOST_ROWS`
  rows or `_MOST_RANGES` ranges the page ends early. Then it has fewer lines than its limit, or
  none, and the position after which the next page starts.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kazoo_ips.couch.client import Couch, Key, Row
from kazoo_ips.model import Listing, ListIPs, Page, Position
from kazoo_ips.model.listings import collated, order
from kazoo_ips.repositories.documents import POOL, name_of
from kazoo_ips.repositories.lists import ListRepository, listing

_FEW = 1000
_MOST_ROWS = 5000
_MOST_RANGES = 100
_CHUNK = 500
"""Number of rows up to which the reads of a page grow, if only some rows match the filters."""
_GROWTH = 4
"""Factor by which they grow. If most rows match, the first read fills the page. If few match, a
page of 50 takes two reads more than with `_CHUNK` rows from the start.
"""
_INDEX = "by_address_or_time"
_END_OF_ZONE = "g"
"""Comes after every sort key, which has hexadecimal digits only."""


class _Range(NamedTuple):
    """A range of keys of a view."""

    view: str
    start: Key
    end: Key


class _Zone(NamedTuple):
    """The ranges of one view that together have all lines of one zone, each sorted by address.

    :param prefixes: the key prefix of each range: all but the last part, which is the sort key
    """

    name: str
    prefixes: list[Key]


class FilteredListRepository:
    """Reads pages of lists with any filters.

    :param lists: returns the statuses and zones that the pool has
    """

    def __init__(self, couch: Couch, lists: ListRepository) -> None:
        self._pool = couch.database(POOL)
        self._lists = lists

    def page(self, query: ListIPs, limit: int) -> Page:
        """Return a page of the addresses that match all filters of a query, by zone and address.

        :param limit: the maximum number of lines
        """
        few = self._few(query)
        if few is None:
            return self._walk(query, limit)
        lines = sorted(few, key=lambda line: order(line.position))
        return _page([line for line in lines if query.is_before(line)], limit)

    def _few(self, query: ListIPs) -> list[Listing] | None:
        """Return the addresses that match all filters, if one of the filters matches only a few.

        :returns: None if no filter matches so few, or if every row that `_walk` would read matches
            the filters
        """
        if not _is_partial(query) and (query.zone or not query.between):
            return None
        if query.account_id and not query.label:
            # Most accounts have few addresses, so they are not counted first.
            lines = self._read(query, _within("by_assignee", query.account_id), _FEW + 1)
            if lines is not None:
                return lines
        counted = [(self._count(each), each) for each in _narrow(query)]
        count, best = min(counted, key=lambda pair: pair[0], default=(_FEW + 1, None))
        return self._read(query, best) if best and count <= _FEW else None

    def _read(
        self, query: ListIPs, range_: _Range, limit: int | None = None
    ) -> list[Listing] | None:
        """Return the addresses of a range that match the filters.

        :returns: None if the range has `limit` rows or more
        """
        view, start, end = range_
        rows = self._pool.rows(
            f"ips/{view}", startkey=start, endkey=end, limit=limit, reduce=False,
            buffer_response=True,
        )  # fmt: skip
        return None if len(rows) == limit else self._fitting(query, view, rows)

    def _count(self, range_: _Range) -> int:
        view, start, end = range_
        rows = self._pool.rows(f"ips/{view}", startkey=start, endkey=end, reduce=True)
        return int(rows[0].value) if rows else 0

    def _walk(self, query: ListIPs, limit: int) -> Page:
        """Read the list zone by zone, until the page is full or a maximum is reached."""
        view, zones = self._zones(query)
        chunk = limit + 1 if _is_partial(query) else 0
        found: list[Listing] = []
        rows_read = ranges_read = 0
        for zone in zones:
            after = query.after if query.after and query.after[0] == zone.name else None
            while True:
                wanted = max(limit + 1 - len(found), min(chunk, _CHUNK))
                wanted = min(wanted, _MOST_ROWS - rows_read)
                chunk *= _GROWTH
                rows = self._rows(view, zone, query, after, wanted)
                found += self._fitting(query, view, rows)
                if len(found) > limit:
                    return _page(found, limit)
                rows_read += len(rows)
                ranges_read += len(zone.prefixes)
                ended = len(rows) < wanted
                after = (zone.name, _END_OF_ZONE, "") if ended else _position(view, rows[-1])
                if rows_read >= _MOST_ROWS or ranges_read >= _MOST_RANGES:
                    return Page(tuple(found), after)
                if ended:
                    break
        return Page(tuple(found))

    def _zones(self, query: ListIPs) -> tuple[str, Iterable[_Zone]]:
        """Return the view that the list is read from, and the zones that the page can contain."""
        view, place = "by_zone", 1
        if query.label:
            view, start = "by_label", [query.label]
        elif query.account_id:
            view, start = "by_assignee", [query.account_id]
        elif query.host:
            view, place = "by_host", 2
            start = [query.host, query.status] if query.status else [query.host]
        else:
            start = [query.status] if query.status else []
        if start:
            keys = [
                row.key
                for row in self._pool.rows(
                    f"ips/{view}", startkey=start, endkey=[*start, {}], group_level=place + 1
                )
            ]
        else:
            keys = self._lists.statuses_and_zones()
        zones: dict[str, list[Key]] = {}
        for key in keys:
            zones.setdefault(name_of(key[place]), []).append(key)
        names = sorted((z for z in zones if query.zone in (None, z)), key=collated)
        if query.after:
            last, sort_key, _ = query.after
            ended = sort_key >= _END_OF_ZONE
            names = [
                n for n in names if collated(n) >= collated(last) and not (ended and n == last)
            ]
        return view, [_Zone(name, zones[name]) for name in names]

    def _rows(
        self, view: str, zone: _Zone, query: ListIPs, after: Position | None, wanted: int
    ) -> list[Row]:
        """Return the next rows of a zone, by address.

        :param after: the position after which they start
        """
        first, last = query.between or ("", _END_OF_ZONE)
        last_id = None
        if after and after[1] >= first:
            _, first, last_id = after
        if first > last:
            return []
        rows: list[Row] = []
        for prefix in zone.prefixes:
            found = self._pool.rows(
                f"ips/{view}",
                startkey=[*prefix, first],
                startkey_docid=last_id,
                endkey=[*prefix, last],
                limit=wanted + bool(last_id),
                reduce=False,
                buffer_response=True,
            )
            rows += found[1:] if last_id and found and found[0].id == last_id else found
        if len(zone.prefixes) > 1:
            rows.sort(key=lambda row: (row.key[-1], row.id))
        return rows[:wanted]

    def _fitting(self, query: ListIPs, view: str, rows: list[Row]) -> list[Listing]:
        """Return the lines of these rows that match the filters."""
        lines = [line for line in (listing(view, row) for row in rows) if query.covers(line)]
        if query.modified_from is None or not lines:
            return lines
        if view == _INDEX:
            modified = {row.id: row.value[-1] for row in rows}
        else:
            documents = self._pool.get_all([line.address for line in lines])
            modified = {i: document.get("pvt_modified") for i, document in documents.items()}
        return [line for line in lines if _is_since(modified.get(line.address), query)]


def _is_since(modified: object, query: ListIPs) -> bool:
    return (modified if isinstance(modified, (int, float)) else 0) >= (query.modified_from or 0)


def _is_partial(query: ListIPs) -> bool:
    """Return whether only some of the rows in a zone's ranges match the filters."""
    if query.label:
        return any((query.modified_from is not None, query.status, query.host, query.account_id))
    return query.modified_from is not None or bool(query.account_id and query.host)


def _narrow(query: ListIPs) -> Iterator[_Range]:
    """Yield the ranges that may be small. Each of them contains all addresses of the list.

    Only one view knows the labels, so a list with a label is read from that.
    """
    if query.label:
        yield _within("by_label", query.label)
        return
    if query.between and not query.zone:
        first, last = query.between
        yield _Range(_INDEX, ["address", first], ["address", last])
    if query.modified_from is not None:
        yield _Range(_INDEX, ["modified", query.modified_from], ["modified", {}])
    if query.host and query.status:
        yield _within("by_host", query.host, query.status)
    elif query.host:
        yield _within("by_host", query.host)


def _within(view: str, *prefix: str) -> _Range:
    return _Range(view, [*prefix], [*prefix, {}])


def _position(view: str, row: Row) -> Position:
    return listing(view, row).zone, row.key[-1], row.id


def _page(lines: list[Listing], limit: int) -> Page:
    """Return the first lines, with the position of the next page if there are more."""
    items = tuple(lines[:limit])
    return Page(items, items[-1].position if len(lines) > limit else None)
