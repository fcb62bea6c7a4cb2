"""Adding one address to the pool, and deleting one."""

from collections.abc import Callable
from contextlib import suppress

from kazoo_ips.errors import (
    Conflict,
    DatastoreUnreachable,
    IPAssigned,
    IPExists,
    IPNotFound,
    IPReserved,
    IPStatusUnknown,
    PreconditionFailed,
    Reserved,
)
from kazoo_ips.model import (
    Attempt,
    CreateIP,
    DedicatedIP,
    DeleteIP,
    Leaves,
    Outcome,
    Status,
    Written,
    replace,
)
from kazoo_ips.observability import audit
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.assigning.read_repair import IPReader, require_match
from kazoo_ips.services.assigning.resumption import Resumption, is_resumed
from kazoo_ips.services.states.places import PlaceService

_WRITES = 2
"""Maximum number of writes of an address while the outcome is unknown."""


class PoolService:
    """Adds and deletes addresses.

    The argument `attempt` belongs to a request with an Idempotency-Key. If an earlier attempt has
    executed the request, its result is returned. A call with `dry_run` returns what would be
    written, and writes nothing.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        reader: IPReader,
        copies: AccountCopyService,
        conflicts: ConflictResolver,
        resumption: Resumption,
        places: PlaceService,
        now: Callable[[], int],
    ) -> None:
        self._ips = ips
        self._reader = reader
        self._copies = copies
        self._conflicts = conflicts
        self._resumption = resumption
        self._places = places
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

        :raises IPExists: the pool has the address already, in any spelling
        """
        return self._resumption.once(
            attempt, lambda: self._create(command, request_id, attempt, dry_run)
        )

    def _create(
        self, command: CreateIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        if is_resumed(attempt):
            created = self._resumption.created(command, request_id)
            if created:
                return created
        # The write itself fails if the address exists in this spelling.
        existing = self._ips.find([command.address]) if dry_run else None
        if existing or self._ips.has_other_spelling(command.address):
            raise IPExists(command.address)
        earlier = Leaves(()) if dry_run else self._earlier(command.address)
        if is_resumed(attempt) and earlier.deletion:
            # The first attempt's write may have arrived since, and another client deleted it.
            created = self._resumption.created(command, request_id, earlier.deletion)
            if created:
                return created
        ip = DedicatedIP.new(
            command.address,
            command.zone,
            command.host,
            **audit.stamp(self._now(), request_id, attempt),
            trail=earlier.deleted_trail,
            tombstone=earlier.latest,
            place=self._places.places().rules(command.zone, command.host),
        )
        return ip if dry_run else self._write_addition(ip)

    def _write_addition(self, ip: DedicatedIP) -> DedicatedIP:
        """Add an address.

        :raises IPExists: another request has added the address
        :raises DatastoreUnreachable: it is unknown whether the address was added
        """
        for _ in range(_WRITES):
            written = self._ips.save(ip)
            added = (
                replace(ip, revision=written.revision)
                if written.outcome is Outcome.DONE
                else self._added(ip, written)
            )
            if added:
                audit.created([ip])
                return added
        raise DatastoreUnreachable(f"{ip.address}: not known whether added")

    def _earlier(self, address: str) -> Leaves:
        """Return the tombstones of an address that was in the pool before.

        If all writers have withdrawn, the address is restored instead. A new document without a
        quorum would hide its earlier state. An address that exists is not written: if another
        client deleted it meanwhile, the new document would lack the event of that deletion.

        :raises IPExists: the address exists, or was restored
        :raises DatastoreUnreachable: the address has to be restored, and cannot be now
        """
        leaves = self._ips.leaves(address)
        if leaves.live:
            raise IPExists(address)
        if leaves.restorable:
            self._conflicts.resolve(address)
            raise IPExists(address)
        return leaves

    def _added(self, ip: DedicatedIP, written: Written) -> DedicatedIP | None:
        """Read back an address whose write was not confirmed; return None if it does not exist.

        In that case it can be written again. If the first write arrives later, CouchDB refuses it,
        or it has the same revision.

        :raises IPExists: another request has added the address
        :raises DatastoreUnreachable: the write has no quorum, and was deleted again
        """
        if written.revision:  # no quorum: no client has got a reply about it
            self._ips.drop(replace(ip, revision=written.revision))
            raise DatastoreUnreachable(f"{ip.address}: no quorum")
        try:
            current = self._reader.read(ip.address)
        except IPNotFound:
            return None
        if (current.request_id, current.created) != (ip.request_id, ip.created):
            raise IPExists(ip.address)
        return current

    def delete(
        self,
        command: DeleteIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Delete an address from the pool. With `force`, release it first.

        :returns: the last state, after the release
        :raises IPNotFound: the address is not in the pool
        :raises IPAssigned: it is assigned, and `force` is not given
        :raises IPReserved: it is reserved, and `force` is not given
        :raises IPStatusUnknown: this release does not know its status, and `force` is not given
        :raises Conflict: another writer was faster
        :raises PreconditionFailed: the revision differs from If-Match
        """
        return self._resumption.once(
            attempt, lambda: self._delete(command, request_id, attempt, dry_run)
        )

    def _delete(
        self, command: DeleteIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        before: DedicatedIP | None = None
        with suppress(IPNotFound):
            before = self._reader.get(command.address)
        if is_resumed(attempt):
            deleted = self._resumption.deleted(command.address, request_id, before)
            if deleted:
                return deleted
        if before is None:
            raise IPNotFound(command.address)
        require_match(before, command.if_match)
        ip = self._deletion(before, command.force, request_id, keyed=attempt is not None)
        if not dry_run:
            self._write_deletion(before, ip, command)
            audit.deleted(before, request_id)
            self._copies.remove([before])
        return ip

    def _write_deletion(self, before: DedicatedIP, ip: DedicatedIP, command: DeleteIP) -> None:
        """Delete an address.

        :param ip: the dedicated IP as its tombstone records it
        :raises Conflict: another writer was faster
        :raises PreconditionFailed: the same, of a request with If-Match
        :raises DatastoreUnreachable: the outcome is unknown
        """
        written = self._ips.remove(ip)
        if written.outcome is Outcome.REFUSED:
            raise PreconditionFailed() if command.if_match else Conflict(ip.address)
        if written.outcome is Outcome.UNKNOWN:
            if before.assigned_to:  # the copy has to agree with the pool, whatever the outcome
                self._copies.schedule_check(before.address, before.assigned_to)
            self._ensure_deleted(before, ip, written)
        elif self._ips.replicas > 1:  # a node that lags may accept a write of an earlier state
            self._copies.schedule_check(before.address, "")

    def _deletion(
        self, before: DedicatedIP, force: bool, request_id: str, *, keyed: bool
    ) -> DedicatedIP:
        """Return the dedicated IP as its tombstone records it.

        :raises IPAssigned: it is assigned, and `force` is not given
        :raises IPReserved: it is reserved, and `force` is not given
        :raises IPStatusUnknown: this release does not know its status, and `force` is not given
        """
        if not (before.has_known_status or force):
            raise IPStatusUnknown(before.address)
        at, by, ip = self._now(), audit.author(), before
        if before.status is Status.ASSIGNED:
            if not force:
                raise IPAssigned(before.address)
            place = self._places.rules(before)
            ip = before.release(
                None, at=at, request_id=request_id, by=by, keyed=keyed, place=place
            )
        try:
            return ip.delete(force=force, at=at, request_id=request_id, by=by, keyed=keyed)
        except Reserved:
            raise IPReserved(before.address) from None

    def _ensure_deleted(self, before: DedicatedIP, ip: DedicatedIP, written: Written) -> None:
        """Make sure that an address is deleted, after a deletion with an unknown outcome.

        :raises Conflict: the deletion has no quorum, and another writer has written
        :raises DatastoreUnreachable: the outcome is still unknown; or the deletion had no quorum,
            and the address is restored; or another client has deleted it
        """
        if written.revision is None:
            # At the same revision, so CouchDB refuses the first deletion if it arrives later. On a
            # cluster a minority may have it. Then the others accept it now.
            written = self._ips.remove(ip)
        if written.revision and written.outcome is Outcome.UNKNOWN:
            deletion = replace(ip, revision=written.revision)
            self._conflicts.restore(self._ips.withdraw_deletion(deletion, before))
            raise DatastoreUnreachable(f"{ip.address}: no quorum")
        if written.outcome is Outcome.DONE:
            return
        # Another client may have deleted it before.
        leaves = self._ips.leaves(ip.address)
        if leaves.live or ip.trail[-1] not in leaves.trail:
            raise DatastoreUnreachable(f"{ip.address}: not known whether deleted")
