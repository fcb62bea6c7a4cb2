"""What earlier attempts at a request with an Idempotency-Key have done, as its reply tells it."""

from collections.abc import Callable
from dataclasses import replace

from kazoo_ips.errors import (
    Conflict,
    DatastoreUnreachable,
    IPNotFound,
    PreconditionFailed,
    ValidationFailed,
)
from kazoo_ips.model import Attempt, DedicatedIP, Event, EventKind
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import Action, Transaction
from kazoo_ips.services.copies import CopyService
from kazoo_ips.services.lookup import Lookup
from kazoo_ips.services.settlement import Settlement
from kazoo_ips.services.writes import PoolWriter


class Resumption:
    """Finds it in the trails of the documents, and in the records of transactions."""

    def __init__(
        self,
        ips: IPRepository,
        lookup: Lookup,
        writer: PoolWriter,
        copies: CopyService,
        settlement: Settlement,
    ) -> None:
        self._ips = ips
        self._lookup = lookup
        self._writer = writer
        self._copies = copies
        self._settlement = settlement

    def once(
        self,
        attempt: Attempt | None,
        find: Callable[[], DedicatedIP | None],
        do: Callable[[], DedicatedIP],
    ) -> DedicatedIP:
        """Do a write to one address, unless an earlier attempt at the same request has done it.

        :param find: what an earlier attempt has done
        :raises KazooIPsError: what doing it raises
        """
        if attempt is None or attempt.number == 1:
            return do()
        done = find()
        if done:
            return done
        try:
            return do()
        except (Conflict, IPNotFound, PreconditionFailed, ValidationFailed):
            # An earlier attempt's write may have arrived since. Any that arrives later is refused.
            done = find()
            if done:
                return done
            raise

    def assigned(self, address: str, account_id: str, request_id: str) -> DedicatedIP | None:
        """The dedicated IP as this request has assigned it, or None when it has not.

        :raises DatastoreUnreachable: that is not certain
        """
        found = self._event(address, EventKind.ASSIGNED, account_id, request_id)
        if found is None:
            return None
        ip, event = found
        if ip.as_of(event) == ip:
            ip = self._writer.confirm(ip)
            self._copies.write([ip])
        else:  # others have written since
            self._settlement.mend_copies(account_id, [ip.address])
        return ip.as_of(event)

    def released(
        self, address: str, account_id: str | None, request_id: str
    ) -> DedicatedIP | None:
        """The dedicated IP as this request has released it, or None when it has not.

        :param account_id: who gave it back; None is whoever had it
        :raises DatastoreUnreachable: that is not certain
        """
        found = self._event(address, EventKind.RELEASED, account_id, request_id)
        if found is None:
            return None
        ip, event = found
        if ip.as_of(event) == ip:
            ip = self._writer.confirm(ip)
        owner_id = event.account_id or ""
        self._copies.look_again(ip.address, owner_id)
        self._settlement.mend_copies(owner_id, [ip.address])
        return ip.as_of(event)

    def created(self, address: str, request_id: str) -> DedicatedIP | None:
        """The dedicated IP as this request has added it to the pool, or None when it has not."""
        found = self._event(address, EventKind.CREATED, None, request_id)
        if found:
            ip, event = found
            return (self._writer.confirm(ip) if ip.as_of(event) == ip else ip).as_of(event)
        for removed in self._ips.removed(address):
            made = removed.event(EventKind.CREATED, None, request_id)
            if made:
                return removed.as_of(made)
        return None

    def deleted(self, address: str, request_id: str) -> DedicatedIP | None:
        """The dedicated IP as this request has taken it out of the pool, or None."""
        for removed in self._ips.removed(address):
            if removed.event(EventKind.DELETED, None, request_id):
                return removed
        return None

    def of_transaction(self, transaction: Transaction) -> list[DedicatedIP]:
        """The dedicated IPs as a committed transaction has assigned or released them."""
        assigned = transaction.action is Action.ASSIGN
        kind = EventKind.ASSIGNED if assigned else EventKind.RELEASED
        event = Event(kind, transaction.account_id, transaction.at, transaction.request_id)
        found = self._ips.find(transaction.addresses)
        gone = DedicatedIP("", "", "", 0, 0)
        return [found.get(a, replace(gone, address=a)).as_of(event) for a in transaction.addresses]

    def _event(
        self, address: str, kind: EventKind, account_id: str | None, request_id: str
    ) -> tuple[DedicatedIP, Event] | None:
        try:
            ip = self._lookup.read(address)
        except IPNotFound:
            return None
        if ip.conflicted:
            raise DatastoreUnreachable(f"{address}: in conflict, and too early to tell")
        for event in ip.trail:
            if (event.kind, event.request_id) == (kind, request_id) and account_id in {
                None, event.account_id,
            }:  # fmt: skip
                return ip, event
        return None
