"""The archive of the history: writes events, one document each, which never change."""

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from kazoo_ips.couch.client import Document
from kazoo_ips.errors import DatastoreError, DatastoreMissing, DatastoreUnreachable
from kazoo_ips.model import Outcome
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.repositories.history_documents import to_document
from kazoo_ips.repositories.history_years import HistoryYears

_BATCH = 200
"""Maximum number of documents in one request. On a busy machine CouchDB takes more than a second
for 200, because of their validation, and the read timeout is a few seconds."""
_SEQUENCES = 4
"""Number of requests that store many documents at the same time. CouchDB takes 1.3 ms of processor
time for the validation function of each document, nearly all of it in JavaScript's garbage
collection, and meanwhile the process of the request waits."""
_TRIES = 3
"""The number of times that events are written whose outcome is unknown."""


class HistoryArchive:
    """Stores events. Any number of processes may store the same event at the same time."""

    def __init__(self, years: HistoryYears) -> None:
        self._years = years

    def append(self, events: Sequence[HistoryEvent]) -> None:
        """Store events, each in the database of its year. A stored event does not change.

        The events of one address reach the feed in the order in which they are given, if their
        times do not decrease.

        :raises HistoryMissing: a year's database is missing, and the service may not create it
        :raises DatastoreError: not all events are known to be stored by a majority of the nodes;
            the caller has to append them again
        """
        by_year: dict[int, dict[str, Document]] = {}
        for event in events:
            document = to_document(event)
            documents = by_year.setdefault(self._years.year_for(event.at), {})
            documents.setdefault(document["_id"], document)
        for year, documents in sorted(by_year.items()):
            self._append(year, list(documents.values()))

    def _append(self, year: int, documents: Sequence[Document]) -> None:
        """Store the documents of one year. Many documents are stored in parallel sequences.

        Each address has its events in one sequence.
        """
        if len(documents) <= _BATCH:
            self._append_in_order(year, documents)
            return
        sequences: list[list[Document]] = [[] for _ in range(_SEQUENCES)]
        for document in documents:
            # An event of a zone has no address.
            name = document.get("ip") or document["zone"]
            sequences[zlib.crc32(name.encode()) % _SEQUENCES].append(document)
        with ThreadPoolExecutor(_SEQUENCES) as executor:
            futures = [
                executor.submit(copy_context().run, self._append_in_order, year, sequence)
                for sequence in sequences
            ]
        for future in futures:
            future.result()

    def _append_in_order(self, year: int, documents: Sequence[Document]) -> None:
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            try:
                self._store(year, batch)
            except DatastoreMissing:
                self._years.forget(year)
                self._years.ensure(year)
                self._store(year, batch)

    def _store(self, year: int, documents: Sequence[Document]) -> None:
        """Write documents until each is known to be stored by a majority of the nodes.

        CouchDB answers 202 if fewer nodes have a document. Writing it again is then answered with
        201 or a conflict as soon as a majority has it.
        """
        database, pending = self._years.database(year), list(documents)
        for _ in range(_TRIES):
            outcomes = [written.outcome for written in database.put_all(pending)]
            refused = [d for d, o in zip(pending, outcomes, strict=True) if o is Outcome.REFUSED]
            if refused:
                stored, _ = database.look_up([document["_id"] for document in refused])
                lost = [d["_id"] for d in refused if d["_id"] not in stored]
                if lost:
                    raise DatastoreError(f"{database.name} refuses {len(lost)} events: {lost[0]}")
            pending = [d for d, o in zip(pending, outcomes, strict=True) if o is Outcome.UNKNOWN]
            if not pending:
                return
        raise DatastoreUnreachable(f"{database.name}: {len(pending)} events may not be stored")
