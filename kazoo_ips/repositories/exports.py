"""All documents of the pool, its history and its settings, as they are, and stored as they were.

A dedicated IP is stored with the revision that it had. So what names a revision stays right: the
trail, the events of the history, and the ETags that clients have.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice

from kazoo_ips.couch.client import Couch, Database, Document
from kazoo_ips.errors import DatastoreForbidden, DatastoreMissing
from kazoo_ips.model import DedicatedIP, Outcome
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.documents import POOL, from_document, is_ip
from kazoo_ips.repositories.history_documents import to_document
from kazoo_ips.repositories.history_years import HistoryYears
from kazoo_ips.repositories.records import RECORDS

_CHUNK = 1000
"""Documents that are read at a time."""
_EVENTS = 200
"""Events that are written at a time, as in the archive."""
_END = "\ufff0"
_SETTINGS = ("limit", "low_zones", "place-settings")
"""The beginnings of the ids of settings in the service's own database: the limits of accounts and
their index, the zones that are low, and the settings of zones and hosts. Its other documents are
transactions, stored replies, leases and webhooks, whose secrets nobody may read."""
_NOT_EXPORTED = frozenset({"_conflicts", "_attachments"})
_OF_RECORDS = frozenset({"_rev", "_conflicts", "_attachments", "write", "late"})


class RestoreOutcome(StrEnum):
    """What became of one document of an export."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    """The database has the same document already."""
    DIFFERENT = "different"
    """The database has another document with this id, or had one. It is not changed."""
    FAILED = "failed"
    """CouchDB refuses it."""


def is_setting(document_id: str) -> bool:
    """Return whether a document with this id of the service's own database is a setting."""
    return document_id.startswith(_SETTINGS)


class ExportRepository:
    """Reads and stores whole documents."""

    def __init__(self, couch: Couch, years: HistoryYears, copies: AccountCopyRepository) -> None:
        self._pool = couch.database(POOL)
        self._records = couch.database(RECORDS)
        self._years = years
        self._copies = copies

    # Reading.

    def size(self, *, history: bool) -> int:
        """Return about how many documents an export has.

        :param history: whether it has the events of the history
        """
        years = self._years.existing() if history else []
        databases = [self._pool, *(self._years.database(year) for year in years)]
        return sum(int(database.info().get("doc_count", 0)) for database in databases)

    def settings(self) -> Iterator[Document]:
        """Yield the documents of settings."""
        for prefix in _SETTINGS:
            for document in self._records.range(prefix, prefix + _END):
                yield {k: v for k, v in document.items() if k not in _OF_RECORDS}

    def years(self) -> list[int]:
        """Return the years of the history, in ascending order."""
        return self._years.existing()

    def events(self, year: int) -> Iterator[Document]:
        """Yield the documents of all events of a year, by id."""
        for document in self._years.database(year).range("", _END, _CHUNK):
            if "event" in document:
                yield _event(document)

    def of_event(self, event: HistoryEvent) -> tuple[int, Document]:
        """Return the year and the document of an event."""
        return self._years.year_for(event.at), to_document(event)

    def addresses(self) -> Iterator[list[DedicatedIP]]:
        """Yield all dedicated IPs by id, in lists. Each has its whole document in `source`."""
        documents = self._pool.range("", _END, _CHUNK)
        while chunk := list(islice(documents, _CHUNK)):
            yield [from_document(document) for document in chunk if is_ip(document)]

    @staticmethod
    def whole(ip: DedicatedIP) -> Document:
        """Return the document of a dedicated IP with its revision."""
        return {k: v for k, v in ip.source.items() if k not in _NOT_EXPORTED}

    # Storing.

    def store_settings(
        self, documents: Sequence[Document], *, dry_run: bool
    ) -> list[RestoreOutcome]:
        """Store settings. Those that the database has already are not changed."""
        return _store(self._records, documents, dry_run=dry_run)

    def store_events(
        self, year: int, documents: Sequence[Document], *, dry_run: bool
    ) -> list[RestoreOutcome]:
        """Store events in the database of a year.

        :raises HistoryMissing: the database is missing, and the user may not create it
        """
        if not dry_run:
            self._years.ensure(year)
        elif year not in self._years.existing():
            return [RestoreOutcome.ADDED for _ in documents]
        database = self._years.database(year)
        return [
            outcome
            for start in range(0, len(documents), _EVENTS)
            for outcome in _store(database, documents[start : start + _EVENTS], dry_run=dry_run)
        ]

    def store_addresses(
        self, documents: Sequence[Document], *, dry_run: bool
    ) -> list[RestoreOutcome]:
        """Store dedicated IPs at their revisions.

        An address that the pool has, or has had and deleted, is not changed: two revisions of one
        document would be a conflict.

        :raises OutcomeUnknown: it is unknown whether they are stored; storing them again is safe
        """
        ids = [document["_id"] for document in documents]
        live, deleted = self._pool.look_up(ids)
        existing = {**deleted, **live}
        new = [document for document in documents if document["_id"] not in existing]
        if new and not dry_run:
            self._pool.replicate_all(new)
            existing |= self._pool.look_up([document["_id"] for document in new])[0]
        added = {document["_id"] for document in new}
        return [_restored(document, existing, added, dry_run=dry_run) for document in documents]

    def state(self, document: Document) -> tuple[str, str, str | None]:
        """Return the address of a document, its status, and the account that has it."""
        return document["_id"], str(document.get("pvt_status")), document.get("pvt_assigned_to")

    def store_copies(self, documents: Iterable[Document]) -> set[str]:
        """Write the accounts' copies of assigned addresses.

        :returns: the accounts that have no database, or to whose database CouchDB refuses access
        """
        owned: dict[str, list[DedicatedIP]] = {}
        for document in documents:
            ip = from_document(document)
            if ip.assigned_to and ip.status == "assigned":
                owned.setdefault(ip.assigned_to, []).append(ip)
        without = set()
        for account_id, ips in owned.items():
            try:
                self._copies.save(ips)
            except (DatastoreMissing, DatastoreForbidden):
                without.add(account_id)
        return without


def _event(document: Document) -> Document:
    return {k: v for k, v in document.items() if k not in ("_rev", "_conflicts")}


def _store(
    database: Database, documents: Sequence[Document], *, dry_run: bool
) -> list[RestoreOutcome]:
    """Store new documents, and compare those that the database has already."""
    if dry_run:
        outcomes = [Outcome.REFUSED] * len(documents)
    else:
        outcomes = [written.outcome for written in database.put_all(documents)]
    unconfirmed = [
        d["_id"] for d, o in zip(documents, outcomes, strict=True) if o is not Outcome.DONE
    ]
    stored = database.look_up(unconfirmed)[0] if unconfirmed else {}
    missing = RestoreOutcome.ADDED if dry_run else RestoreOutcome.FAILED
    return [
        RestoreOutcome.ADDED
        if outcome is Outcome.DONE
        else _compared(document, stored[document["_id"]])
        if document["_id"] in stored
        else missing
        for document, outcome in zip(documents, outcomes, strict=True)
    ]


def _compared(document: Document, stored: Document) -> RestoreOutcome:
    one, other = (
        {k: v for k, v in each.items() if k not in _OF_RECORDS} for each in (document, stored)
    )
    return RestoreOutcome.UNCHANGED if one == other else RestoreOutcome.DIFFERENT


def _restored(
    document: Document, existing: Mapping[str, Document], added: set[str], *, dry_run: bool
) -> RestoreOutcome:
    stored = existing.get(document["_id"])
    if document["_id"] in added:
        if dry_run or (stored and stored["_rev"] == document["_rev"]):
            return RestoreOutcome.ADDED
        return RestoreOutcome.FAILED
    same = stored is not None and stored["_rev"] == document["_rev"]
    return RestoreOutcome.UNCHANGED if same else RestoreOutcome.DIFFERENT
