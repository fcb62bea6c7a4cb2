"""The tenures of an account: which addresses it had, and when."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import NamedTuple

from kazoo_ips.model import ListIPs, addresses
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind
from kazoo_ips.model.timelines import (
    EventPage,
    EventPosition,
    ListEvents,
    Tenure,
    TenurePage,
    begins_tenure,
    ends_tenure,
    holds,
    position,
    tenure,
)
from kazoo_ips.repositories.history import HistoryRepository
from kazoo_ips.services.history.queries import CHUNK, HistoryService, pages
from kazoo_ips.services.history.unarchived import Unarchived, UnarchivedEvents
from kazoo_ips.services.pool import lists

_Item = tuple[Tenure, EventPosition]
Ends = dict[str, HistoryEvent]
"""By address, the event that ends an earlier tenure."""


class TenureService:
    """Lists tenures, those that began last first.

    A tenure is put together of two events: one that begins it, and one that ends it. Events are
    read in the order of the list, so most ends are read before their beginnings. Last come the
    tenures of which the history does not have the beginning.
    """

    def __init__(
        self,
        history: HistoryService,
        archive: HistoryRepository,
        unarchived: UnarchivedEvents,
        pool: lists.ListService,
    ) -> None:
        self._history = history
        self._archive = archive
        self._unarchived = unarchived
        self._pool = pool

    def page(self, account_id: str, limit: int, after: EventPosition | None) -> TenurePage:
        """Return a page of the tenures of an account.

        :param after: the position where the last page ended
        """
        found = list(islice(self._walk(account_id, after, 2 * limit + 1), limit + 1))
        items = tuple(each for each, _ in found[:limit])
        return TenurePage(items, found[limit - 1][1] if len(found) > limit else None)

    def all(self, account_id: str) -> Iterator[Tenure]:
        """Yield all tenures of an account. The events are read in chunks."""
        return (each for each, _ in self._walk(account_id, None, CHUNK))

    def _walk(self, account_id: str, after: EventPosition | None, chunk: int) -> Iterator[_Item]:
        """Yield the tenures after a position, each with its position.

        :param chunk: the number of events that are read at a time
        """
        ends: Ends = {}
        if after is None or after.id:
            yield from self._begun(account_id, after, chunk, ends)
        if after is not None:  # the page lacks the ends on earlier pages
            ends.clear()
            for _ in self._begun(account_id, None, CHUNK, ends):
                pass
        done = after.generation if after and not after.id else 0
        for number, each in enumerate(self._unbegun(account_id, ends), 1):
            if number > done:
                yield each, EventPosition(0, number, "")

    def _begun(
        self, account_id: str, after: EventPosition | None, chunk: int, ends: Ends
    ) -> Iterator[_Item]:
        """Yield the tenures of which the history has the beginning.

        :param ends: gets the ends of the other ones, and the beginnings of these
        """
        query = ListEvents(account_id=account_id, after=after)
        for page, unarchived in self._pages(query, chunk):
            started: list[_Started] = []
            for event in page.items:
                if begins_tenure(event, account_id):
                    started.append(_started(account_id, event, ends.get(event.address)))
                elif not ends_tenure(event, account_id):
                    continue
                ends[event.address] = event
            lasting = [each.event.address for each in started if not each.end]
            # If another program has taken an address away, the account may have no event of that.
            held = self._unarchived.held(account_id, lasting, unarchived)
            for event, end, has_later in started:
                known, is_held = end, event.address in held
                if known is None and (after or has_later or not is_held):
                    known = self._end(account_id, event, unarchived.events if after else ())
                made = tenure(account_id, event, known)
                if known is None and not is_held:  # it has ended, and the history lacks the end
                    made = replace(made, certain=False)
                yield made, position(event)

    def _pages(self, query: ListEvents, chunk: int) -> Iterator[tuple[EventPage, Unarchived]]:
        """Yield pages of events, each with the events that were read before the archive's."""
        unarchived: Unarchived | None = None

        def list_page(query: ListEvents) -> EventPage:
            nonlocal unarchived
            unarchived = self._unarchived.of_all()
            return self._history.merged(query, unarchived.events)

        for page in pages(list_page, query, chunk):
            assert unarchived is not None
            yield page, unarchived

    def _end(
        self, account_id: str, start: HistoryEvent, unarchived: Iterable[HistoryEvent]
    ) -> HistoryEvent | None:
        """Return the event that ends a tenure; a gap, if it has ended there; None if it lasts."""
        begun, gap = position(start), None
        archived = self._archive.following(start.address, begun)
        own = (e for e in unarchived if e.address == start.address and position(e) > begun)
        for event in chain(archived, own):
            if event.event == HistoryEventKind.UNKNOWN:
                gap = gap or event
            elif holds(event.before, account_id):
                if ends_tenure(event, account_id):
                    return event
            elif ends_tenure(event, account_id) or begins_tenure(event, account_id):
                return gap or event
        return None

    def _unbegun(self, account_id: str, ends: Mapping[str, HistoryEvent]) -> Iterator[Tenure]:
        """Yield the tenures of which the history does not have the beginning.

        :param ends: the first event of each address that begins or ends a tenure
        """
        ended = [event for event in ends.values() if not begins_tenure(event, account_id)]
        for event in sorted(ended, key=position, reverse=True):
            yield tenure(account_id, None, event)
        held = list(lists.walk(lambda q: self._pool.assigned(q, account_id), ListIPs(limit=None)))
        others = [line for line in held if addresses.canonical(line.address) not in ends]
        if others:  # perhaps they were assigned after the events were read
            page = self._history.events(ListEvents(account_id=account_id, limit=CHUNK))
            recent = {e.address for e in page.items if begins_tenure(e, account_id)}
            others = [line for line in others if addresses.canonical(line.address) not in recent]
        for line in others:
            yield Tenure(line.address, line.zone, line.host, None, None, False, Author(), None)


class _Started(NamedTuple):
    """A tenure of a page.

    :param event: the event that begins it
    :param end: the event that ends it, if that was read
    :param has_later: whether a later tenure of the same address was read
    """

    event: HistoryEvent
    end: HistoryEvent | None
    has_later: bool


def _started(account_id: str, event: HistoryEvent, later: HistoryEvent | None) -> _Started:
    """:param later: the next event of the account and the address, if one was read"""
    is_end = later is not None and holds(later.before, account_id)
    return _Started(event, later if is_end else None, later is not None)
