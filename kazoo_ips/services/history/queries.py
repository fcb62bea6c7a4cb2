"""Questions about the history: the events of addresses, who had one, and what an account had.

Each answer has every change that was acknowledged before the question, whether the archive has it
already or not.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from kazoo_ips.errors import IPNotFound
from kazoo_ips.model import addresses
from kazoo_ips.model.history import NOBODY, HistoryEvent, HistoryEventKind, Source, State
from kazoo_ips.model.timelines import (
    EventPage,
    Holder,
    ListEvents,
    changes_holder,
    holder_at,
    position,
)
from kazoo_ips.repositories.history import HistoryRepository
from kazoo_ips.services.history.unarchived import Present, UnarchivedEvents

CHUNK = 1000
"""Number of events that are read in one request for a long list."""


class HistoryService:
    """Answers questions about events.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        archive: HistoryRepository,
        unarchived: UnarchivedEvents,
        now: Callable[[], int],
    ) -> None:
        self._archive = archive
        self._unarchived = unarchived
        self._now = now

    def of_address(self, query: ListEvents) -> EventPage:
        """Return a page of the events of one address, the latest first.

        :param query: its `address` is an address in any spelling
        :raises IPNotFound: neither the pool nor the history has the address
        """
        given = query.address or ""
        address = _canonical(given)
        present = self._unarchived.of_address(address)
        page = self.merged(replace(query, address=address), present.events)
        if not (page.items or present.ip or present.events or self._archive.has(address)):
            raise IPNotFound(given)
        return page

    def holder(self, address: str, at: int) -> Holder:
        """Return who had an address at a time. In the future, that is who has it now.

        :param address: in any spelling
        :param at: in Gregorian seconds
        :raises IPNotFound: neither the pool nor the history has the address
        """
        canonical = _canonical(address)
        complete = self._unarchived.archived_before() or 0
        archived = self._archive.around(canonical, at) if at < complete else []
        if _has_tenure(archived, at, complete):
            return holder_at(canonical, at, archived)
        present = self._unarchived.of_address(canonical)
        if not {event.id for event in archived} & {event.id for event in present.events}:
            # Perhaps an event has moved from the document to the archive between the two reads.
            archived = self._archive.around(canonical, at)
        found = {event.id: event for event in (*present.events, *archived)}
        timeline = sorted(found.values(), key=position)
        if not (timeline or present.ip):
            raise IPNotFound(address)
        timeline += _since_then(
            canonical, timeline[-1] if timeline else None, present, self._now()
        )
        return holder_at(canonical, at, timeline)

    def events(self, query: ListEvents) -> EventPage:
        """Return a page of the events that match the filters, the latest first.

        A page can have fewer lines than `limit`, or none, although more pages follow.
        """
        return self.merged(query, self._unarchived.of_all().events)

    def lines(self, query: ListEvents) -> Iterator[HistoryEvent]:
        """Yield all events that match the filters, the latest first, read in chunks.

        :raises IPNotFound: neither the pool nor the history has the address
        """
        return walk(self.events if query.address is None else self.of_address, query)

    def years(self) -> list[int]:
        """Return the years that have a database, in ascending order."""
        return self._archive.years()

    def export(self, year: int) -> Iterator[HistoryEvent]:
        """Yield the events in the database of a year, the earliest first."""
        return self._archive.everything(year)

    def merged(self, query: ListEvents, unarchived: Iterable[HistoryEvent]) -> EventPage:
        """Return a page of the archive's events, and of events that were read before it."""
        limit = CHUNK if query.limit is None else query.limit
        page = self._archive.page(query, limit)
        found = {
            position(event).id: event
            for event in unarchived
            if query.covers(event) and (page.after is None or position(event) > page.after)
        }
        if not found:
            return page
        found |= {position(event).id: event for event in page.items}
        items = sorted(found.values(), key=position, reverse=True)
        if len(items) > limit:
            return EventPage(tuple(items[:limit]), position(items[limit - 1]))
        return EventPage(tuple(items), page.after)


def pages(
    list_page: Callable[[ListEvents], EventPage], query: ListEvents, size: int = CHUNK
) -> Iterator[EventPage]:
    """Yield all pages of a list of events of any length.

    :param query: its `limit` is ignored
    :param size: the maximum number of events of a page
    """
    after = query.after
    while True:
        page = list_page(replace(query, limit=size, after=after))
        yield page
        after = page.after
        if after is None:
            return


def walk(
    list_page: Callable[[ListEvents], EventPage], query: ListEvents
) -> Iterator[HistoryEvent]:
    """Yield all events of a list of any length, read in chunks."""
    for page in pages(list_page, query):
        yield from page.items


def _canonical(address: str) -> str:
    """Return the canonical form of an address.

    :raises IPNotFound: it is not an address
    """
    canonical = addresses.canonical(address)
    if canonical is None:
        raise IPNotFound(address)
    return canonical


def _has_tenure(events: Iterable[HistoryEvent], at: int, complete: int) -> bool:
    """Return whether events say who had an address, since when and until when.

    :param at: the time in question, in Gregorian seconds
    :param complete: the time before which all events are known
    """
    changes = [event.at for event in events if changes_holder(event)]
    later = [time for time in changes if time > at]
    return len(later) < len(changes) and bool(later) and later[0] < complete


def _since_then(
    address: str, last: HistoryEvent | None, present: Present, now: int
) -> list[HistoryEvent]:
    """Return an event for what happened after the last one: the pool shows another state.

    Another program has changed the document, and the archive has not compared it yet; or the
    address is older than the history.
    """
    ip = present.ip
    state = State(str(ip.status), ip.assigned_to, ip.zone, ip.host) if ip else None
    known = last.after if last else None
    if (state and state[:2]) == (known and known[:2]):
        return []
    at = max(ip.modified if ip else now, last.at if last else 0)
    kind = HistoryEventKind.CHANGED if ip else HistoryEventKind.DELETED
    return [
        HistoryEvent(
            "", address, kind, at, None, None, state, NOBODY, None, Source.KAZOO, certain=False
        )
    ]
