"""Looks up events in the archive of the history by their ids."""

from collections.abc import Iterable, Sequence

from kazoo_ips.errors import DatastoreMissing
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.repositories.history_documents import from_document, id_prefix
from kazoo_ips.repositories.history_years import HistoryYears

_LAST = "\uffff"
_RANGES = 500
"""The number of addresses that are looked up in one request, which takes about half a second."""


class HistoryLookup:
    """Looks up what the archive has, for the archiver."""

    def __init__(self, years: HistoryYears) -> None:
        self._years = years

    def stored(self, events: Sequence[HistoryEvent]) -> set[str]:
        """Return the ids of those of these events that the archive has.

        :raises DatastoreError: it is not known
        """
        by_year: dict[int, dict[str, str]] = {}
        for event in events:
            ids = by_year.setdefault(self._years.year_for(event.at), {})
            ids[id_prefix(event.address) + event.id] = event.id
        found: set[str] = set()
        for year, ids in by_year.items():
            try:
                stored, _ = self._years.database(year).look_up(list(ids))
            except DatastoreMissing:
                self._years.forget(year)
                continue
            found |= {ids[document_id] for document_id in stored}
        return found

    def last(self, addresses: Iterable[str]) -> dict[str, HistoryEvent]:
        """Return the latest event of each address, by the generation of its revision.

        Addresses without events are left out.

        :raises DatastoreError: it is not known
        """
        found: dict[str, HistoryEvent] = {}
        missing = list(addresses)
        for year in reversed(self._years.existing()):
            for start in range(0, len(missing), _RANGES):
                chunk = missing[start : start + _RANGES]
                ranges = [(id_prefix(each), id_prefix(each) + _LAST) for each in chunk]
                try:
                    documents = self._years.database(year).last(ranges)
                except DatastoreMissing:
                    self._years.forget(year)
                    break
                events = zip(chunk, documents, strict=True)
                found |= {address: from_document(each) for address, each in events if each}
            missing = [address for address in missing if address not in found]
        return found
