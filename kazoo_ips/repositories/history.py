"""Queries of the history's archive: the events of an address, an account or a zone, by time.

There is one database for each year, all with the same views. A query reads the years one after
the other, and stops at the first one that answers it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.timelines import (
    EventPage,
    EventPosition,
    ListEvents,
    changes_holder,
    position,
)
from kazoo_ips.repositories.history_views import HistoryViews
from kazoo_ips.repositories.history_years import HistoryYears

_WINDOW = 20
"""The number of events that are read for a question about one address: most addresses have fewer
in a year."""
_CHUNK = 500
"""Rows of a view that are read at a time when only some of them match."""
_MOST_ROWS = 5000
"""The number of rows after which a page ends, even if it has fewer lines than it may have."""
_START = EventPosition(-1, 0, "")
"""The position before all events."""
_DAY = 86_400
"""Seconds by which clocks may differ at the turn of a year."""


class HistoryRepository:
    """Reads events that are archived. Events that were taken back are left out.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(self, years: HistoryYears, now: Callable[[], int]) -> None:
        self._years = years
        self._now = now
        self._views = HistoryViews(years)

    def page(self, query: ListEvents, limit: int) -> EventPage:
        """Return a page of the events that match all filters of a query, the latest first.

        The page can have fewer events than `limit`, or none, although more pages follow.

        :param limit: the maximum number of events
        """
        found: list[HistoryEvent] = []
        rows_read = 0
        for year in self._between(query):
            after = query.after
            while not query.is_past(after):
                wanted = limit + 1 - len(found)
                wanted = max(wanted, _CHUNK) if query.is_partial else wanted
                events = self._views.read(year, query, after, wanted)
                found += [event for event in self._kept(events, query) if query.covers(event)]
                if len(found) > limit:
                    return EventPage(tuple(found[:limit]), position(found[limit - 1]))
                rows_read += len(events)
                if len(events) < wanted:
                    break
                after = position(events[-1])
                if rows_read >= _MOST_ROWS:
                    return EventPage(tuple(found), after)
        return EventPage(tuple(found))

    def around(self, address: str, at: int) -> list[HistoryEvent]:
        """Return events of an address around a time, the earliest first.

        They are the latest event until then that has changed the status or the account, the first
        one after it, and all between, as far as the archive has them. Most answers take one read.

        :param address: a canonical address
        :param at: in Gregorian seconds
        """
        query, split = ListEvents(address=address), EventPosition(at + 1, 0, "")
        year = self._years.year_for(at)
        years = self._readable()
        window = self._views.read(year, query, None, _WINDOW)
        whole = len(window) < _WINDOW
        if not whole and window[-1].at > at:  # all of them are later
            window = []
        kept = self._kept(window, query)
        past, future = [e for e in kept if e.at <= at], [e for e in kept if e.at > at][::-1]
        if not any(map(changes_holder, past)):
            earlier = [each for each in reversed(years) if each < year + (not whole)]
            start = min(split, position(window[-1])) if window else split
            past += _until_change(self._walk(earlier, query, start))
        if not any(map(changes_holder, future)):
            covered = whole or bool(window)
            later = [each for each in years if each > year - (not covered)]
            start = max(split, position(window[0])) if window else split
            future += _until_change(self._walk(later, query, start, forward=True))
        return [*reversed(past), *future]

    def following(self, address: str, after: EventPosition) -> Iterator[HistoryEvent]:
        """Yield the events of an address after a position, the earliest first."""
        first = self._years.year_for(after.at)
        years = [each for each in self._readable() if each >= first]
        return self._walk(years, ListEvents(address=address), after, forward=True)

    def has(self, address: str) -> bool:
        """Return whether the archive has any event of an address."""
        return bool(self.page(ListEvents(address=address), 1).items)

    def everything(self, year: int) -> Iterator[HistoryEvent]:
        """Yield the events in the database of a year, the earliest first, read in chunks."""
        return self._walk([year], ListEvents(), _START, forward=True, chunk=_CHUNK)

    def years(self) -> list[int]:
        """Return the years that have a database, in ascending order."""
        return self._years.existing()

    def _walk(
        self,
        years: Sequence[int],
        query: ListEvents,
        after: EventPosition,
        *,
        forward: bool = False,
        chunk: int | None = None,
    ) -> Iterator[HistoryEvent]:
        """Yield the events after a position, in the order of the list, or of time if `forward`."""
        limit = chunk or _WINDOW
        for year in years:
            last = after
            while True:
                events = self._views.read(year, query, last, limit, forward=forward)
                yield from self._kept(events, query)
                if len(events) < limit:
                    break
                last = position(events[-1])

    def _readable(self) -> list[int]:
        """Return the years that have events. That of the next year is created before it begins."""
        last = self._years.year_for(self._now() + _DAY)
        return [each for each in self._years.existing() if each <= last]

    def _between(self, query: ListEvents) -> list[int]:
        """Return the years whose events can match a query, the latest first."""
        years = self._readable()
        ends = [query.until - 1] if query.until is not None else []
        ends += [query.after.at] if query.after else []
        if ends:
            last = self._years.year_for(min(ends))
            years = [each for each in years if each <= last]
        if query.since is not None:
            first = self._years.year_for(query.since)
            years = [each for each in years if each >= first]
        return years[::-1]

    def _kept(self, events: Sequence[HistoryEvent], query: ListEvents) -> list[HistoryEvent]:
        """Return the events without those that were taken back."""
        if not events:
            return []
        retracted: set[tuple[str, str]] = set()
        for year in self._readable():
            retracted |= self._views.retracted(year, query.address)
        return [event for event in events if (event.address, event.id) not in retracted]


def _until_change(events: Iterable[HistoryEvent]) -> Iterator[HistoryEvent]:
    """Yield events until the first one that changes the status or the account, inclusive."""
    for event in events:
        yield event
        if changes_holder(event):
            return
