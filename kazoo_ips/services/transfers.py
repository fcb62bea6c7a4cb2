"""Addresses go from the pool to an account, or back: pool, copies and journal in their order.

The note first, when there are several; then the pool's documents, which decide; then the copies,
which say that it is acknowledged; last the note is struck out. Whatever goes wrong on the way is
undone before anybody is told.
"""

from collections.abc import Sequence
from dataclasses import replace

from kazoo_ips.errors import Conflict, DatastoreUnreachable
from kazoo_ips.model import DedicatedIP
from kazoo_ips.repositories.journal import Claim
from kazoo_ips.services.claims import ClaimService
from kazoo_ips.services.copies import CopyService


class TransferService:
    """All of several addresses, or none of them."""

    def __init__(self, claims: ClaimService, copies: CopyService) -> None:
        self._claims = claims
        self._copies = copies

    def assign(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> list[DedicatedIP]:
        """Assign all of these or none.

        :param before: the same dedicated IPs as they were read
        :raises Conflict: somebody else was faster; nothing of it is left
        :raises DatastoreUnreachable: it is not certain what became of it
        """
        notes = self._note("assign", after, [ip.assigned_to or "" for ip in after])
        saved = self._make(before, after, notes)
        self.acknowledge(before, saved, notes)
        return saved

    def release(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> list[DedicatedIP]:
        """Release all of these or none; the errors are those of `assign`."""
        notes = self._note("release", after, [ip.assigned_to or "" for ip in before])
        with self._copies.removal(before) as remove_copies:
            saved = self._make(before, after, notes)
            self._conclude(notes, before, saved)
            remove_copies()
        return saved

    def repeat(self, done: Sequence[DedicatedIP]) -> list[DedicatedIP]:
        """Acknowledge what an earlier attempt at the same request has done already.

        It is written again at another time than its note says: a note that a lagging node hid
        from us speaks of something else then, and nobody undoes this by it.
        """
        at = max(ip.modified for ip in done) + 1
        renewed = [replace(ip, modified=at) for ip in done]
        if all(ip.assigned_to for ip in done):
            return self.assign(done, renewed)
        return self._claims.make_all(done, renewed)

    def acknowledge(
        self, before: Sequence[DedicatedIP], saved: Sequence[DedicatedIP], notes: Sequence[Claim]
    ) -> None:
        """Write the copies of addresses that are certainly their accounts' by now.

        :raises DatastoreUnreachable: they cannot be written; the addresses are given back
        """
        try:
            self._copies.write(saved)
        except DatastoreUnreachable:
            self._take_back(before, saved)
            raise
        self._conclude(notes, before, saved)

    def _note(
        self, action: str, after: Sequence[DedicatedIP], owners: Sequence[str]
    ) -> list[Claim]:
        """Note several claims before they are made; one alone is done or not, and needs none."""
        if len(after) < 2:
            self._copies.expect_change(owners[0])
            return []
        first = after[0]
        return [
            self._claims.note(
                action,
                owners[0],
                first.request_id or "",
                first.modified,
                [ip.address for ip in after],
            )
        ]

    def _make(
        self,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
        notes: Sequence[Claim],
    ) -> list[DedicatedIP]:
        try:
            return self._claims.make_all(before, after)
        except Conflict:
            self._claims.conclude(notes)
            raise

    def _conclude(
        self, notes: Sequence[Claim], before: Sequence[DedicatedIP], saved: Sequence[DedicatedIP]
    ) -> None:
        """Strike the notes out: the last step before the reply, after which nobody undoes it.

        :raises DatastoreUnreachable: that is not certain; so it is undone here and now
        """
        try:
            self._claims.conclude(notes)
        except DatastoreUnreachable:
            self._take_back(before, saved)
            raise

    def _take_back(self, before: Sequence[DedicatedIP], saved: Sequence[DedicatedIP]) -> None:
        """Undo what was done, copies included.

        :raises DatastoreUnreachable: it is not certain that everything is undone
        """
        self._claims.give_back(before, saved)
        self._copies.remove(saved)
