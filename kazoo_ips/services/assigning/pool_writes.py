"""Writes to the pool whose outcome is determined: done, lost, undone or unknown.

CouchDB accepts a write (201), refuses it (409) or leaves its outcome open (202 without a quorum,
no answer, an error). In the open cases the writer reads the document back and recognises its own
write by the request id in it. A write without a quorum is withdrawn: its revision is replaced by a
tombstone. A write that may still arrive is fenced: the writer writes a new revision, so that
CouchDB refuses the late write, whose base revision is outdated.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import repeat

from kazoo_ips.errors import DatastoreError, DatastoreUnreachable, KazooIPsError
from kazoo_ips.model import DedicatedIP, Leaves, Outcome, Written, generation, replace, trail
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver

log = logging.getLogger(__name__)

_TRIES = 3
"""Maximum number of tries of a step while other writers write to the same addresses."""


class FinalOutcome(Enum):
    """The determined outcome of one write."""

    DONE = "done"
    """A quorum of the nodes has the write."""
    LOST = "lost"
    """Another writer has written, and this write has no effect."""
    UNDONE = "undone"
    """No other writer has written, this write has no effect, and it cannot arrive later."""
    UNKNOWN = "unknown"
    """The outcome could not be determined."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """One write and its outcome.

    :param ip: the dedicated IP that was to be written; if the write is done, at its new revision
    """

    outcome: FinalOutcome
    ip: DedicatedIP


class PoolWriter:
    """Writes dedicated IPs of the pool.

    :param schedule_check: schedules a later check of an address, and of an account's copy of it
    """

    def __init__(
        self,
        ips: IPRepository,
        conflicts: ConflictResolver,
        schedule_check: Callable[[str, str], None],
    ) -> None:
        self._ips = ips
        self._conflicts = conflicts
        self._schedule_check = schedule_check

    def write(
        self,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
        transaction: str | None = None,
    ) -> list[WriteResult]:
        """Write dedicated IPs in one request and determine the outcome of each write.

        :param before: the same dedicated IPs as they were read
        :param transaction: the id of the transaction that writes them, if one does
        :returns: the results in the order of `after`
        :raises DatastoreUnreachable: nothing was written
        """
        written = self._ips.save_all(after, transaction)
        return list(map(self._result, before, after, written, repeat(transaction)))

    def _result(
        self, before: DedicatedIP, after: DedicatedIP, written: Written, transaction: str | None
    ) -> WriteResult:
        transaction = transaction or after.transaction
        if written.outcome is Outcome.DONE:
            done = replace(after, revision=written.revision, transaction=transaction)
            return WriteResult(FinalOutcome.DONE, done)
        after = replace(after, transaction=transaction)
        try:
            return self._find_out(before, after, written)
        except DatastoreError as error:
            log.warning("%s: the outcome of the write is unknown: %s", after.address, error)
            self._check_later(before, after)
            return WriteResult(FinalOutcome.UNKNOWN, after)

    def _find_out(self, before: DedicatedIP, after: DedicatedIP, written: Written) -> WriteResult:
        # A release without a quorum is not withdrawn here: another client may have read it, and
        # the read repair of CouchDB may have copied it to a majority.
        if written.revision and after.assigned_to:
            return self._withdrawn(before, after, replace(after, revision=written.revision))
        base = before
        for _ in range(_TRIES):
            leaves = self._ips.leaves(after.address)
            result = self._result_from(before, after, leaves)
            if result:
                return result
            if len(leaves.live) == 1 and _is_fence(leaves.live[0], before):
                before = leaves.live[0]  # unchanged, or an earlier fence whose response was lost
            elif leaves.supersede(before.revision):
                self._withdraw_unseen(base, replace(after, revision=written.revision), leaves)
                return self._certain(WriteResult(FinalOutcome.LOST, after), written)
            # The write may still arrive. That holds for a refused write too: the refusal may come
            # from a node that lags, or from a proxy.
            fence = self._ips.save(before)
            if fence.outcome is Outcome.DONE:
                return WriteResult(FinalOutcome.UNDONE, after)
            if fence.revision:
                # The fence has no quorum. It may be the only live revision, so it is withdrawn
                # with a tombstone from which the address can be restored.
                fenced = replace(before, revision=fence.revision)
                return self._certain(self._withdrawn(before, after, fenced), written)
            # This write, its fence or another writer's write has arrived meanwhile.
        raise DatastoreUnreachable(f"{after.address}: the outcome of the write is unknown")

    def _certain(self, result: WriteResult, written: Written) -> WriteResult:
        """Return the result of a write, which has no effect as far as the nodes that answer know.

        :param written: CouchDB's response to the write, or to its confirmation
        :raises DatastoreUnreachable: there was none, so a node that does not answer now may have
            a revision that nobody has withdrawn
        """
        is_open = written.outcome is Outcome.UNKNOWN and not written.revision
        if is_open and self._ips.replicas > 1 and result.outcome is not FinalOutcome.DONE:
            raise DatastoreUnreachable(f"{result.ip.address}: perhaps a node has the write")
        return result

    def _withdraw_unseen(self, before: DedicatedIP, after: DedicatedIP, leaves: Leaves) -> None:
        """Withdraw a write that lost to another writer, if only nodes that do not answer have it.

        Otherwise its revision would appear later, next to that of the other writer. If both are
        releases of one assignment, nothing would show which of them was acknowledged.

        :param after: the write; its revision is None unless CouchDB has accepted it (202)
        :param leaves: the revisions on the nodes that answer
        :raises OutcomeUnknown: it is unknown whether the write is withdrawn
        """
        added = set(trail.added(before.trail, after.trail))
        if after.revision and not any(
            added <= set(ip.trail) for ip in (*leaves.live, *leaves.deleted)
        ):
            self._ips.withdraw_unseen(after, before)

    def _result_from(
        self, before: DedicatedIP, after: DedicatedIP, leaves: Leaves
    ) -> WriteResult | None:
        """Return the outcome of a write that is among the leaf revisions; None if it is not."""
        ours = next((leaf for leaf in leaves.live if _is_write(leaf, after)), None)
        if ours and not leaves.is_single_since(before.revision):
            return self._withdrawn(before, after, ours)
        if ours:
            return self._confirmed(before, ours)
        superseded = _is_followed_up(leaves.live, before, after)
        return self._followed_up(after, leaves.live[0]) if superseded else None

    def confirm(self, ip: DedicatedIP) -> DedicatedIP:
        """Make sure that a quorum has a dedicated IP that an earlier attempt wrote, and return it.

        It is saved again on its own revision, also on a single node. The earlier attempt may have
        sent a write that reverts it. CouchDB refuses that write after the save.

        :raises DatastoreUnreachable: no quorum has it, or it is unknown whether a quorum has it
        """
        written = self._ips.save(ip)
        if written.outcome is not Outcome.DONE or not self._has_no_rival(ip, ip.revision):
            self._schedule_check(ip.address, "")
            raise DatastoreUnreachable(f"{ip.address}: no quorum")
        return replace(ip, revision=written.revision)

    def _has_no_rival(self, ip: DedicatedIP, since: str | None) -> bool:
        """Return whether no other writer has a conflicting leaf revision.

        :param ip: a dedicated IP that was written
        :param since: the revision from which on deletions count as conflicting
        """
        return self._ips.replicas == 1 or self._ips.leaves(ip.address).is_single_since(since)

    def _confirmed(self, before: DedicatedIP, ours: DedicatedIP) -> WriteResult:
        """Determine whether an unanswered write, which is among the leaves, has a quorum.

        The write is saved again on its own revision. That succeeds only if a majority has the
        revision. After that no other writer can reach a majority. If another write reached a
        majority before, it is among the leaves. So is the withdrawal of another write, if a worker
        is restoring the address from it and has not read this write.
        """
        if self._ips.replicas == 1:
            return WriteResult(FinalOutcome.DONE, ours)
        written = self._ips.save(ours)
        saved = replace(ours, revision=written.revision or ours.revision)
        leaves = self._ips.leaves(ours.address)
        is_single = leaves.is_single_since(before.revision)
        is_restored = ours.assigned_to and leaves.is_withdrawn_since(before.revision)
        if written.outcome is Outcome.DONE and is_single and not is_restored:
            return WriteResult(FinalOutcome.DONE, saved)
        if not ours.assigned_to and is_single:
            # Other clients may have read the release, so it is not withdrawn.
            # It is done once a majority has it.
            raise DatastoreUnreachable(f"{ours.address}: released, without a quorum")
        return self._certain(self._withdrawn(before, ours, saved), written)

    def _withdrawn(
        self, before: DedicatedIP, after: DedicatedIP, leaf: DedicatedIP
    ) -> WriteResult:
        """Withdraw a write that has no quorum; a concurrent writer's revision stays.

        :param after: the write; all its revisions are withdrawn
        :param leaf: the write, or its fence, at the revision that has no quorum
        :raises DatastoreUnreachable: it is unknown whether the write is withdrawn
        """
        try:
            return self._withdraw(before, after, leaf)
        finally:  # another worker that read the write meanwhile may have written a copy of it
            self._check_later(before, after)

    def _check_later(self, before: DedicatedIP, after: DedicatedIP) -> None:
        """Schedule a check of an address, and of the copies of the accounts of a write."""
        for account_id in {after.assigned_to or "", before.assigned_to or ""} - {""} or {""}:
            self._schedule_check(after.address, account_id)

    def _withdraw(self, before: DedicatedIP, after: DedicatedIP, leaf: DedicatedIP) -> WriteResult:
        to_withdraw = [leaf]
        for _ in range(_TRIES):
            refused = [ip for ip in to_withdraw if not self._ips.withdraw(ip, before).revision]
            leaves = self._ips.leaves(after.address)
            # Revisions whose withdrawal was refused or unanswered, and revisions of this write
            # that have arrived meanwhile.
            tried = {ip.revision for ip in to_withdraw}
            to_withdraw = [
                ip for ip in leaves.live if _is_write(ip, after) or ip.revision in tried
            ]
            if not to_withdraw and _is_followed_up(leaves.live, before, after):
                return self._followed_up(after, leaves.live[0])
            if not to_withdraw and leaves.reach(before.revision):
                for ip in refused if self._ips.replicas > 1 else ():
                    self._ips.withdraw_unseen(ip, before)
                return self._without(after, rival=leaves.supersede(before.revision))
            to_withdraw = to_withdraw or refused
        raise DatastoreUnreachable(f"{after.address}: not known whether withdrawn")

    def _followed_up(self, after: DedicatedIP, latest: DedicatedIP) -> WriteResult:
        """Return the outcome of a write on which another writer has already based a revision.

        :raises DatastoreUnreachable: the later revision has no quorum, so it may be withdrawn
        """
        self._schedule_check(after.address, after.assigned_to or "")
        self.confirm(latest)
        return WriteResult(FinalOutcome.DONE, after)

    def _without(self, after: DedicatedIP, *, rival: bool) -> WriteResult:
        """Return the outcome of a withdrawn write. Restore the address unless there is a rival."""
        if rival:
            return WriteResult(FinalOutcome.LOST, after)
        with suppress(KazooIPsError):  # the later check restores the address
            self._conflicts.resolve(after.address)
        return WriteResult(FinalOutcome.UNDONE, after)

    def make_available(self, done: Sequence[DedicatedIP]) -> None:
        """Make assigned dedicated IPs available again, unless another writer has written since.

        :param done: the dedicated IPs as they were written
        :raises DatastoreUnreachable: it is unknown whether all of them are available
        """
        to_save = [ip.undo() for ip in done]
        for ip in done:
            self._schedule_check(ip.address, ip.assigned_to or "")
        for _ in range(_TRIES):
            written = list(zip(to_save, self._ips.save_all(to_save), strict=True))
            # A write without a quorum is saved again on its own revision. That succeeds only if a
            # majority has the revision.
            to_save = [
                replace(ip, revision=w.revision or ip.revision)
                for ip, w in written
                if w.outcome is Outcome.UNKNOWN
            ]
            refused = {ip.address for ip, w in written if w.outcome is Outcome.REFUSED}
            to_save += self._undone_again([ip for ip in done if ip.address in refused])
            if not to_save:
                return
        raise DatastoreUnreachable(f"{to_save[0].address}: not known whether available again")

    def _undone_again(self, refused: Sequence[DedicatedIP]) -> list[DedicatedIP]:
        """Return the writes to repeat after CouchDB refused to make these dedicated IPs available.

        Dedicated IPs that another writer has written to since are left out.
        """
        if not refused:
            return []
        found = self._ips.by_id([ip.address for ip in refused])[0]
        pairs = [(ip, found[ip.address]) for ip in refused if ip.address in found]
        # An older revision was read from a node that lags: then the revision that was written is
        # used.
        return [
            (current if _is_write(current, ip) else ip).undo()
            for ip, current in pairs
            if _is_write(current, ip) or generation(current.revision) < generation(ip.revision)
        ]


def _is_write(leaf: DedicatedIP, ip: DedicatedIP) -> bool:
    """Return whether a revision is exactly this write.

    The request id alone is not enough: clients choose request ids, and may repeat them.
    """
    return _identity(leaf) == _identity(ip)


def _is_fence(leaf: DedicatedIP, before: DedicatedIP) -> bool:
    """Return whether a revision is the base of a write, as this service has saved it again.

    What another program changes without a new `pvt_modified` is an event of the trail.
    """
    return _is_write(leaf, before) and leaf.trail[-1:] == before.trail[-1:]


def _is_followed_up(live: Sequence[DedicatedIP], before: DedicatedIP, after: DedicatedIP) -> bool:
    """Return whether the only live revision is a successor of this write.

    A write adds events to the trail. A successor has these events in its trail.
    """
    added = trail.added(before.trail, after.trail)
    return len(live) == 1 and bool(added) and set(added) <= set(live[0].trail)


def _identity(ip: DedicatedIP) -> tuple[object, ...]:
    return (
        ip.request_id, ip.status, ip.assigned_to, ip.modified, ip.transaction, ip.disabled
    )  # fmt: skip
