"""Writes to the pool whose outcome is found out: ours, somebody else's, undone, or unknown.

CouchDB does a write (201), refuses it (409) or leaves it open: no quorum (202), no answer, a
failure. What is open is read back by what every write carries: the id of its request. What has no
quorum is withdrawn. What may still be under way is fenced: the revision moves on, so that a write
on the old one is refused whenever it arrives.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum

from kazoo_ips.errors import DatastoreError, DatastoreUnreachable, KazooIPsError
from kazoo_ips.model import DedicatedIP, Leaves, Outcome, Written, generation
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver

log = logging.getLogger(__name__)

_TRIES = 3
"""Times that something is tried while others write to the same addresses."""


class Fate(Enum):
    """What became of one write."""

    DONE = "done"
    """A quorum has it."""
    LOST = "lost"
    """Somebody else has written; nothing of ours is left."""
    UNDONE = "undone"
    """Nobody else has written, and nothing of ours is left or can still arrive."""
    UNKNOWN = "unknown"
    """It could not be found out."""


@dataclass(frozen=True, slots=True)
class Result:
    """One write and what became of it.

    :param ip: the dedicated IP as it was to be; at its new revision when the write is done
    """

    fate: Fate
    ip: DedicatedIP


class PoolWriter:
    """Writes dedicated IPs of the pool.

    :param look_again: called with an address that is to be looked at a little later, and the
        account whose copy of it may be wrong
    """

    def __init__(
        self,
        ips: IPRepository,
        conflicts: ConflictResolver,
        look_again: Callable[[str, str], None],
    ) -> None:
        self._ips = ips
        self._conflicts = conflicts
        self._look_again = look_again

    def write(self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]) -> list[Result]:
        """Write dedicated IPs in one request and find out what became of each.

        :param before: the same dedicated IPs as they were read
        :returns: in the order given
        :raises DatastoreUnreachable: nothing was written
        """
        return list(map(self._result, before, after, self._ips.save_all(after)))

    def _result(self, before: DedicatedIP, after: DedicatedIP, written: Written) -> Result:
        if written.outcome is Outcome.DONE:
            return Result(Fate.DONE, replace(after, revision=written.revision))
        try:
            return self._find_out(before, after, written)
        except DatastoreError as error:
            log.warning("%s: not known whether it is written: %s", after.address, error)
            self._look_again(after.address, after.assigned_to or before.assigned_to or "")
            return Result(Fate.UNKNOWN, after)

    def _find_out(self, before: DedicatedIP, after: DedicatedIP, written: Written) -> Result:
        # A release without a quorum may have been read: others were told of it, and it may have
        # reached a majority by that.
        if written.revision and after.assigned_to:
            return self._withdrawn(before, after, replace(after, revision=written.revision))
        for _ in range(_TRIES):
            leaves = self._ips.leaves(after.address)
            found = self._found(before, after, leaves)
            if found:
                return found
            if leaves.supersede(before.revision):
                return Result(Fate.LOST, after)
            # It may still arrive, one that was refused as well: by a node that lags, or by what
            # stands in between.
            fence = self._ips.save(before)
            if fence.outcome is Outcome.DONE:
                return Result(Fate.UNDONE, after)
            if fence.revision:
                # No quorum; it may be all there is, so its tombstone must allow to restore it.
                fenced = replace(before, revision=fence.revision)
                return self._withdrawn(before, after, fenced)
            # Our write has arrived meanwhile, or the fence after all, or somebody else's.
        raise DatastoreUnreachable(f"{after.address}: what became of the write is not known")

    def _found(self, before: DedicatedIP, after: DedicatedIP, leaves: Leaves) -> Result | None:
        """What became of a write that shows among the current revisions; None if it does not."""
        ours = next((leaf for leaf in leaves.live if _is_write(leaf, after)), None)
        if ours and not leaves.are_one_since(before.revision):
            return self._withdrawn(before, after, ours)
        if ours:
            return self._confirmed(before, ours)
        built_on = _is_built_on(leaves.live, before, after)
        return self._built_on(after, leaves.live[0]) if built_on else None

    def confirm(self, ip: DedicatedIP) -> DedicatedIP:
        """A write of an earlier attempt that was read, once it certainly has a quorum.

        It is written again on its own revision, with a single node too: the earlier attempt may
        have sent something that takes it back, which is refused from then on.

        :raises DatastoreUnreachable: it has none, or it cannot be found out
        """
        written = self._ips.save(ip)
        if written.outcome is not Outcome.DONE or not self._is_alone(ip, ip.revision):
            raise DatastoreUnreachable(f"{ip.address}: no quorum")
        return replace(ip, revision=written.revision)

    def _is_alone(self, ip: DedicatedIP, since: str | None) -> bool:
        """Whether nobody else's write shows beside one that has a quorum."""
        return self._ips.replicas == 1 or self._ips.leaves(ip.address).are_one_since(since)

    def _confirmed(self, before: DedicatedIP, ours: DedicatedIP) -> Result:
        """Find out whether a write of ours that went unanswered has a quorum.

        Writing it again on its own revision needs a majority that has it; after that nobody else
        can get one, and whoever got one before shows among the leaves.
        """
        if self._ips.replicas == 1:
            return Result(Fate.DONE, ours)
        written = self._ips.save(ours)
        again = replace(ours, revision=written.revision or ours.revision)
        if written.outcome is Outcome.DONE and self._is_alone(ours, before.revision):
            return Result(Fate.DONE, again)
        released = before.assigned_to and not ours.assigned_to
        if released and self._ips.leaves(ours.address).are_one_since(before.revision):
            # Others may have been told of it, so it stays, and is done once a majority has it.
            raise DatastoreUnreachable(f"{ours.address}: released, without a quorum")
        return self._withdrawn(before, ours, again)

    def _withdrawn(self, before: DedicatedIP, after: DedicatedIP, alone: DedicatedIP) -> Result:
        """Take back what has no quorum; a rival's write stays, if there is one.

        :param after: our write, any revision of which is taken back
        :param alone: it, or its fence, at the revision that has no quorum
        :raises DatastoreUnreachable: it is not known whether it is taken back
        """
        try:
            return self._take_back(before, after, alone)
        finally:  # whoever met it meanwhile may have written a copy
            self._look_again(after.address, after.assigned_to or before.assigned_to or "")

    def _take_back(self, before: DedicatedIP, after: DedicatedIP, alone: DedicatedIP) -> Result:
        left = [alone]
        for _ in range(_TRIES):
            for leaf in left:
                self._ips.withdraw(leaf, before)
            leaves = self._ips.leaves(after.address)
            live = [leaf for leaf in leaves.live if leaf.revision != before.revision]
            # What was refused or unanswered, and what of ours has arrived meanwhile.
            left = [
                leaf
                for leaf in live
                if _is_write(leaf, after) or leaf.revision in {ip.revision for ip in left}
            ]
            if not left and _is_built_on(live, before, after):
                return self._built_on(after, live[0])
            if not left and leaves.reach(before.revision):
                return self._without(after, rival=leaves.supersede(before.revision))
        raise DatastoreUnreachable(f"{after.address}: not known whether withdrawn")

    def _built_on(self, after: DedicatedIP, latest: DedicatedIP) -> Result:
        """A write of ours that somebody has read and written on before we knew of it.

        :raises DatastoreUnreachable: the later one has no quorum, so it is not certain to stay
        """
        self._look_again(after.address, after.assigned_to or "")
        self.confirm(latest)
        return Result(Fate.DONE, after)

    def _without(self, after: DedicatedIP, *, rival: bool) -> Result:
        if rival:
            return Result(Fate.LOST, after)
        with suppress(KazooIPsError):  # whoever looks again brings it back
            self._conflicts.resolve(after.address)
        return Result(Fate.UNDONE, after)

    def put_back(self, done: Sequence[DedicatedIP]) -> None:
        """Make assigned dedicated IPs available again, unless somebody else has written since.

        :param done: as they were written
        :raises DatastoreUnreachable: it is not known whether all are
        """
        left = [ip.undo() for ip in done]
        for ip in done:
            self._look_again(ip.address, ip.assigned_to or "")
        for _ in range(_TRIES):
            written = list(zip(left, self._ips.save_all(left), strict=True))
            # One without a quorum is written again on its own revision, which takes a majority
            # that has it.
            left = [
                replace(ip, revision=w.revision or ip.revision)
                for ip, w in written
                if w.outcome is Outcome.UNKNOWN
            ]
            refused = {ip.address for ip, w in written if w.outcome is Outcome.REFUSED}
            left += self._still_there([ip for ip in done if ip.address in refused])
            if not left:
                return
        raise DatastoreUnreachable(f"{left[0].address}: not known whether it is put back")

    def _still_there(self, done: Sequence[DedicatedIP]) -> list[DedicatedIP]:
        """Those that nobody else has written to, although it was refused to put them back."""
        if not done:
            return []
        found = self._ips.find([ip.address for ip in done])
        pairs = [(ip, found[ip.address]) for ip in done if ip.address in found]
        # What is older was read from a copy that lags.
        return [
            (there if _is_write(there, ip) else ip).undo()
            for ip, there in pairs
            if _is_write(there, ip) or generation(there.revision) < generation(ip.revision)
        ]


def _is_write(leaf: DedicatedIP, ip: DedicatedIP) -> bool:
    """Whether a revision is this very write. Request ids are the callers' to choose."""
    return _name(leaf) == _name(ip)


def _is_built_on(live: Sequence[DedicatedIP], before: DedicatedIP, after: DedicatedIP) -> bool:
    """Whether the only revision there is was made on a write of ours, which added to the trail."""
    added = [event for event in after.trail if event not in before.trail]
    return len(live) == 1 and bool(added) and set(added) <= set(live[0].trail)


def _name(ip: DedicatedIP) -> tuple[object, ...]:
    return (ip.request_id, ip.status, ip.assigned_to, ip.modified, ip.transaction)
