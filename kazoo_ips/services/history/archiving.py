"""The archiver: moves events from the trails of the pool's documents to the archive.

It handles the changes of the pool's feed. Everything that it needs is in the document, and each
event has the same id in every process. So an archiver may be killed at any point, and several may
run at the same time.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cachetools import LRUCache

from kazoo_ips.errors import DatastoreError
from kazoo_ips.model import Branches, DedicatedIP, EventKind, trail_events
from kazoo_ips.model.history import HistoryEvent, State
from kazoo_ips.model.trail import NOT_DONE
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.history_archive import HistoryArchive
from kazoo_ips.repositories.history_lookup import HistoryLookup
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.pool_feed import Revision
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.history.foreign_writes import ForeignWrites, Known
from kazoo_ips.services.states.corrections import CorrectionService, ReadChange

log = logging.getLogger(__name__)

DELAY = 2
"""Seconds between reading a change and archiving it. A write without a quorum is withdrawn, and an
assignment without a copy undone, within a few tenths of a second, unless nodes do not answer."""
POLL = 1
"""Seconds between two reads of the feed."""
RETRY_INTERVAL = 1
"""Seconds after which an address is read again whose latest event is not certain yet."""
_CONFLICT = 300
"""Seconds for which the archiver waits until a conflict is resolved. The background work resolves
one within two minutes, unless a newer release has written the status of a revision."""
_ADDRESSES = 5_000
"""Number of addresses of which this process remembers what it has archived, at about 1 kB each. So
the memory of the process soon stops growing, although all addresses of a pool change in time. The
events of an address that it does not remember are stored again. CouchDB refuses those that it has,
which costs one further request for all addresses of a batch."""


class _Archived(NamedTuple):
    """What this process has archived of one address.

    The ids are in tuples: a set takes five times the memory for the few that there are.

    :param ids: the ids of the events of its document
    :param withdrawn: the ids of those events of it that are not in effect
    """

    known: Known | None = None
    ids: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """What one document says.

    :param events: its events, and `withdrawn` those that are not in effect
    """

    known: Known | None
    events: Sequence[HistoryEvent]
    withdrawn: Sequence[HistoryEvent]


class Archiver:
    """Moves events to the archive.

    :param now: returns the time in Gregorian seconds
    :param metrics: counts the events by their source
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        recovery: RecoveryService,
        archive: HistoryArchive,
        lookup: HistoryLookup,
        corrections: CorrectionService,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._recovery = recovery
        self._archive = archive
        self._lookup = lookup
        self._corrections = corrections
        self._foreign = ForeignWrites(ips, lookup)
        self._now = now
        self._metrics = metrics
        self._archived: LRUCache[str, _Archived] = LRUCache(_ADDRESSES)

    def archive(self, changes: Collection[Revision]) -> set[Revision]:
        """Archive the events of these addresses.

        :returns: the changes whose events are not certain yet
        :raises DatastoreError: not all events are known to be archived
        """
        until: dict[str, int] = {}
        for change in changes:
            until[change.address] = max(change.generation, until.get(change.address, 0))
        self._foreign.read_at = self._now()
        branches, waiting = self._read(list(until))
        known = self._known(branches)
        found: dict[str, _Found] = {}
        for address, each in branches.items():
            if address in waiting or not self._is_settled(each):
                waiting.add(address)
                continue
            try:
                found[address] = self._found(address, each, until[address], known.get(address))
            except DatastoreError as error:
                log.warning("%s: not archived yet: %s", address, error)
                waiting.add(address)
        # Before the events are stored: a process that is killed here corrects it the next time.
        waiting |= self._correct(branches, found)
        self._store({a: each for a, each in found.items() if a not in waiting})
        return {change for change in changes if change.address in waiting}

    def _correct(self, branches: Mapping[str, Branches], found: Mapping[str, _Found]) -> set[str]:
        """Correct what other programs have written; return the addresses to read again."""
        changes = {}
        for address, each in found.items():
            live = branches[address].leaves.live
            if len(live) == 1:
                archived = self._archived.get(address, _Archived()).ids
                unarchived = [event for event in each.events if event.id not in archived]
                last = unarchived[-1] if unarchived else None
                changes[address] = ReadChange(live[0], last)
        return self._corrections.correct(changes)

    # Reading.

    def _read(self, ids: Sequence[str]) -> tuple[dict[str, Branches], set[str]]:
        """Return the revisions of these addresses, and the addresses whose assignment is pending.

        The transaction of an assignment may be undone and finished after its documents were read.
        So they are read again, after it is known to be finished.
        """
        branches = self._ips.branches(ids)
        names = self._pending(branches)
        ended = {name for name in set(names.values()) if self._recovery.is_committed(name)}
        again = [address for address, name in names.items() if name in ended]
        if again:
            branches |= self._ips.branches(again)
        still = self._pending(branches)
        return branches, {address for address, name in still.items() if name not in ended}

    def _pending(self, branches: Mapping[str, Branches]) -> dict[str, str]:
        """Return the transactions that may be undone, by address."""
        return {
            address: leaf.transaction
            for address, each in branches.items()
            for leaf in each.leaves.live[:1]
            if leaf.transaction and not self._recovery.is_known_to_end(leaf.transaction)
        }

    def _is_settled(self, branches: Branches) -> bool:
        """Return whether the winner among the revisions stays."""
        leaves = branches.leaves
        if not leaves.live:
            return leaves.restorable is None
        latest = max(ip.modified for ip in leaves.live)
        return len(leaves.live) == 1 or self._now() - latest > _CONFLICT

    def _known(self, branches: Mapping[str, Branches]) -> dict[str, Known | None]:
        """Return what the archive has of these addresses, as far as it is needed and known.

        The documents that the service has never written have no trail. One
        request to the archive looks up whether it has their first events, and one what it has of
        those that another program has written several times.
        """
        self._foreign.look_up(
            [
                address
                for address, each in branches.items()
                if address not in self._archived
                and each.leaves.live
                and trail_events.needs_archive(each.leaves.live[0].trail)
            ]
        )
        known = {a: self._archived[a].known for a in branches if a in self._archived}
        first = {
            address: event
            for address, each in branches.items()
            if each.leaves.live and known.get(address) is None
            for found in each.leaves.live[0].trail
            if found.kind == EventKind.FOUND and not found.since
            for event in trail_events.created(each.leaves.live[0], found)
        }
        stored = self._lookup.stored(list(first.values())) if first else set()
        for address, event in first.items():
            if event.id in stored:
                known[address] = self._foreign.recall(address)
        return known

    # Events.

    def _found(self, address: str, branches: Branches, until: int, known: Known | None) -> _Found:
        """Return what a document says up to a generation.

        Later events are left to the later change of the feed: they may not be certain yet.
        """
        ip, leaves = branches.current, branches.leaves
        is_deleted = not leaves.live and not branches.is_withdrawn
        events: list[HistoryEvent] = []
        state: State | None = None
        ends_here = branches.generation <= until
        own_deletion = ip is not None and any(e.kind == EventKind.DELETED for e in ip.trail[-1:])
        if is_deleted and not own_deletion:
            ip = None
            if ends_here and branches.generation:
                ip, events = self._foreign.deletion(
                    address, branches.generation, branches.revisions, known
                )
        if ip is not None:
            events = [*self._of_trail(ip, branches, until, known), *events]
            state = ip.state if leaves.live else None
        dropped = [*leaves.dropped, *(e for w in leaves.withdrawn for e in w.events)]
        ids = {event.id for event in events}
        not_done = trail_events.not_done(ip, address, dropped)
        withdrawn = [event for event in not_done if event.id not in ids]
        modified = max([ip.modified if ip else 0, *(event.at for event in events)])
        after = Known(branches.generation, state, modified) if ends_here else None
        return _Found(after, events, withdrawn)

    def _of_trail(
        self, ip: DedicatedIP, branches: Branches, until: int, known: Known | None
    ) -> list[HistoryEvent]:
        events = self._foreign.before_creation(ip, branches.revisions, known) if ip.trail else []
        state: State | None = None
        for event in ip.trail:
            if event.generation > until:
                break
            if event.kind == EventKind.FOUND:
                found = self._foreign.events(ip, event, state, branches.revisions, known)
                events = [*found, *events] if not event.since and known is None else events + found
                state = event.state
            elif event.kind not in NOT_DONE:
                made = trail_events.of_service(ip, event, state, branches.revisions)
                events.append(made)
                state = made.after
        return events

    # Writing.

    def _store(self, found: Mapping[str, _Found]) -> None:
        nothing = _Archived()
        events: list[HistoryEvent] = []
        withdrawn: list[HistoryEvent] = []
        for address, each in found.items():
            archived = self._archived.get(address, nothing)
            events += [event for event in each.events if event.id not in archived.ids]
            withdrawn += [e for e in each.withdrawn if e.id not in archived.withdrawn]
        if withdrawn:
            stored = self._lookup.stored(withdrawn)
            now = self._now()
            events += [trail_events.retraction(e, now) for e in withdrawn if e.id in stored]
        if events:
            self._archive.append(events)
        for event in events:
            self._metrics.history_events.labels(str(event.source)).inc()
        for address, each in found.items():
            self._archived[address] = _Archived(
                each.known,
                tuple(event.id for event in each.events),
                tuple(event.id for event in each.withdrawn),
            )
