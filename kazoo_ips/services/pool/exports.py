"""The export of the whole pool with its history, and its import into an empty database.

An export is a sequence of lines, each a JSON object. Imported into an empty database, it gives the
same documents, and an export of that is the same, byte for byte.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kazoo_ips.model import DedicatedIP, addresses
from kazoo_ips.observability import audit
from kazoo_ips.repositories.documents import is_ip
from kazoo_ips.repositories.event_feed import END, EventFeed
from kazoo_ips.repositories.exports import ExportRepository, RestoreOutcome, is_setting
from kazoo_ips.services.assigning.read_repair import IPReader
from kazoo_ips.services.assigning.recovery import RecoveryService

VERSION = 1
"""The version of the format. A file of a later version is refused."""
HEADER, SETTINGS, EVENT, ADDRESS, LAST = "export", "settings", "event", "address", "end"
"""The types of lines."""
_BATCH = 1000
_RECENT = 120
"""Seconds for which an address is read by itself after a transaction: it may not have ended."""

Line = Mapping[str, Any]


class BadExport(ValueError):
    """The lines are not an export. The message says why."""


class ExportService:
    """Exports everything.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        exports: ExportRepository,
        reader: IPReader,
        recovery: RecoveryService,
        feed: EventFeed,
        now: Callable[[], int],
    ) -> None:
        self._exports = exports
        self._reader = reader
        self._recovery = recovery
        self._feed = feed
        self._now = now

    def size(self, *, history: bool = True) -> int:
        """Return about how many lines an export has, for a progress bar."""
        return self._exports.size(history=history)

    def lines(self, *, history: bool = True) -> Iterator[Line]:
        """Yield the lines of an export: a header, settings, events, addresses, and the end.

        Each address is as it was at some moment since the call. If clients write meanwhile, the
        history may have events that came after that moment.

        :param history: whether to include the events of the history
        :raises Conflict: a transaction does not end
        """
        counts: Counter[str] = Counter()
        yield {"type": HEADER, "version": VERSION}
        for line in self._content(history):
            counts[line["type"]] += 1
            yield line
        yield {"type": LAST, **{name: counts[name] for name in (SETTINGS, EVENT, ADDRESS)}}

    def _content(self, history: bool) -> Iterator[Line]:
        for document in self._exports.settings():
            yield {"type": SETTINGS, "document": document}
        since = self._feed.read(END, 1).since
        for year in self._exports.years() if history else ():
            for document in self._exports.events(year):
                yield {"type": EVENT, "year": year, "document": document}
        for chunk in self._exports.addresses():
            under_way = self._recovery.under_way()
            for ip in chunk:
                current = self._settled(ip) if self._is_unsettled(ip, under_way) else ip
                yield {"type": ADDRESS, "document": self._exports.whole(current)}
        if history:
            yield from self._later_events(since)

    def _later_events(self, since: str) -> Iterator[Line]:
        """Yield the events that were archived since a position in the feed.

        The addresses that were read after their events were exported may lack them.
        """
        more = True
        while more:
            page = self._feed.read(since, _BATCH)
            since, more = page.since, page.more
            for entry in page.entries:
                year, document = self._exports.of_event(entry.event)
                yield {"type": EVENT, "year": year, "document": document}

    def _is_unsettled(self, ip: DedicatedIP, under_way: Iterable[str]) -> bool:
        """Return whether a transaction may still undo what a document says."""
        is_recent = ip.transaction is not None and self._now() - ip.modified < _RECENT
        return ip.conflicted or is_recent or ip.address in under_way

    def _settled(self, ip: DedicatedIP) -> DedicatedIP:
        return self._reader.get(ip.address)


class Restored(NamedTuple):
    """What became of some lines of an export.

    :param type: the type of these lines
    :param counts: their number by outcome
    :param different: the ids of documents that the database has in another form
    :param without_copies: accounts whose copies could not be written, as they have no database
    """

    type: str
    counts: Mapping[str, int]
    different: tuple[str, ...] = ()
    without_copies: tuple[str, ...] = ()


class LineStore(Protocol):
    """Stores lines of an export, in this process or at a URL."""

    def store(self, lines: Sequence[Line], *, dry_run: bool) -> Restored:
        """Store documents of one type, and of one year."""


class LineStorage:
    """Stores lines of an export in the databases."""

    def __init__(self, exports: ExportRepository) -> None:
        self._exports = exports

    def store(self, lines: Sequence[Line], *, dry_run: bool = False) -> Restored:
        """Store documents. Those that the database has already are not changed.

        :param lines: lines of one type, and of one year, for which `is_storable` is true
        :param dry_run: whether to store nothing, and return what would be done
        :raises HistoryMissing: the database of the year is missing, and the service's user may not
            create it
        """
        kind = lines[0]["type"]
        documents = [line["document"] for line in lines]
        without: set[str] = set()
        if kind == ADDRESS:
            outcomes = self._exports.store_addresses(documents, dry_run=dry_run)
            if not dry_run:
                added = _of(RestoreOutcome.ADDED, documents, outcomes)
                audit.imported(map(self._exports.state, added))
                stored = (RestoreOutcome.ADDED, RestoreOutcome.UNCHANGED)
                without = self._exports.store_copies(
                    document for each in stored for document in _of(each, documents, outcomes)
                )
        elif kind == EVENT:
            outcomes = self._exports.store_events(lines[0]["year"], documents, dry_run=dry_run)
        else:
            outcomes = self._exports.store_settings(documents, dry_run=dry_run)
        different = _of(RestoreOutcome.DIFFERENT, documents, outcomes)
        return Restored(
            kind,
            Counter(map(str, outcomes)),
            tuple(document["_id"] for document in different),
            tuple(sorted(without)),
        )


def _of(
    wanted: RestoreOutcome,
    documents: Sequence[dict[str, Any]],
    outcomes: Sequence[RestoreOutcome],
) -> list[dict[str, Any]]:
    """Return the documents with an outcome."""
    return [d for d, outcome in zip(documents, outcomes, strict=True) if outcome is wanted]


class RestoreService:
    """Imports exports."""

    def __init__(self, storage: LineStore) -> None:
        self._storage = storage

    def restore(self, lines: Iterable[Line], *, dry_run: bool = False) -> Iterator[Restored]:
        """Store the documents of an export. Those that the database has already are not changed.

        :param dry_run: whether to store nothing, and return what would be done
        :returns: the results in batches, in the order of the lines
        :raises BadExport: the lines are not an export, or some are missing
        """
        found: Counter[str] = Counter()
        last: Line | None = None
        for batch in _batches(_checked(lines)):
            kind = batch[0]["type"]
            if kind == LAST:
                last = batch[0]
                continue
            found[kind] += len(batch)
            yield self._storage.store(batch, dry_run=dry_run)
        if last is None:
            raise BadExport("the file is incomplete: it has no last line")
        for kind in (SETTINGS, EVENT, ADDRESS):
            if last.get(kind) != found[kind]:
                text = f"{found[kind]} lines of the type {kind} instead of {last.get(kind)}"
                raise BadExport(f"the file is incomplete: it has {text}")


def _checked(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines after the header.

    :raises BadExport: a line has not the form of a line of an export
    """
    read = iter(lines)
    header = next(read, {})
    if header.get("type") != HEADER:
        raise BadExport("this is not an export: the first line is not its header")
    if header.get("version") != VERSION:
        raise BadExport(f"this release cannot read version {header.get('version')} of exports")
    for number, line in enumerate(read, 2):
        if line.get("type") != LAST and not is_storable(line):
            raise BadExport(f"line {number} is not a line of an export")
        yield line


def is_storable(line: Any) -> bool:
    """Return whether this is a line of an export with a document that can be stored.

    So an import stores nothing but addresses, events and settings, and CouchDB refuses no batch
    because of one malformed document.
    """
    if not isinstance(line, dict) or not isinstance(line.get("document"), dict):
        return False
    kind, document = line.get("type"), line["document"]
    own = {"_id", "_rev"} if kind == ADDRESS else {"_id"}
    if {name for name in document if name.startswith("_")} != own:
        return False
    if not isinstance(document["_id"], str):
        return False
    if kind == ADDRESS:
        revision = document["_rev"]
        return (
            is_ip(document)
            and addresses.canonical(document["_id"]) is not None
            and isinstance(revision, str)
            and _REVISION.fullmatch(revision) is not None
        )
    if kind == EVENT:
        year = line.get("year")
        return type(year) is int and 0 < year < 10_000 and isinstance(document.get("event"), str)
    return kind == SETTINGS and is_setting(document["_id"])


_REVISION = re.compile("[1-9][0-9]{0,8}-[0-9a-f]{32}")


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield lines of one type, and of one year, in lists."""
    batch: list[Line] = []
    for line in lines:
        first = batch[0] if batch else line
        differs = (first["type"], first.get("year")) != (line["type"], line.get("year"))
        if batch and (differs or len(batch) == _BATCH):
            yield batch
            batch = []
        batch.append(line)
    if batch:
        yield batch
