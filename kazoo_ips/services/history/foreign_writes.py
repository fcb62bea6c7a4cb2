"""Events for what other programs have written to the pool's documents: Kazoo, Fauxton, scripts.

Such writes do not change the trail. A document says which revision this service has written last.
This module reads later revisions from CouchDB, which keeps their bodies until it compacts the
database. After that only their ids remain. Then the history has a gap, which it shows as an event.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kazoo_ips.model import DedicatedIP, Event, EventKind, generation, trail_events
from kazoo_ips.model.history import HistoryEvent, HistoryEventKind, State
from kazoo_ips.model.trail_events import FRESH, Revisions, Snapshot
from kazoo_ips.repositories.history_lookup import HistoryLookup
from kazoo_ips.repositories.ips import IPRepository


class Known(NamedTuple):
    """What the archive has of one address.

    :param generation: all revisions up to this generation are in the archive
    :param state: the state after that; None if the address was deleted
    :param modified: the time of the last of them, in Gregorian seconds
    :param is_gap: whether the last of these revisions is missing, so that the state is not known
    """

    generation: int
    state: State | None
    modified: int
    is_gap: bool = False


class ForeignWrites:
    """Makes the events for what other programs have written.

    :ivar read_at: the time before the documents were read, in Gregorian seconds. A write without a
        time of its own gets this time: every write after the read has a later one
    """

    def __init__(self, ips: IPRepository, lookup: HistoryLookup) -> None:
        self._ips = ips
        self._lookup = lookup
        self.read_at = 0
        self._looked_up: dict[str, HistoryEvent | None] = {}

    def look_up(self, addresses: Sequence[str]) -> None:
        """Look up together what the archive has of the addresses of a batch."""
        found = self._lookup.last(addresses) if addresses else {}
        self._looked_up = {address: found.get(address) for address in addresses}

    def recall(self, address: str) -> Known | None:
        """Return what the archive has of an address. It is read if it was not looked up."""
        if address not in self._looked_up:
            self._looked_up |= {address: self._lookup.last([address]).get(address)}
        last = self._looked_up[address]
        if last is None:
            return None
        is_gap = last.event == HistoryEventKind.UNKNOWN
        return Known(generation(last.revision), last.after, last.at, is_gap)

    def events(
        self,
        ip: DedicatedIP,
        found: Event,
        before: State | None,
        revisions: Revisions,
        known: Known | None,
    ) -> list[HistoryEvent]:
        """Return the events for the writes before a state that was found in a document.

        :param before: the state after the event before it in the trail, if there is one
        :param known: what the archive has of the address, if that is known
        """
        if found is ip.trail[0] and (known is None or known.generation == 0):
            # A document of the first generation replaces none.
            known = self.recall(ip.address) if found.generation > 1 else None
        if not found.since and (known is None or known.generation == 0):
            # It is only known that it was created. The writes since then are not counted.
            first = trail_events.of_found(ip, found, before, revisions)
            return [*trail_events.created(ip, found), *([first] if first else [])]
        known = known or self.recall(ip.address)
        if found is ip.trail[0] and known and known.generation < found.generation:
            return self._after_lost_trail(ip, found, known, revisions)
        since, modified = found.since, 0
        if known and known.generation >= since:
            since, modified = known.generation, known.modified
            if not known.is_gap:
                before = known.state
                if before is None and self._is_creation(ip, found, known, revisions):
                    return []
        else:
            before = self._state_at(ip.address, revisions.get(since)) or before
        return self._compared(ip, found, since, before, modified, revisions)

    def before_creation(
        self, ip: DedicatedIP, revisions: Revisions, known: Known | None
    ) -> list[HistoryEvent]:
        """Return the events before the creation with which a trail begins.

        If another program has deleted the address, its tombstone has no trail, which this service
        could have continued. So the deletion, and what was not archived before it, is not in the
        document.
        """
        created = ip.trail[0]
        if created.kind != EventKind.CREATED or created.generation <= 1:
            return []
        known = known or self.recall(ip.address)
        deletion = created.generation - 1
        if known is None or not 0 < known.generation < deletion:
            return []
        found = Event(EventKind.FOUND, None, created.at, "", deletion, since=known.generation)
        return self._after_lost_trail(ip, found, known, revisions)

    def _after_lost_trail(
        self, ip: DedicatedIP, found: Event, known: Known, revisions: Revisions
    ) -> list[HistoryEvent]:
        """Return the events since what is known, of a document that another program has replaced.

        It does not have the trail any more: the address was deleted and created again, or the
        trail was removed. CouchDB keeps the trail in earlier revisions until it compacts.
        """
        since, state = known.generation, known.state
        events: list[HistoryEvent] = []
        for number in range(found.generation - 1, since, -1):
            revision = revisions.get(number, "")
            deleted = self._ips.deletion_at(ip.address, revision) if revision else None
            earlier = deleted or (revision and self._ips.at_revision(ip.address, revision)) or None
            if earlier and earlier.trail and earlier.trail[-1].generation == number:
                made = trail_events.of_trail(earlier, self.read_at, revisions)
                events = [event for event in made if generation(event.revision) > since]
                since, state = number, None if deleted else earlier.state
                break
        return events + self._compared(ip, found, since, state, known.modified, revisions)

    def _state_at(self, address: str, revision: str | None) -> State | None:
        ip = self._ips.at_revision(address, revision) if revision else None
        return ip.state if ip else None

    def _compared(  # noqa: PLR0913, PLR0917 - one for each thing that is known of the start
        self,
        ip: DedicatedIP,
        found: Event,
        since: int,
        before: State | None,
        modified: int,
        revisions: Revisions,
    ) -> list[HistoryEvent]:
        """Compare each revision with the one before it.

        A revision that is missing was written before the next one that is known. With that time
        it comes before it in every list.

        :param since: the generation after which the comparison starts
        :param before: the state after that
        :param modified: when the archive has it from, in Gregorian seconds; 0 if it does not
        """
        events = self._until_deletion(ip, found, since, revisions)
        if events:
            since, before = found.generation - 1, None
        modified = max([modified, *(e.at for e in ip.trail if e.generation <= since)])
        later = (e.at for e in ip.trail if e.generation > found.generation)
        latest = min([self.read_at, *later])
        missing: list[str] = []
        for number in range(since + 1, found.generation + 1):
            after = self._snapshot(ip.address, number, found, revisions)
            if after is None:
                missing.append(revisions.get(number, str(number)))
                continue
            dated = after.dated(modified, latest)
            events += [trail_events.gap(ip.address, dated.modified, name) for name in missing]
            certain = dated == after and not missing and (after.state or self._is_dated())
            made = trail_events.change(ip.address, before, dated, revisions, certain=bool(certain))
            if made is None and missing and after.state:  # an event for the state after the gap
                made = trail_events.after_gap(ip.address, dated, revisions)
            events += [made] if made else []
            before, modified, missing = after.state, max(modified, after.modified), []
        return events

    def _until_deletion(
        self, ip: DedicatedIP, found: Event, since: int, revisions: Revisions
    ) -> list[HistoryEvent]:
        """Return the events up to a deletion by this service on which the found state follows.

        A node of a cluster may receive the addition of an address after the deletion, and then
        creates the document again, as it was added. Only the tombstone has the events since then.

        :param since: the generation after which the events are wanted
        """
        deletion = None
        if since < found.generation - 1:
            deletion = self._deletion_before(ip, found, revisions)
        events = trail_events.of_trail(deletion, self.read_at, revisions) if deletion else []
        return [event for event in events if generation(event.revision) > since]

    def _deletion_before(
        self, ip: DedicatedIP, found: Event, revisions: Revisions
    ) -> DedicatedIP | None:
        number = found.generation - 1
        earlier = revisions.get(number)
        deletion = self._ips.deletion_at(ip.address, earlier) if earlier else None
        if deletion is None or not deletion.trail:
            return None
        last = deletion.trail[-1]
        return deletion if (last.kind, last.generation) == (EventKind.DELETED, number) else None

    def _snapshot(
        self, address: str, number: int, found: Event, revisions: Revisions
    ) -> Snapshot | None:
        if number == found.generation:
            return Snapshot(number, found.state, found.at)
        if number not in revisions:
            return None
        ip = self._ips.at_revision(address, revisions[number])
        if ip:
            return Snapshot(number, ip.state, ip.modified)
        if self._ips.deletion_at(address, revisions[number]):
            return Snapshot(number, None, min(found.at, self.read_at))
        return None

    def deletion(
        self, address: str, number: int, revisions: Revisions, known: Known | None
    ) -> tuple[DedicatedIP | None, list[HistoryEvent]]:
        """Return what is known of an address that another program has deleted.

        :param number: the generation of its tombstone
        :returns: the address as it was before, if CouchDB still has that, and the events since
            then
        """
        known = known or self.recall(address)
        after = Snapshot(number, None, self.read_at)
        since = known.generation if known else 0
        if since >= number or (
            known and since == number - 1 and not (known.state or known.is_gap)
        ):
            return None, []  # the archive has it, or the address was deleted already
        earlier = revisions.get(number - 1)
        ip = self._ips.at_revision(address, earlier) if earlier else None
        if ip:
            certain = self._is_dated()
            made = trail_events.deletion(address, ip.state, after, revisions, certain=certain)
            return ip, [made]
        # A document that is only marked as deleted still has its trail.
        marked = self._ips.deletion_at(address, revisions[number])
        if marked and marked.trail:
            since = max(since, marked.trail[-1].generation)
            missing = self._missing(address, since, number, revisions)
            certain = self._is_dated() and not missing
            made = trail_events.deletion(address, marked.state, after, revisions, certain=certain)
            return marked, [*missing, made]
        if known is None:
            return None, []
        missing = self._missing(address, since, number, revisions)
        certain = self._is_dated() and not (missing or known.is_gap)
        made = trail_events.deletion(address, known.state, after, revisions, certain=certain)
        return None, [*missing, made]

    def _missing(
        self, address: str, since: int, until: int, revisions: Revisions
    ) -> list[HistoryEvent]:
        """Return the gaps for the revisions between two generations."""
        names = (revisions.get(n, str(n)) for n in range(since + 1, until))
        return [trail_events.gap(address, self.read_at, name) for name in names]

    def _is_dated(self) -> bool:
        """Return whether a deletion was written shortly before it was read.

        It has no time of its own. While no archiver ran, it may have waited for hours.
        """
        archived = self._ips.archived
        return archived is not None and self.read_at - archived < FRESH

    def _is_creation(
        self, ip: DedicatedIP, found: Event, known: Known, revisions: Revisions
    ) -> bool:
        """Return whether the state that was found is that in which this service has created it.

        An import does not read the tombstones of addresses that were in the pool before, and so
        does not know the generation of the revision that it creates.
        """
        index = ip.trail.index(found)
        created = ip.trail[index - 1] if index else None
        if (
            created is None
            or created.state != found.state
            or created.generation > known.generation
            or found.generation != known.generation + 1
        ):
            return False
        # The address may also be back as it was added before the deletion.
        deletion = self._deletion_before(ip, found, revisions)
        return deletion is None or created not in deletion.trail
