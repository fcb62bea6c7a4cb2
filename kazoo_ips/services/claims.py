"""Writes to the pool that end in certainty: done, or nothing of it is left.

A claim is a write that takes an address or gives it back. CouchDB may do it (201), refuse it (409)
or leave it open: no quorum (202), no answer, a failure. What is open is read back by the id of the
request, which every write carries; what has no quorum is withdrawn; what may still be under way is
fenced off by moving the revision on. Several claims of one request are all kept or all given back,
and noted in the journal first, so that somebody else can do that when this process dies.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from kazoo_ips import process
from kazoo_ips.errors import Conflict, DatastoreUnreachable, KazooIPsError
from kazoo_ips.metrics import Metrics
from kazoo_ips.model import DedicatedIP, Outcome, Status, Written
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.journal import Claim, JournalRepository
from kazoo_ips.services.settlement import Settlement

log = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Times that something is undone while others write to the same addresses."""


class ClaimService:
    """Makes claims, gives them back, and recovers those that others left half done.

    :param look_again: called with an address that somebody should look at a little later, and
        the account whose copy of it may be wrong
    :param metrics: where recovered claims are counted
    """

    def __init__(
        self,
        ips: IPRepository,
        journal: JournalRepository,
        settlement: Settlement,
        look_again: Callable[[str, str], None],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._journal = journal
        self._settlement = settlement
        self._look_again = look_again
        self._metrics = metrics

    def make_all(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> list[DedicatedIP]:
        """Write all of these or none.

        :param before: the same dedicated IPs as they were read
        :returns: them as they are now
        :raises Conflict: some were lost to somebody else's write; the others are given back
        :raises DatastoreUnreachable: what became of them is not known
        """
        saved, lost = self.make(before, after)
        if lost:
            self.give_back(before, saved)
            raise Conflict(*lost)
        return saved

    def make(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> tuple[list[DedicatedIP], list[str]]:
        """Write as many of these as can be had.

        :returns: those that are ours now, and the addresses of those that are somebody else's
        :raises DatastoreUnreachable: what became of one is not known; the others are given back
        """
        saved: list[DedicatedIP] = []
        lost: list[str] = []
        open_question: DatastoreUnreachable | None = None
        for was, ip, written in zip(before, after, self._ips.save_all(after), strict=True):
            try:
                ours = self._ascertain(was, ip, written)
            except DatastoreUnreachable as error:
                open_question = error
                self._look_again(ip.address, ip.assigned_to or was.assigned_to or "")
                continue
            if ours:
                saved.append(ours)
            else:
                lost.append(ip.address)
        if open_question:
            self.give_back(before, saved)
            raise open_question
        return saved, lost

    def give_back(self, before: Sequence[DedicatedIP], saved: Sequence[DedicatedIP]) -> None:
        """Make claims that are ours as they were before, unless somebody has done so already.

        :raises DatastoreUnreachable: it is not known whether all are
        """
        was = {ip.address: ip for ip in before}
        undone = [replace(was[ip.address], revision=ip.revision) for ip in saved]
        for ip in saved:
            self._look_again(ip.address, ip.assigned_to or was[ip.address].assigned_to or "")
        for _ in range(_ATTEMPTS):
            # One that was done after all is refused the next time.
            written = self._ips.save_all(undone)
            outcomes = zip(undone, written, strict=True)
            undone = [ip for ip, w in outcomes if w.outcome is Outcome.UNKNOWN and not w.revision]
            if not undone:
                return
        raise DatastoreUnreachable(f"{undone[0].address}: not known whether it is given back")

    # What several claims of one request need beside.

    def note(
        self, action: str, account_id: str, request_id: str, at: int, addresses: list[str]
    ) -> Claim:
        """Note several claims before they are made.

        :param at: the time that the writes will carry, in Gregorian seconds
        :raises DatastoreUnreachable: it could not be noted, so it must not be done
        """
        return self._journal.open(action, account_id, request_id, at, addresses)

    def conclude(self, notes: Sequence[Claim]) -> None:
        """Strike notes out, now that everything is done or undone.

        :raises DatastoreUnreachable: somebody took this process for dead and undid it, or will
        """
        if not all([self._journal.close(note) for note in notes]):
            raise DatastoreUnreachable("the request took too long and is undone")

    def recover(self, before: int) -> int:
        """Undo what dead processes left half done.

        :param before: when, in Gregorian seconds, processes of which nothing is known began at
            the latest
        :returns: how many addresses were given back
        """
        count = 0
        for claim in self.orphaned(before):
            try:
                count += self._take_over(claim)
            except KazooIPsError as error:  # its next time comes
                log.warning("request %s: not undone yet: %s", claim.request_id, error)
        return count

    def orphaned(self, before: int) -> list[Claim]:
        """Claims whose process has died, or was given its time: noted before Gregorian seconds."""
        claims = self._journal.claims()
        return [c for c in claims if c.at < before or process.is_dead(c.worker)]

    def under_way(self) -> set[str]:
        """The addresses of all claims that nobody has concluded."""
        return {address for claim in self._journal.claims() for address in claim.addresses}

    def recover_request(self, request_id: str) -> None:
        """Undo what an earlier attempt at the same request left half done."""
        for claim in self._journal.claims():
            if claim.request_id == request_id:
                self._take_over(claim)

    def _take_over(self, claim: Claim) -> int:
        # From here on its process, should it be alive after all, cannot conclude it. The note
        # stays until everything is undone: this process may die as well.
        taken = self._journal.take_over(claim)
        if taken is None:
            return 0
        count = self._undo(taken)
        self._settlement.mend_copies(claim.account_id, claim.addresses)
        for address in claim.addresses:
            self._look_again(address, claim.account_id)
        self._journal.close(taken)
        self._metrics.claims_recovered.inc()
        log.warning("request %s: %d addresses given back", claim.request_id, count)
        return count

    def _undo(self, claim: Claim) -> int:
        """Undo what a claim has written, and keep what is still under way from arriving.

        :raises DatastoreUnreachable: not everything is certain to be undone
        """
        undone: set[str] = set()
        for _ in range(_ATTEMPTS):
            found = self._ips.find(claim.addresses).values()
            ours = [_unwritten(claim, ip) for ip in found if _wrote(claim, ip)]
            # A write that arrives later finds its revision gone: see `_fence`.
            fenced = [ip for ip in found if _may_write(claim, ip)]
            undone.update(ip.address for ip in ours)
            written = self._ips.save_all([*ours, *fenced])
            if all(w.outcome is Outcome.DONE for w in written):
                return len(undone)
        raise DatastoreUnreachable(f"request {claim.request_id} is not undone")

    # From an outcome to certainty.

    def _ascertain(
        self, was: DedicatedIP, ip: DedicatedIP, written: Written
    ) -> DedicatedIP | None:
        """The dedicated IP at the revision that is ours, or None when it is not.

        :raises DatastoreUnreachable: it cannot be found out
        """
        if written.outcome is Outcome.DONE:
            return replace(ip, revision=written.revision)
        if written.outcome is Outcome.UNKNOWN and written.revision:
            self._withdraw(was, replace(ip, revision=written.revision))
            return None
        return self._read_back(was, ip, fence=written.outcome is Outcome.UNKNOWN)

    def _read_back(self, was: DedicatedIP, ip: DedicatedIP, fence: bool) -> DedicatedIP | None:
        leaves = self._ips.leaves(ip.address)
        ours = next((leaf for leaf in leaves.live if _same_write(leaf, ip)), None)
        if ours is None:
            return self._fence(was, ip) if fence else None
        if len(leaves.live) > 1:
            self._withdraw(was, ours)
            return None
        return self._confirm(was, ours)

    def _fence(self, was: DedicatedIP, ip: DedicatedIP) -> DedicatedIP | None:
        """Move the revision on, so that a write still under way comes too late."""
        for _ in range(_ATTEMPTS):
            written = self._ips.save(was)
            if written.outcome is Outcome.DONE:
                return None
            if written.revision:
                # No quorum; it may be all there is, so its tombstone must allow to restore it.
                self._withdraw(was, replace(was, revision=written.revision))
                break
            if was.revision not in {leaf.revision for leaf in self._ips.leaves(ip.address).live}:
                # Our write has arrived meanwhile, or the fence after all, or somebody else's.
                return self._read_back(was, ip, fence=False)
        raise DatastoreUnreachable(f"{ip.address}: what became of the write is not known")

    def _confirm(self, was: DedicatedIP, ours: DedicatedIP) -> DedicatedIP | None:
        """Find out whether a write of ours that went unanswered has a quorum.

        Writing it again on its own revision needs a majority that has it; after that nobody else
        can get one, and whoever got one before shows among the leaves.
        """
        if self._ips.replicas == 1:
            return ours
        written = self._ips.save(ours)
        confirmed = replace(ours, revision=written.revision or ours.revision)
        alone = len(self._ips.leaves(ours.address).live) == 1
        if written.outcome is Outcome.DONE and alone:
            return confirmed
        self._withdraw(was, confirmed)
        return None

    def _withdraw(self, was: DedicatedIP, claim: DedicatedIP) -> None:
        """Take back a claim of ours that has no quorum.

        :raises DatastoreUnreachable: it is not known whether it is taken back
        """
        self._look_again(claim.address, claim.assigned_to or was.assigned_to or "")
        written = self._ips.withdraw(claim, was)
        if written.revision:
            return
        # Refused or unanswered: what is still there of ours decides.
        for ours in self._ips.leaves(claim.address).live:
            if _same_write(ours, claim) and not self._ips.withdraw(ours, was).revision:
                raise DatastoreUnreachable(f"{claim.address}: not known whether withdrawn")


def _wrote(claim: Claim, ip: DedicatedIP) -> bool:
    """Whether that very request wrote it; what came later is somebody's who was answered."""
    account_id = claim.account_id if claim.action == "assign" else None
    return ip.has_known_status and (ip.request_id, ip.modified, ip.assigned_to) == (
        claim.request_id,
        claim.at,
        account_id,
    )


def _may_write(claim: Claim, ip: DedicatedIP) -> bool:
    """Whether it is as the claim wants to find it."""
    if claim.action == "assign":
        return ip.status is Status.AVAILABLE
    return ip.assigned_to == claim.account_id


def _unwritten(claim: Claim, ip: DedicatedIP) -> DedicatedIP:
    if claim.action == "assign":
        return replace(ip, status=Status.AVAILABLE, assigned_to=None)
    return replace(ip, status=Status.ASSIGNED, assigned_to=claim.account_id)


def _same_write(there: DedicatedIP, ip: DedicatedIP) -> bool:
    return (there.request_id, there.status, there.assigned_to, there.modified) == (
        ip.request_id,
        ip.status,
        ip.assigned_to,
        ip.modified,
    )
