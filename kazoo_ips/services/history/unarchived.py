"""Events that the archive may not have yet, from the trails of the pool's documents.

The write that changes an address adds the event to the document's trail. So a document and the
archive together have every acknowledged change. Documents are read first: an event leaves the
trail only some time after the archive has it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from kazoo_ips.errors import IPNotFound
from kazoo_ips.model import DedicatedIP, EventKind, generation, trail_events
from kazoo_ips.model.history import HistoryEvent, Source
from kazoo_ips.model.timelines import position
from kazoo_ips.model.trail import RECENT_SECONDS
from kazoo_ips.repositories.history_lookup import HistoryLookup
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.unarchived_changes import PoolChanges, UnarchivedChanges
from kazoo_ips.services.assigning.read_repair import IPReader
from kazoo_ips.services.assigning.recovery import RecoveryService

_REPLICATION_TIME = 0.04
"""Seconds in which a write that a majority has reaches the last replica of a healthy cluster."""


_UNDONE_IF_ABORTED = frozenset({EventKind.ASSIGNED, EventKind.TRANSFERRED})
"""Kinds of events that a transaction undoes if it is aborted."""


class Present(NamedTuple):
    """What the pool has of an address now.

    :param ip: its dedicated IP; None if the address is not in the pool
    :param events: the events in its trail, the earliest first; also those of a deleted address
    """

    ip: DedicatedIP | None
    events: list[HistoryEvent]


class Unarchived(NamedTuple):
    """The events that the archive may not have yet, the earliest first.

    :param changes: the changes of the pool that they were made from
    """

    events: list[HistoryEvent]
    changes: PoolChanges


class UnarchivedEvents:
    """Reads the events of trails.

    :param now: returns the time in Gregorian seconds
    :param pause: sleeps for a number of seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        changes: UnarchivedChanges,
        lookup: HistoryLookup,
        reader: IPReader,
        recovery: RecoveryService,
        now: Callable[[], int],
        pause: Callable[[float], None],
    ) -> None:
        self._ips = ips
        self._changes = changes
        self._lookup = lookup
        self._reader = reader
        self._recovery = recovery
        self._now = now
        self._pause = pause

    def archived_before(self) -> int | None:
        """Return the time before which the archive has all events, in Gregorian seconds.

        :returns: None if this process does not know: its background work has not begun
        """
        archived = self._ips.archived
        return None if archived is None else archived - RECENT_SECONDS

    def of_address(self, address: str) -> Present:
        """Return what the pool has of an address.

        :param address: a canonical address
        """
        read_at = self._now()
        try:
            ip = self._reader.read(address)
        except IPNotFound:
            found, deleted = self._ips.by_id([address])
            added = found.get(address)  # if another client has added it between the two reads
            last = added or deleted.get(address)
            return Present(added, self._events([last], read_at) if last else [])
        return Present(ip, self._events([ip], read_at))

    def of_all(self) -> Unarchived:
        """Return the events of all documents that have changed since the archive read them.

        If the archive is far behind, only the latest changes are read.
        """
        read_at = self._now()
        changes = self._changes.read()
        found = {ip.address: ip for ip in changes.ips}
        if self._ips.replicas > 1:
            # The feed has what one replica of each shard has, which may lag for a moment.
            self._pause(_REPLICATION_TIME)
            changes = self._changes.read()
            found |= {ip.address: ip for ip in changes.ips}
        return Unarchived(self._events(found.values(), read_at), changes)

    def held(self, account_id: str, addresses: Iterable[str], known: Unarchived) -> set[str]:
        """Return those of these addresses that an account has now, or had when `known` was read.

        :param addresses: ids of documents
        """
        owners = self._changes.owners(addresses, known.changes)
        return {address for address, owner in owners.items() if owner == account_id}

    def _events(self, ips: Collection[DedicatedIP], read_at: int) -> list[HistoryEvent]:
        """Return the events of trails, without those of a transaction that has not committed.

        :param read_at: the time before the documents were read, in Gregorian seconds
        """
        needed = [ip.address for ip in ips if trail_events.needs_archive(ip.trail)]
        archived = self._lookup.last(needed) if needed else {}
        pending: dict[str, bool] = {}
        events: list[HistoryEvent] = []
        for ip in ips:
            name = ip.transaction
            if name and name not in pending:
                pending[name] = self._recovery.is_uncommitted(name)
            found = trail_events.of_trail(ip, read_at, last=archived.get(ip.address))
            if name and pending[name] and found and found[-1].event in _UNDONE_IF_ABORTED:
                del found[-1]
            events += [_inferred(ip, event) for event in found]
        return sorted(events, key=position)


def _inferred(ip: DedicatedIP, event: HistoryEvent) -> HistoryEvent:
    """Return an event as not certain, if other programs have written several times before it.

    The archive compares their revisions. The document only shows the last one.
    """
    if event.source is not Source.KAZOO:
        return event
    written = {e.generation for e in ip.trail if e.since and e.generation - e.since > 1}
    return replace(event, certain=False) if generation(event.revision) in written else event
