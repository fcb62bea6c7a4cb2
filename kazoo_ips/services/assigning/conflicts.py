"""What a cluster leaves behind is put in order: conflicts, withdrawn claims, copies.

CouchDB gives two writers on two nodes a revision each when neither knows of the other. Only one
of them can reach a majority and be told so, and only that one writes the account's copy. So the
copy is the evidence by which the acknowledged revision is told from the others.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from kazoo_ips.errors import Conflict, DatastoreMissing, DatastoreUnreachable, IPNotFound
from kazoo_ips.model import (
    DedicatedIP,
    EventKind,
    Leaves,
    Outcome,
    Status,
    Withdrawal,
    generation,
)
from kazoo_ips.observability import request_context
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository

log = logging.getLogger(__name__)

GRACE = 30
"""Seconds after which a write that nobody acknowledged never will be: longer than any request."""

_LOOKS = 3
"""Times that copies are looked at while the pool is changing."""


class ConflictResolver:
    """Settles one address at a time. Doing it twice, or two at once, changes nothing more.

    :param now: the time in Gregorian seconds
    :param metrics: where what was settled is counted
    """

    def __init__(
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._now = now
        self._metrics = metrics

    def resolve(self, address: str) -> DedicatedIP:
        """The dedicated IP as it really is, its conflicts settled or its loss undone.

        :param address: the id it has
        :raises IPNotFound: it is not in the pool
        :raises Conflict: a write is too fresh to tell whether it will be acknowledged, or one has
            a status that this release does not know
        """
        leaves = self._ips.leaves(address)
        if not leaves.live:
            return self._bring_back(address, leaves)
        kept, *others = leaves.live
        if not others:
            return kept
        kept = self._chosen(address, leaves.live)
        for leaf in leaves.live:
            if leaf.revision != kept.revision:
                log.warning("%s: dropping revision %s", address, leaf.revision)
                self._ips.drop(leaf)
        self._metrics.conflicts_settled.inc()
        request_context.note("settled")
        return kept

    def _chosen(self, address: str, live: tuple[DedicatedIP, ...]) -> DedicatedIP:
        """The one of several revisions that stays.

        :raises Conflict: as `settle`
        """
        if not all(leaf.has_known_status for leaf in live):
            raise Conflict(address)
        acknowledged = next((leaf for leaf in live if self.is_acknowledged(leaf)), None)
        if acknowledged is None:
            if any(map(self._is_fresh, live)):
                raise Conflict(address)
            return self._unclaimed(live)
        released = [leaf for leaf in live if leaf.is_release_of(acknowledged)]
        # Its copy is removed after that: it says nothing of what came later.
        if any(self._now() - leaf.modified < GRACE for leaf in released):
            raise Conflict(address)
        return released[0] if released else acknowledged

    def is_acknowledged(self, ip: DedicatedIP) -> bool:
        """Whether the owner's account holds the copy that is written last of all."""
        if ip.status is not Status.ASSIGNED or ip.assigned_to is None:
            return False
        try:
            copy = self._copies.find(ip.assigned_to, [ip.address]).get(ip.address)
        except DatastoreMissing:
            return False
        return copy is not None and is_copy(copy, ip)

    def drop_copy(self, account_id: str, address: str) -> None:
        """Settle an address, and remove or renew an account's copy of it as the pool has it."""
        with suppress(IPNotFound):
            self.resolve(address)
        self.repair_copies(account_id, [address])

    def repair_copies(self, account_id: str, addresses: Iterable[str]) -> None:
        """Write the copies that an account lacks and remove those it should not have.

        The copies are read first: one written after the look at the pool is not removed. And they
        are looked at once more: one whose address has gone while it was written does not stay.
        """
        wanted = list(addresses)
        for _ in range(_LOOKS):
            try:
                copies = self._copies.find(account_id, wanted)
            except DatastoreMissing:
                return
            self._copies.drop_conflicts(account_id, copies.values())
            pool = self._ips.find(wanted)
            settled = [a for a in wanted if a not in pool or _is_clear(pool[a])]
            due = {a for a in settled if a in pool and pool[a].assigned_to == account_id}
            lacking = [pool[a] for a in due if a not in copies or not is_copy(copies[a], pool[a])]
            extra = [copies[a] for a in settled if a in copies and a not in due]
            if not lacking and not extra:
                return
            self._copies.drop(account_id, extra)
            self._copies.save([ip for ip in lacking if self._has_quorum(ip)])

    def _has_quorum(self, ip: DedicatedIP) -> bool:
        """Whether an assignment whose writer was perhaps never told has a majority behind it.

        Its copy would be the evidence against all other leaves, also those that cannot be seen
        just now. Writing it again needs a majority that has it.
        """
        if self._ips.replicas == 1:
            return True
        written = self._ips.save(ip)
        return written.outcome is Outcome.DONE and len(self._ips.leaves(ip.address).live) == 1

    def _is_fresh(self, ip: DedicatedIP) -> bool:
        """Whether its writer may be about to withdraw it: then it must not be the one kept."""
        released = ip.trail and ip.trail[-1].kind == EventKind.RELEASED
        claimed = ip.status is Status.ASSIGNED or released
        return bool(claimed) and self._now() - ip.modified < GRACE

    def _unclaimed(self, live: tuple[DedicatedIP, ...]) -> DedicatedIP:
        """One that is available; when there is none, the first is made so: nobody was told."""
        free = next((leaf for leaf in live if leaf.status is Status.AVAILABLE), None)
        if free:
            return free
        orphan = replace(live[0], status=Status.AVAILABLE, assigned_to=None)
        return replace(orphan, revision=self._ips.save(orphan).revision or live[0].revision)

    def _bring_back(self, address: str, leaves: Leaves) -> DedicatedIP:
        """Undo the loss of an address that every claimant withdrew from.

        :raises IPNotFound: it was never there, or somebody deleted it
        :raises Conflict: somebody else has written meanwhile
        :raises DatastoreUnreachable: a majority does not have it again
        """
        if leaves.lost is None:
            raise IPNotFound(address)
        log.warning("%s: all claims were withdrawn, bringing it back", address)
        self.restore(leaves.lost)
        self._metrics.addresses_brought_back.inc()
        request_context.note("brought_back")
        return self._ips.get(address)

    def restore(self, lost: Withdrawal) -> None:
        """Put an address in the place of a tombstone that has no quorum.

        Who has read the revision before may still write on it. So a majority is given the
        tombstone first: it refuses that, and a majority that took it before shows then.

        :raises Conflict: somebody else has written to it, or deleted it
        :raises DatastoreUnreachable: a majority does not have it again
        """
        address = lost.before.address
        if self._ips.replicas > 1 and not self._ips.spread(lost):
            raise DatastoreUnreachable(f"{address}: no majority knows what was withdrawn")
        leaves = self._ips.leaves(address)
        others = {ip.revision for ip in leaves.deleted} - {lost.revision}
        if leaves.live or any(generation(other) > generation(lost.base) for other in others):
            raise Conflict(address)
        if not self._ips.restore(lost):
            raise DatastoreUnreachable(f"{address}: not certain to be brought back")


def _is_clear(ip: DedicatedIP) -> bool:
    """Whether it is certain which copies there should be of an address."""
    return ip.has_known_status and not ip.conflicted


def is_copy(copy: DedicatedIP, ip: DedicatedIP) -> bool:
    """Whether the copy is of this very assignment."""
    return (copy.assigned_to, copy.request_id, copy.modified, copy.status) == (
        ip.assigned_to,
        ip.request_id,
        ip.modified,
        ip.status,
    )
