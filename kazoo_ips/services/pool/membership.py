"""The operator's pool: what comes in and what goes out."""

from collections.abc import Callable
from dataclasses import replace

from kazoo_ips.errors import (
    Conflict,
    DatastoreUnreachable,
    IPAssigned,
    IPExists,
    IPNotFound,
    IPStatusUnknown,
    PreconditionFailed,
)
from kazoo_ips.model import (
    Attempt,
    CreateIP,
    DedicatedIP,
    DeleteIP,
    Event,
    Outcome,
    Status,
    Written,
)
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.read_repair import IPReader, require_match
from kazoo_ips.services.assigning.resumption import Resumption, is_resumed

_WRITES = 2
"""Times that an address is written when nobody says what became of it."""


class PoolService:
    """Adds addresses and takes them out.

    `attempt` is that of a request with an Idempotency-Key: what an earlier one has done is told.
    `dry_run` says that it is only asked what would be done: nothing is written.

    :param now: the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each thing it brings together
        self,
        ips: IPRepository,
        reader: IPReader,
        copies: AccountCopyService,
        conflicts: ConflictResolver,
        resumption: Resumption,
        now: Callable[[], int],
    ) -> None:
        self._ips = ips
        self._reader = reader
        self._copies = copies
        self._conflicts = conflicts
        self._resumption = resumption
        self._now = now

    def create(
        self,
        command: CreateIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Add an address to the pool.

        :raises IPExists: it is there already, in whatever spelling
        """
        return self._resumption.once(
            attempt, lambda: self._create(command, request_id, attempt, dry_run)
        )

    def _create(
        self, command: CreateIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        if is_resumed(attempt):
            made = self._resumption.created(command, request_id)
            if made:
                return made
        # Whether it is there under this spelling the write itself says.
        there = self._ips.find([command.address]) if dry_run else None
        if there or self._ips.has_other_spelling(command.address):
            raise IPExists(command.address)
        ip = DedicatedIP.new(
            command.address,
            command.zone,
            command.host,
            at=self._now(),
            request_id=request_id,
            trail=() if dry_run else self._earlier_trail(command.address),
        )
        if dry_run:
            return ip
        for _ in range(_WRITES):
            written = self._ips.save(ip)
            if written.outcome is Outcome.DONE:
                return replace(ip, revision=written.revision)
            added = self._added(ip, written)
            if added:
                return added
        raise DatastoreUnreachable(f"{ip.address}: not known whether added")

    def _earlier_trail(self, address: str) -> tuple[Event, ...]:
        """What happened to an address that the pool had once.

        One that every claimant withdrew from is brought back first: to be made anew without a
        quorum would hide what it was before.

        :raises IPExists: it was to be brought back
        :raises DatastoreUnreachable: it cannot be now
        """
        leaves = self._ips.leaves(address)
        if leaves.lost:
            self._conflicts.resolve(address)
            raise IPExists(address)
        return leaves.trail

    def _added(self, ip: DedicatedIP, written: Written) -> DedicatedIP | None:
        """A new address of which CouchDB did not simply say that it is there; None if it is not.

        Then it can be written again: should the first write arrive after all, it is refused or
        finds its own revision, and the address is there once.
        """
        if written.revision:  # no quorum: nobody has been told of it, so it can go
            self._ips.drop(replace(ip, revision=written.revision))
            raise DatastoreUnreachable(f"{ip.address}: no quorum")
        try:
            there = self._reader.read(ip.address)
        except IPNotFound:
            return None
        if (there.request_id, there.created) != (ip.request_id, ip.created):
            raise IPExists(ip.address)
        return there

    def delete(
        self,
        command: DeleteIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Take an address out of the pool, out of its account as well where that is asked for.

        :returns: it as it was last: available, or of a status that this release does not know
        :raises IPNotFound: it is not there
        :raises IPAssigned: it is assigned and not to be released with it
        :raises IPStatusUnknown: this release does not know its status, and `force` is not given
        :raises Conflict: somebody else's write came first
        :raises PreconditionFailed: If-Match no longer holds
        """
        return self._resumption.once(
            attempt, lambda: self._delete(command, request_id, attempt, dry_run)
        )

    def _delete(
        self, command: DeleteIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        if is_resumed(attempt):
            removed = self._resumption.deleted(command.address, request_id)
            if removed:
                return removed
        was = self._reader.get(command.address)
        require_match(was, command.if_match)
        ip = self._deletion(was, command.force, request_id)
        if dry_run:
            return ip
        written = self._ips.remove(ip)
        if written.outcome is Outcome.REFUSED:
            raise PreconditionFailed() if command.if_match else Conflict(ip.address)
        if written.outcome is Outcome.UNKNOWN:
            if was.assigned_to:  # whatever becomes of it, the copy shall agree
                self._copies.look_again(was.address, was.assigned_to)
            self._ensure_gone(was, ip, written)
        self._copies.remove([was])
        return ip

    def _deletion(self, was: DedicatedIP, force: bool, request_id: str) -> DedicatedIP:
        """It as it will be when it leaves the pool.

        :raises IPAssigned: it is assigned and not to be released with it
        :raises IPStatusUnknown: this release does not know its status, and `force` is not given
        """
        if not (was.has_known_status or force):
            raise IPStatusUnknown(was.address)
        at, ip = self._now(), was
        if was.status is Status.ASSIGNED:
            if not force:
                raise IPAssigned(was.address)
            ip = was.release(None, at=at, request_id=request_id)
        return ip.delete(at=at, request_id=request_id)

    def _ensure_gone(self, was: DedicatedIP, ip: DedicatedIP, written: Written) -> None:
        """Make sure that an address is gone, without a word of CouchDB whether it is.

        :raises Conflict: it has no quorum, and somebody else has written
        :raises DatastoreUnreachable: it cannot be found out, has no quorum and is brought back,
            or somebody keeps it alive or has deleted it
        """
        if written.revision is None and self._ips.leaves(ip.address).live:
            # At the same revision: should the first write arrive after all, it is refused.
            written = self._ips.remove(ip)
        if written.revision and written.outcome is Outcome.UNKNOWN:
            self._conflicts.restore(self._ips.withdraw_deletion(written.revision, was))
            raise DatastoreUnreachable(f"{ip.address}: no quorum")
        if written.outcome is Outcome.DONE:
            return
        # It may have been gone by somebody else's deletion before ours came.
        leaves = self._ips.leaves(ip.address)
        if leaves.live or ip.trail[-1] not in leaves.trail:
            raise DatastoreUnreachable(f"{ip.address}: not known whether deleted")
