"""Reads the views of the history's databases, or the documents of one address without a view.

CouchDB updates the index of a view before it answers. After many new events that can take longer
than the service waits. An address has few events, which are read by their ids then.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from kazoo_ips.couch.client import Key
from kazoo_ips.errors import DatastoreMissing, DatastoreUnreachable
from kazoo_ips.model import addresses
from kazoo_ips.model.history import HistoryEvent, HistoryEventKind
from kazoo_ips.model.timelines import EventPosition, ListEvents, position
from kazoo_ips.repositories.history_documents import from_document, from_view, id_prefix
from kazoo_ips.repositories.history_years import HistoryYears

_RETRACTIONS_TTL = 1.0
"""Maximum number of seconds that the ids of retracted events are cached."""
_DAY = 86_400
"""Seconds by which the times of retractions may differ from the order in which they were
stored."""
_INDEXING = 30.0
"""Seconds for which no view is read for one address, after a view of that year came too late."""
_BY_ZONE = "by_zone"
_LAST = "\uffff"
T = TypeVar("T")


class HistoryViews:
    """Reads the events of one year at a time. A year that was deleted has none."""

    def __init__(self, years: HistoryYears) -> None:
        self._years = years
        self._retractions: dict[int, _Retractions] = {}
        self._late: dict[int, float] = {}
        """By year, until when its index is taken to be behind, by the monotonic clock."""

    def read(
        self,
        year: int,
        query: ListEvents,
        after: EventPosition | None,
        limit: int,
        *,
        forward: bool = False,
    ) -> list[HistoryEvent]:
        """Return the next events of a year, retracted ones included.

        :param after: the position after which they start, in the order of the list, or of time
        :param forward: whether the earliest come first
        """
        address = query.address
        try:
            found = self._in_time(
                year, address, lambda: self._read(year, query, after, limit, forward)
            )
            if address is None or found is not None:
                return found or []
            events = self._of_address(year, address)
        except DatastoreMissing:
            self._years.forget(year)
            return []
        kept = [e for e in events if e.event != HistoryEventKind.RETRACTED]
        between = [e for e in kept if query.is_between(e, after, forward=forward)]
        return sorted(between, key=position, reverse=not forward)[:limit]

    def _in_time(self, year: int, address: str | None, read: Callable[[], T]) -> T | None:
        """Return what a view says; None if it comes too late, and only one address is asked for.

        :param read: reads the view
        :raises DatastoreUnreachable: it comes too late, and all addresses are asked for
        """
        if address is None:
            return read()
        if self._late.get(year, 0.0) > time.monotonic():
            return None
        try:
            return read()
        except DatastoreUnreachable:
            self._late[year] = time.monotonic() + _INDEXING
            return None

    def _of_address(self, year: int, address: str) -> list[HistoryEvent]:
        prefix = id_prefix(address)
        documents = self._years.database(year).range(prefix, prefix + _LAST)
        return [from_document(document) for document in documents]

    def _read(
        self,
        year: int,
        query: ListEvents,
        after: EventPosition | None,
        limit: int,
        forward: bool,
    ) -> list[HistoryEvent]:
        view, prefix = _range(query)
        first: Key = [*prefix, *(() if query.since is None else (query.since,))]
        last: Key = [*prefix, {} if query.until is None else query.until]
        start, end = (first, last) if forward else (last, first)
        if after and (query.until is None or after.at < query.until):
            start = [*prefix, *after]
        database = self._years.database(year)
        rows = database.rows(
            f"history/{view}",
            startkey=start,
            endkey=end,
            descending=not forward,
            # The range includes the last event of the previous page, which is dropped below.
            limit=limit + bool(after),
            buffer_response=True,
        )
        if after and rows and rows[0].key[-3:] == [*after]:
            rows = rows[1:]
        rows = rows[:limit]
        if view == _BY_ZONE and rows:
            found = database.get_all([row.id for row in rows])
            return [from_document(found[row.id]) for row in rows]
        return [from_view(row.value) for row in rows]

    def retracted(self, year: int, address: str | None) -> set[tuple[str, str]]:
        """Return addresses and ids of the events whose retraction is in the database of a year.

        They are few, and read once. Later only the new ones are read.

        :param address: the only address that matters; None for all
        """
        known = self._retractions.get(year) or _Retractions(set(), 0, 0.0)
        if known.until >= time.monotonic():
            return known.ids
        try:
            found = self._in_time(year, address, lambda: self._new_retractions(year, known))
            if address is None or found is not None:
                return found or set()
            events = self._of_address(year, address)
        except DatastoreMissing:
            self._years.forget(year)
            return set()
        return {(event.address, event.retracts) for event in events if event.retracts}

    def _new_retractions(self, year: int, known: "_Retractions") -> set[tuple[str, str]]:
        rows = self._years.database(year).rows(
            "history/by_retraction", startkey=[known.last - _DAY]
        )
        ids = known.ids | {(row.value[0], row.value[1]) for row in rows}
        last = rows[-1].key[0] if rows else known.last
        self._retractions[year] = _Retractions(ids, last, time.monotonic() + _RETRACTIONS_TTL)
        return ids


class _Retractions(NamedTuple):
    """The retracted events of a year, as cached.

    :param last: the time of the latest retraction, in Gregorian seconds
    :param until: when the cache entry expires, by the monotonic clock
    """

    ids: set[tuple[str, str]]
    last: int
    until: float


def _range(query: ListEvents) -> tuple[str, Key]:
    """Return the view that has the events of a query by time, and the beginning of their keys."""
    if query.address is not None:
        return "by_address", [addresses.sort_key(query.address)]
    if query.account_id is not None:
        return "by_account", [query.account_id]
    return _BY_ZONE, [query.zone]
