"""The changes of each zone by day, from the history's archive.

The reduce of a view sums them up. So a query costs by the number of days, and not by the number of
events.
"""

from collections import Counter
from collections.abc import Iterator

from kazoo_ips.couch.client import Document, Row
from kazoo_ips.errors import DatastoreMissing
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.usage import DAY, DailyChanges
from kazoo_ips.repositories.documents import name_of
from kazoo_ips.repositories.history_documents import from_document, id_prefix
from kazoo_ips.repositories.history_years import HistoryYears

_VIEW = "history/by_day"


class UsageRepository:
    """Reads the changes of zones. Events that were taken back do not count."""

    def __init__(self, years: HistoryYears) -> None:
        self._years = years

    def changes(self, zone: str, first: int, last: int) -> DailyChanges:
        """Return what happened in a zone from one day to another, both included."""
        statuses: dict[int, Counter[str]] = {}
        events: dict[int, Counter[str]] = {}
        for target, kind in ((statuses, "status"), (events, "event")):
            for row in self._rows(kind, zone, first, last):
                day, name = row.key[2:]
                target.setdefault(day, Counter())[name_of(name)] += int(row.value)
        for event in self._retracted(first):
            _take_back(event, zone, statuses, events)
        return DailyChanges(statuses, events)

    def first_day(self, zone: str) -> int | None:
        """Return the day of the earliest event of a zone, or None if it has none."""
        for year in self._years.existing():
            rows = self._read(
                year, startkey=["status", zone], endkey=["status", zone, {}], limit=1, reduce=False
            )
            if rows:
                return int(rows[0].key[2])
        return None

    def _rows(self, kind: str, zone: str, first: int, last: int) -> Iterator[Row]:
        start, end = self._years.year_for(first * DAY), self._years.year_for(last * DAY)
        for year in self._years.existing():
            if start <= year <= end:
                yield from self._read(
                    year,
                    startkey=[kind, zone, first],
                    endkey=[kind, zone, last, {}],
                    group_level=4,
                )

    def _read(self, year: int, **query: object) -> list[Row]:
        try:
            return self._years.database(year).rows(_VIEW, **query)
        except DatastoreMissing:  # it was deleted
            self._years.forget(year)
            return []

    def _retracted(self, first: int) -> Iterator[HistoryEvent]:
        """Yield the events that were taken back on a day or later. They are few."""
        for year in self._years.existing():
            if year < self._years.year_for(first * DAY):
                continue
            rows = self._years.database(year).rows("history/by_retraction", startkey=[first * DAY])
            ids = [id_prefix(row.value[0]) + row.value[1] for row in rows]
            for document in self._find(ids):
                yield from_document(document)

    def _find(self, ids: list[str]) -> Iterator[Document]:
        for year in self._years.existing() if ids else ():
            yield from self._years.database(year).look_up(ids)[0].values()


def _take_back(
    event: HistoryEvent,
    zone: str,
    statuses: dict[int, Counter[str]],
    events: dict[int, Counter[str]],
) -> None:
    """Undo what an event has added to the changes of its day, as the view's map adds it."""
    day = event.at // DAY
    before, after = event.before, event.after
    if (before and (before.zone, before.status)) != (after and (after.zone, after.status)):
        for state, sign in ((before, 1), (after, -1)):
            if state and state.zone == zone and day in statuses:
                statuses[day][state.status] += sign
    last = after or before
    if last and last.zone == zone and day in events:
        events[day][event.event] -= 1
