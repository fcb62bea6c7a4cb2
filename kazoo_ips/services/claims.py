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
from kazoo_ips.errors import Conflict, DatastoreUnreachable
from kazoo_ips.model import DedicatedIP, Outcome, Status, Written
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.journal import Claim, JournalRepository

log = logging.getLogger(__name__)


class ClaimService:
    """Makes claims, gives them back, and recovers those that others left half done.

    :param look_again: called with an address that somebody should look at a little later
    """

    def __init__(
        self,
        ips: IPRepository,
        journal: JournalRepository,
        look_again: Callable[[str], None],
    ) -> None:
        self._ips = ips
        self._journal = journal
        self._look_again = look_again

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
        """Make claims that are ours as they were before."""
        was = {ip.address: ip for ip in before}
        undone = [replace(was[ip.address], revision=ip.revision) for ip in saved]
        for ip, written in zip(undone, self._ips.save_all(undone), strict=True):
            if written.outcome is not Outcome.DONE:
                log.warning("%s: could not be given back at once", ip.address)
                self._look_again(ip.address)

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
            # Whoever strikes the note out is the one to act on it.
            if self._journal.close(claim):
                count += self._undo(claim)
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
            if claim.request_id == request_id and self._journal.close(claim):
                self._undo(claim)

    def _undo(self, claim: Claim) -> int:
        taken = claim.action == "assign"
        found = self._ips.find(claim.addresses)
        # Only what that very request wrote; whatever came later is somebody's who was answered.
        ours = [
            ip
            for ip in found.values()
            if (ip.request_id, ip.modified) == (claim.request_id, claim.at)
            and ip.assigned_to == (claim.account_id if taken else None)
        ]
        undone = [
            replace(
                ip,
                status=Status.AVAILABLE if taken else Status.ASSIGNED,
                assigned_to=None if taken else claim.account_id,
            )
            for ip in ours
        ]
        if taken:
            self._ips.remove_copies(claim.account_id, [ip.address for ip in ours])
        self._ips.save_all(undone)
        if not taken:
            self._ips.save_copies(undone)
        log.warning("request %s: %d addresses given back", claim.request_id, len(undone))
        return len(undone)

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
        written = self._ips.save(was)
        if written.outcome is Outcome.DONE:
            return None
        if written.outcome is Outcome.REFUSED:  # it has arrived meanwhile, or another has
            return self._read_back(was, ip, fence=False)
        if written.revision:
            self._ips.drop(replace(was, revision=written.revision))
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
        self._ips.withdraw(claim, was)
        self._look_again(claim.address)


def _same_write(there: DedicatedIP, ip: DedicatedIP) -> bool:
    return (there.request_id, there.status, there.assigned_to, there.modified) == (
        ip.request_id,
        ip.status,
        ip.assigned_to,
        ip.modified,
    )
