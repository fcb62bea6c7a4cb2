"""Conflict resolution and read repair for dedicated IPs.

When two writers on two CouchDB nodes write to the same revision, and neither node has seen the
other write, CouchDB keeps both revisions: a conflict. Only one of the two can reach a majority,
and only that one is acknowledged. The acknowledged writer then writes the copy in the account's
database. So the copy is the evidence for the acknowledged revision.

An acknowledged release of one address removes the copy, and its request id is in the tombstone of
the copy. The event of a release of several addresses says that its transaction was committed.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from kazoo_ips.errors import Conflict, DatastoreMissing, DatastoreUnreachable, IPNotFound
from kazoo_ips.model import (
    DedicatedIP,
    Event,
    EventKind,
    Leaves,
    Outcome,
    Status,
    Withdrawal,
    Written,
    generation,
    replace,
    trail,
)
from kazoo_ips.observability import audit, request_context
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import TransactionLog, TransactionState, is_release

log = logging.getLogger(__name__)

GRACE = 30
"""Seconds after which a write is never acknowledged any more: longer than any request takes."""

_NEVER_WITHDRAWN = frozenset({EventKind.CREATED, EventKind.UNDONE})
"""Kinds of events whose writes are not withdrawn."""

_HELD_BACK = (Status.AVAILABLE, Status.AGING, Status.RESERVED, Status.DISABLED)
"""The statuses of an address that no account has. Fewer accounts may get it with a later one."""

_TRIES = 3
"""Maximum number of comparisons of copies with the pool while the pool changes."""


class ConflictResolver:
    """Resolves the conflicts of one address at a time.

    Resolving an address twice, or in two threads at once, gives the same result.

    :param log_: has the decisions of the transactions that revisions name
    :param now: returns the time in Gregorian seconds
    :param metrics: counts the conflicts that are resolved and the addresses that are restored
    """

    def __init__(
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        log_: TransactionLog,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._log = log_
        self._now = now
        self._metrics = metrics

    def resolve(self, address: str) -> DedicatedIP:
        """Resolve the conflicts of an address, or restore it, and return the dedicated IP.

        CouchDB shows a live revision rather than a deletion. If all that a live revision records
        happened before the deletion, the deletion stays.

        :param address: the document id of the address
        :raises IPNotFound: the address is not in the pool
        :raises Conflict: one of the writes is so recent that it may still be acknowledged, or one
            has a status that this release does not know
        """
        leaves = self._ips.leaves(address)
        if leaves.live and all(map(leaves.is_outdated, leaves.live)):
            log.warning("%s: deleted, dropping revisions from before the deletion", address)
            if any(map(_is_done, self._ips.drop_all(leaves.live, leaves.deleted[0]))):
                audit.conflict_resolved(leaves.live[0], None)
            raise IPNotFound(address)
        if not leaves.live:
            return self._restore_lost(address, leaves)
        kept, *others = leaves.live
        if not others:
            return kept
        kept = self._chosen(address, leaves.live)
        dropped = []
        for leaf in leaves.live:
            if leaf.revision != kept.revision:
                log.warning("%s: dropping revision %s", address, leaf.revision)
                dropped.append(self._ips.drop(leaf, kept))
        if any(map(_is_done, dropped)):  # CouchDB accepts one worker's deletion of a revision
            audit.conflict_resolved(leaves.live[0], kept)
        self._metrics.conflicts_resolved.inc()
        request_context.note("conflict_resolved")
        return kept

    def _chosen(self, address: str, live: tuple[DedicatedIP, ...]) -> DedicatedIP:
        """Return the live revision to keep.

        :raises Conflict: under the conditions that `resolve` names
        """
        if not all(leaf.has_known_status for leaf in live):
            raise Conflict(address)
        marked = self._marked_by_commit(address, live)
        if marked:
            return marked
        owned = [leaf for leaf in live if self.is_acknowledged(leaf)]
        # A transfer writes the copy of the new owner before it removes that of the old one.
        followed = (leaf for leaf in owned if not _is_followed(leaf, owned))
        acknowledged = assigned = next(followed, None)
        if acknowledged is None or assigned is None:
            if _is_one_release(live):
                return live[0]
            if any(map(self._may_be_withdrawn, live)):
                raise Conflict(address)
            earlier = ((leaf, self._acknowledged_earlier(leaf)) for leaf in live)
            acknowledged, assigned = next((pair for pair in earlier if pair[1]), (None, None))
        if acknowledged is None or assigned is None:
            return self._unassigned(live)
        released = tuple(leaf for leaf in live if leaf.follows_release_of(assigned))
        # A release writes the pool document before it removes the copy. So the copy may still be
        # there, and does not say whether the release, or an assignment after it, will be
        # acknowledged.
        if any(self._now() - leaf.modified < GRACE for leaf in released):
            raise Conflict(address)
        return self._unassigned(released) if released else acknowledged

    def _marked_by_commit(self, address: str, live: Iterable[DedicatedIP]) -> DedicatedIP | None:
        """Return the revision that a committed release of several addresses has marked, if any.

        Before its commit each of its marks had a majority. So no other write was acknowledged.

        :raises Conflict: a release that has marked a revision may still commit
        """
        is_pending = False
        for leaf in live:
            release = leaf.transaction if leaf.transaction and is_release(leaf.transaction) else ""
            transaction = self._log.find(release) if release else None
            if transaction is None:
                continue
            if transaction.state is TransactionState.PENDING:
                is_pending = True
            elif self._log.confirm(transaction).state is TransactionState.COMMITTED:
                return leaf
        if is_pending:
            raise Conflict(address)
        return None

    def is_acknowledged(self, ip: DedicatedIP) -> bool:
        """Return whether the owner's account has the copy of this assignment.

        An assignment writes the copy last.
        """
        copy = self._copy(ip)
        return copy is not None and copy.is_copy_of(ip)

    def _acknowledged_earlier(self, ip: DedicatedIP) -> DedicatedIP | None:
        """Return an assignment as it was when its owner's account got the copy that it has.

        A later change of the address, such as another zone, writes the copy again. If it has not
        done so, only the state before it is known to be acknowledged.

        :returns: None if the account has no copy of this assignment
        """
        copy = self._copy(ip)
        return None if copy is None else ip.as_copied(copy)

    def _copy(self, ip: DedicatedIP) -> DedicatedIP | None:
        """Return the owner's copy of an assigned address, if it has one of any assignment."""
        if ip.status is not Status.ASSIGNED or ip.assigned_to is None:
            return None
        try:
            return self._copies.find(ip.assigned_to, [ip.address]).get(ip.address)
        except DatastoreMissing:
            return None

    def drop_copy(self, account_id: str, address: str) -> None:
        """Resolve the conflicts of an address, then make an account's copy agree with the pool."""
        with suppress(IPNotFound):
            self.resolve(address)
        self.repair_copies(account_id, [address])

    def repair_copies(self, account_id: str, addresses: Iterable[str]) -> None:
        """Write the copies that an account lacks and remove those that it should not have.

        The copies are read before the pool. A copy written after that read has another revision
        and is not removed. After a change both are compared again: if an address has left the
        account while its copy was written, the next comparison removes that copy.

        On a cluster the copy of an assignment of the last half minute is not written: its request
        may be about to write it. The follower of the pool's changes feed checks it again later.
        """
        requested = list(addresses)
        for _ in range(_TRIES):
            try:
                copies = self._copies.find(account_id, requested)
            except DatastoreMissing:
                return
            self._copies.drop_conflicts(account_id, copies.values())
            pool = self._ips.by_id(requested)[0]
            resolved = [a for a in requested if a not in pool or _is_resolved(pool[a])]
            owned = {a for a in resolved if a in pool and pool[a].assigned_to == account_id}
            wrong = (
                pool[a] for a in owned if a not in copies or not copies[a].is_copy_of(pool[a])
            )
            missing = [ip for ip in wrong if not self._is_in_use(ip)]
            extra = [copies[a] for a in resolved if a in copies and a not in owned]
            if not missing and not extra:
                return
            audit.copies_removed(_done(extra, self._copies.drop(account_id, extra)))
            certain = [ip for ip in missing if self._has_quorum(ip)]
            audit.copies_written(_done(certain, self._copies.save(certain)))

    def _is_in_use(self, ip: DedicatedIP) -> bool:
        """Return whether `_has_quorum` would write an address that a request may be writing now.

        Its new revision would come between the read and the write of a request that releases the
        address. The request would then be refused, although no client was faster.
        """
        return self._ips.replicas > 1 and self._now() - ip.modified < GRACE

    def _has_quorum(self, ip: DedicatedIP) -> bool:
        """Return whether a majority of the nodes has an assignment that may be unacknowledged.

        A copy of it would be evidence against all other leaf revisions, also those on nodes that
        do not answer now. So the assignment is saved again on its own revision. That succeeds only
        if a majority has the revision.
        """
        if self._ips.replicas == 1:
            return True
        if not self.save_again([ip]):
            return False
        return len(self._ips.leaves(ip.address).live) == 1

    def save_again(self, ips: Sequence[DedicatedIP]) -> set[str]:
        """Save dedicated IPs without a new event; return the addresses that are saved.

        If an address is not saved, a client may have deleted it meanwhile, and a minority of the
        nodes may have accepted the write. Then the deletion stays.
        """
        saved = {ip.address for ip in _done(ips, self._ips.save_all(ips))}
        for ip in ips:
            if ip.address not in saved:
                with suppress(Conflict, IPNotFound):
                    self.resolve(ip.address)
        return saved

    def _may_be_withdrawn(self, ip: DedicatedIP) -> bool:
        """Return whether the writer of a revision may still withdraw it."""
        last = trail.latest(ip.trail)
        if last is None or last.kind in _NEVER_WITHDRAWN:
            return ip.status is Status.ASSIGNED and self._now() - ip.modified < GRACE
        return self._now() - max(ip.modified, last.at) < GRACE

    def _unassigned(self, live: tuple[DedicatedIP, ...]) -> DedicatedIP:
        """Return the revision that no account has. If all are assigned, undo the first one.

        No client loses the address, because none of the assignments was acknowledged. But an
        assignment that was changed later is kept, because its request had ended. Of several
        revisions without an account, the one whose release was acknowledged is kept, or else the
        one with the last status in `_HELD_BACK`.
        """
        unowned = [leaf for leaf in live if leaf.status is not Status.ASSIGNED]
        if unowned:
            return max(unowned, key=lambda leaf: self._precedence(leaf, live))
        changed = next(filter(_is_changed, live), None)
        if changed:
            return changed
        unassigned = live[0].undo()
        written = self._ips.save(unassigned)
        return replace(unassigned, revision=written.revision or live[0].revision)

    def _precedence(self, unowned: DedicatedIP, live: Sequence[DedicatedIP]) -> tuple[bool, int]:
        common = set(unowned.trail).intersection(*(leaf.trail for leaf in live))
        own = [event for event in unowned.trail if event not in common]
        is_acknowledged = any(self._is_acknowledged_release(unowned.address, e) for e in own)
        return is_acknowledged, _HELD_BACK.index(Status(unowned.status))

    def _is_acknowledged_release(self, address: str, event: Event) -> bool:
        if event.kind != EventKind.RELEASED or event.account_id is None:
            return False
        release = (event.request_id, event.at)
        return event.committed or release in self._copies.releases(event.account_id, address)

    def _restore_lost(self, address: str, leaves: Leaves) -> DedicatedIP:
        """Restore an address whose document was deleted because every writer withdrew its write.

        :raises IPNotFound: the address was never in the pool, or a client deleted it
        :raises Conflict: another writer has written to it meanwhile
        :raises DatastoreUnreachable: no majority has the restored document
        """
        if leaves.restorable is None:
            raise IPNotFound(address)
        log.warning("%s: all writes were withdrawn, restoring the address", address)
        self.restore(leaves.restorable)
        audit.restored(leaves.restorable.before)
        self._metrics.addresses_restored.inc()
        request_context.note("restored")
        return self._ips.get(address)

    def restore(self, lost: Withdrawal) -> None:
        """Write an address again in the place of a tombstone that has no quorum.

        A writer that has read the revision before the tombstone may still write to that revision.
        So the tombstone is first written to a majority of the nodes, which refuse such a write
        from then on. If a majority has accepted such a write before, it is among the leaf
        revisions, which are read next.

        :raises Conflict: another writer has written to the address, or a client has deleted it
        :raises DatastoreUnreachable: no majority has the tombstone, or the restored document
        """
        address = lost.before.address
        if self._ips.replicas > 1 and not self._ips.spread(lost):
            raise DatastoreUnreachable(f"{address}: no majority has the withdrawal")
        leaves = self._ips.leaves(address)
        others = {ip.revision for ip in leaves.deleted} - {lost.revision}
        if leaves.live or any(generation(other) > generation(lost.base) for other in others):
            raise Conflict(address)
        if not self._ips.restore(lost):
            raise DatastoreUnreachable(f"{address}: not known whether restored")


def _is_followed(assigned: DedicatedIP, others: Iterable[DedicatedIP]) -> bool:
    return any(other.follows_release_of(assigned) for other in others)


def _is_changed(ip: DedicatedIP) -> bool:
    last = trail.latest(ip.trail)
    return last is not None and last.kind == EventKind.CHANGED


def _is_one_release(live: Sequence[DedicatedIP]) -> bool:
    """Return whether all revisions are the same release, which two workers have written.

    A release is never withdrawn, so any of the revisions may be kept at once.
    """
    last = {trail.latest(leaf.trail) for leaf in live}
    unowned = all(leaf.status is not Status.ASSIGNED for leaf in live)
    return unowned and len(last) == 1 and all(e and e.kind == EventKind.RELEASED for e in last)


def _is_done(written: Written) -> bool:
    return written.outcome is Outcome.DONE


def _done(ips: Sequence[DedicatedIP], written: Sequence[Written]) -> list[DedicatedIP]:
    """Return the dedicated IPs whose writes are done."""
    return [ip for ip, w in zip(ips, written, strict=True) if _is_done(w)]


def _is_resolved(ip: DedicatedIP) -> bool:
    """Return whether the pool document decides which account has a copy of the address."""
    return ip.has_known_status and not ip.conflicted
