"""Looks up events in the archive of the history by their ids."""

from collections.abc import Sequence

from kazoo_ips.errors import DatastoreMissing
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.repositories.history_documents import from_document, id_prefix
from kazoo_ips.repositories.history_years import HistoryYears

_LAST = "\uffff"


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

    def last(self, address: str) -> HistoryEvent | None:
        """Return the latest event of an address, by the generation of its revision, or None.

        :raises DatastoreError: it is not known
        """
        prefix = id_prefix(address)
        for year in reversed(self._years.existing()):
            try:
                document = self._years.database(year).last(prefix, prefix + _LAST)
            except DatastoreMissing:
                self._years.forget(year)
                continue
            if document:
                return from_document(document)
        return None
