"""The results of earlier attempts of a request with an Idempotency-Key.

An earlier attempt may have written before its worker died. A later attempt finds that write by the
request id, which both have in common, and returns the same result.
"""

from collections.abc import Callable
from contextlib import suppress

from kazoo_ips.errors import Conflict, DatastoreUnreachable, IPNotFound, PreconditionFailed
from kazoo_ips.model import Attempt, CreateIP, DedicatedIP, Disabled, Event, EventKind, replace
from kazoo_ips.observability import audit
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import Action, Transaction
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.pool_writes import PoolWriter
from kazoo_ips.services.assigning.read_repair import IPReader

_KINDS = {
    Action.ASSIGN: EventKind.ASSIGNED,
    Action.RELEASE: EventKind.RELEASED,
    Action.TRANSFER: EventKind.TRANSFERRED,
    Action.RESERVE: EventKind.RESERVED,
}


_READS = 3
"""Maximum number of reads of an address while other clients delete it and add it again."""


class Resumption:
    """Finds the results of earlier attempts in trails of documents and in transaction records."""

    def __init__(
        self,
        ips: IPRepository,
        reader: IPReader,
        writer: PoolWriter,
        copies: AccountCopyService,
    ) -> None:
        self._ips = ips
        self._reader = reader
        self._writer = writer
        self._copies = copies

    @staticmethod
    def once(attempt: Attempt | None, do: Callable[[], DedicatedIP]) -> DedicatedIP:
        """Do a write to one address, unless an earlier attempt of the same request has done it.

        :param do: checks the document for an earlier attempt's write, then writes to that revision
        :raises KazooIPsError: whatever `do` raises
        """
        try:
            return do()
        except (Conflict, IPNotFound, PreconditionFailed):
            if not is_resumed(attempt):
                raise
        # An earlier attempt's write may have arrived between the read and the write of `do`. The
        # second call finds it. CouchDB refuses a write that arrives later.
        return do()

    def assigned(self, ip: DedicatedIP, account_id: str, request_id: str) -> DedicatedIP | None:
        """Return the dedicated IP as this request has assigned it, or None if it has not.

        :raises DatastoreUnreachable: it is unknown whether the assignment has a quorum and a copy
        """
        event = ip.event(EventKind.ASSIGNED, account_id, request_id)
        if event is None:
            return None
        if ip.as_of(event) == ip:
            ip = self._writer.confirm(ip)
            self._copies.write([ip])
        else:  # another writer has written since
            self._copies.repair(account_id, [ip.address])
        audit.assigned([ip.address], account_id, request_id, recovered=True)
        return ip.as_of(event)

    def released(
        self, ip: DedicatedIP, account_id: str | None, request_id: str
    ) -> DedicatedIP | None:
        """Return the dedicated IP as this request has released it, or None if it has not.

        :param account_id: the account that releases; None is any account
        :raises DatastoreUnreachable: it is unknown whether the release has a quorum
        """
        released = (e for e in reversed(ip.trail) if e.kind == EventKind.RELEASED)
        event = next((e for e in released if e.request_id == request_id), None)
        if event is None or account_id not in {None, event.account_id}:
            return None
        if ip.as_of(event) == ip:
            ip = self._writer.confirm(ip)
        owner_id = event.account_id or ""
        self._copies.schedule_check(ip.address, owner_id)
        self._copies.repair(owner_id, [ip.address])
        after = ip.as_of(event)
        to = {ip.address: after.status}
        audit.released([ip.address], event.account_id, request_id, to=to, recovered=True)
        return after

    def changed(self, ip: DedicatedIP, request_id: str) -> DedicatedIP | None:
        """Return the dedicated IP as this request has changed it, or None if it has not.

        :raises DatastoreUnreachable: it is unknown whether the change has a quorum and a copy
        """
        event = ip.event(EventKind.CHANGED, None, request_id)
        if event is None:
            return None
        if ip.as_of(event) == ip:
            ip = self._writer.confirm(ip)
            if not self._copies.follow([ip]):
                raise DatastoreUnreachable(f"{ip.address}: changed, but its copy is not")
        kind = audit.Change.CHANGED
        audit.changed(kind, [ip.before(event)], [ip.as_of(event)], recovered=True)
        return ip.as_of(event)

    def marked(self, ip: DedicatedIP, kind: EventKind, request_id: str) -> DedicatedIP | None:
        """Return the dedicated IP as this request has left it, or None if it has done nothing.

        :param kind: DISABLED, ENABLED or AGED: changes that no copy shows
        :raises DatastoreUnreachable: it is unknown whether the change has a quorum
        """
        events = (event for event in reversed(ip.trail) if event.kind == kind)
        event = next((each for each in events if each.request_id == request_id), None)
        if event is None:
            return None
        if event is ip.trail[-1]:
            return self._writer.confirm(ip)
        # Another writer has written since.
        is_disabled = kind is EventKind.DISABLED
        mark = Disabled(event.reason, event.at, event.by) if is_disabled else None
        return replace(ip.as_of(event), disabled=mark)

    def before_deletion(
        self, kind: EventKind, address: str, account_id: str | None, request_id: str
    ) -> DedicatedIP | None:
        """Return the dedicated IP as this request has changed it before it was deleted, or None.

        :param kind: ASSIGNED or RELEASED
        :param account_id: the account of the request; None is any account
        :raises DatastoreUnreachable: CouchDB did not answer
        """
        ip = self._latest(address)
        for event in reversed(ip.trail) if ip else ():
            if (event.kind, event.request_id) == (kind, request_id):
                return ip.as_of(event) if ip and account_id in {None, event.account_id} else None
        return None

    def created(
        self, command: CreateIP, request_id: str, ip: DedicatedIP | None = None
    ) -> DedicatedIP | None:
        """Return the dedicated IP as this request has added it to the pool, or None if it has not.

        :param ip: the dedicated IP as it was last deleted, if the caller has read that
        :raises DatastoreUnreachable: it is unknown whether the addition has a quorum
        """
        ip = ip or self._latest(command.address)
        event = ip and ip.event(EventKind.CREATED, None, request_id)
        if not (ip and event):
            return None
        if ip.as_of(event) == ip:
            ip = self._writer.confirm(ip)
            audit.created([ip], recovered=True)
        # Another client may have deleted it and added it again, with another zone or host.
        return replace(ip.as_of(event), zone=command.zone, host=command.host)

    def deleted(
        self, address: str, request_id: str, ip: DedicatedIP | None = None
    ) -> DedicatedIP | None:
        """Return the dedicated IP as this request has deleted it, or None if it has not.

        :param ip: the dedicated IP, if the caller has read it: it may have been added again
        :raises DatastoreUnreachable: CouchDB did not answer
        """
        ip = ip or self._latest(address)
        event = ip and ip.event(EventKind.DELETED, None, request_id)
        if not (ip and event):
            return None
        for earlier in ip.trail:
            if (earlier.kind, earlier.request_id) == (EventKind.RELEASED, request_id):
                self._copies.repair(earlier.account_id or "", [ip.address])
        audit.deleted(ip, request_id, recovered=True)
        return ip.as_of(event)

    def _latest(self, address: str) -> DedicatedIP | None:
        """Return the dedicated IP as it is, or as it was when it was last deleted, or None.

        :raises DatastoreUnreachable: CouchDB did not answer, or other clients have added and
            deleted the address during each read
        """
        for _ in range(_READS):
            with suppress(IPNotFound):
                return self._reader.read(address)
            leaves = self._ips.leaves(address)
            if not leaves.live:  # otherwise another client has added it between the two reads
                return leaves.deletion
        raise DatastoreUnreachable(f"{address}: added and deleted all the time")

    def of_transaction(self, transaction: Transaction) -> list[DedicatedIP]:
        """Return the dedicated IPs as a committed transaction has left them."""
        event = Event(
            _KINDS[transaction.action],
            transaction.account_id,
            transaction.at,
            transaction.request_id,
        )
        found = self._ips.by_id(transaction.addresses)[0]
        deleted = DedicatedIP("", "", "", 0, 0)
        return [
            found.get(address, replace(deleted, address=address)).as_of(event)
            for address in transaction.addresses
        ]


def is_resumed(attempt: Attempt | None) -> bool:
    """Return whether an earlier attempt may have executed the same request already."""
    return attempt is not None and attempt.number > 1
