"""Revisions of the document of a dedicated IP, and the outcome of a write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from kazoo_ips.model import trail as trails
from kazoo_ips.model.dedicated_ip import DedicatedIP
from kazoo_ips.model.trail import EventKind, Trail, generation


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A tombstone with which a writer withdrew its write because it had no quorum.

    :param revision: the revision of the tombstone
    :param base: the revision that the withdrawn write was based on
    :param before: the dedicated IP at that revision
    :param events: the events that the withdrawn write had added to the trail
    """

    revision: str
    base: str
    before: DedicatedIP
    events: Trail = ()


@dataclass(frozen=True, slots=True)
class Leaves:
    """All leaf revisions of one address, read from all replicas.

    :param live: the live revisions, CouchDB's winner first. Several are a conflict
    :param withdrawn: the tombstones of withdrawn writes
    :param deleted: for each deletion by a client, the dedicated IP as its tombstone records it
    :param latest: the revision that a new write would follow, which may be a tombstone; None if
        there is no revision
    :param dropped: the events that only dropped revisions had
    :param before_dropped: each dropped revision, without these events in its trail
    """

    live: tuple[DedicatedIP, ...]
    withdrawn: tuple[Withdrawal, ...] = ()
    deleted: tuple[DedicatedIP, ...] = ()
    latest: str | None = None
    dropped: Trail = ()
    before_dropped: tuple[DedicatedIP, ...] = ()

    @property
    def trail(self) -> Trail:
        """The events of all deleted documents of the address, the latest last."""
        events = dict.fromkeys(event for ip in self.deleted for event in ip.trail)
        return tuple(sorted(events, key=lambda event: event.at))

    @property
    def deletion(self) -> DedicatedIP | None:
        """The dedicated IP as it was at its deletion; None if no client has deleted it.

        Of several deletions, it is the one whose tombstone CouchDB shows.
        """
        return max(
            self.deleted,
            key=lambda ip: (generation(ip.revision), ip.revision or ""),
            default=None,
        )

    @property
    def deleted_trail(self) -> Trail:
        """The trail of an address that is deleted; empty if it never existed.

        If an addition after the deletion was dropped, the tombstone of the addition has the trail.
        """
        ended = [
            ip for ip in self.before_dropped if ip.trail and ip.trail[-1].kind == EventKind.DELETED
        ]
        found = [*ended, *([self.deletion] if self.deletion else [])]
        latest = max(found, key=lambda ip: generation(ip.revision), default=None)
        return latest.trail if latest else ()

    @property
    def restorable(self) -> Withdrawal | None:
        """The withdrawal from which the address has to be restored; None if it has not to be.

        It has to be restored if all writers have withdrawn their writes, so that no live revision
        is left, and if no client has deleted the address since the last of these writes began.
        """
        if self.live or not self.withdrawn:
            return None
        last = max(self.withdrawn, key=lambda w: (generation(w.base), w.revision))
        deleted_since = self._is_deleted_after(last.base)
        return None if deleted_since else last

    def supersede(self, revision: str | None) -> bool:
        """Return whether another writer has replaced a revision, or a client has deleted it.

        The result is false if no later revision was read: perhaps the replicas that have the
        revision, or a later one, did not answer.
        """
        if any(leaf.revision == revision for leaf in self.live):
            return False
        base = generation(revision)
        newer = any(generation(leaf.revision) > base for leaf in self.live)
        return newer or self._is_deleted_after(revision)

    def reach(self, revision: str | None) -> bool:
        """Return whether the replicas that answered have this revision or a later one.

        If they do not, the replicas that did not answer may have a write that was not read.
        """
        revisions = [
            *(ip.revision for ip in (*self.live, *self.deleted)),
            *(withdrawal.revision for withdrawal in self.withdrawn),
        ]
        return max(map(generation, revisions), default=0) >= generation(revision)

    def is_single_since(self, revision: str | None) -> bool:
        """Return whether one revision is live, and no client has deleted the address since.

        :param revision: only deletions after this revision count
        """
        return len(self.live) == 1 and not self._is_deleted_after(revision)

    def is_withdrawn_since(self, revision: str | None) -> bool:
        """Return whether a writer has withdrawn a write to this revision, or to a later one."""
        return any(generation(each.base) >= generation(revision) for each in self.withdrawn)

    def is_outdated(self, leaf: DedicatedIP) -> bool:
        """Return whether a client deleted the address after the last event of a live revision.

        Then a worker has written the revision without an event, for example to confirm or fence a
        write, on a node that did not have the deletion yet.
        """
        last = trails.latest(leaf.trail)
        if last is None:
            return False
        last = trails.original(last)  # an undo replaces the assignment's event in the trail
        return any(
            ip.trail and ip.trail[-1].kind == EventKind.DELETED and last in ip.trail
            for ip in self.deleted
        )

    def _is_deleted_after(self, revision: str | None) -> bool:
        return any(generation(ip.revision) > generation(revision) for ip in self.deleted)


@dataclass(frozen=True, slots=True)
class Branches:
    """All revisions of one address that CouchDB still knows.

    :param revisions: the winner and the revisions before it, by generation
    :param is_withdrawn: whether the winner is the tombstone of a withdrawn write, and not that of
        a deletion by a client
    """

    leaves: Leaves
    revisions: Mapping[int, str] = field(default_factory=dict)
    is_withdrawn: bool = False

    @property
    def generation(self) -> int:
        """The generation of the winner; 0 if there is none."""
        return max(self.revisions, default=0)

    @property
    def current(self) -> DedicatedIP | None:
        """The dedicated IP, or what it was at its deletion by a client; None if it never existed.

        If there is a conflict, it is CouchDB's winner.
        """
        dropped = max(
            self.leaves.before_dropped, key=lambda ip: generation(ip.revision), default=None
        )
        if self.is_withdrawn and dropped and dropped.trail == self.leaves.deleted_trail:
            return dropped
        return next(iter(self.leaves.live), self.leaves.deletion)


class Outcome(Enum):
    """The outcome of one write, as CouchDB answers it.

    * `DONE`: a quorum has the write (201).
    * `REFUSED`: nothing was written (409).
    * `UNKNOWN`: some, all or no nodes may have the write (202, an error, or no response).
    """

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of one write.

    :param revision: the new revision; None if CouchDB did not return it
    """

    outcome: Outcome
    revision: str | None = None
