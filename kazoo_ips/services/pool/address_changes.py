"""Changing an address of the pool without giving it to anybody: zone, host and notes.

The pool document decides, by one compare-and-swap. Then the account's copy is written again, as in
an assignment. If the process dies in between, the background work writes the copy.
"""

from collections.abc import Callable

from kazoo_ips.errors import Conflict, IPNotFound, PreconditionFailed, PreconditionRequired
from kazoo_ips.model import Attempt, ChangeIP, DedicatedIP, EventKind, Status
from kazoo_ips.observability import audit
from kazoo_ips.services.assigning.assignment import changed
from kazoo_ips.services.assigning.read_repair import IPReader, require_match
from kazoo_ips.services.assigning.resumption import Resumption, is_resumed
from kazoo_ips.services.assigning.transactions import TransactionService
from kazoo_ips.services.states.places import PlaceService


class AddressChangeService:
    """Changes one address.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        reader: IPReader,
        transactions: TransactionService,
        resumption: Resumption,
        places: PlaceService,
        now: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._transactions = transactions
        self._resumption = resumption
        self._places = places
        self._now = now

    def change(
        self,
        command: ChangeIP,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> DedicatedIP:
        """Change an address. If it is as the command says already, nothing is written.

        :param attempt: the attempt of a request with an Idempotency-Key; if an earlier attempt has
            changed the address, its result is returned
        :param dry_run: return the address as it would be, and write nothing
        :raises IPNotFound: the address is not in the pool
        :raises ValidationFailed: its status is unknown, or it would have too many labels
        :raises PreconditionRequired: an assigned address would move, and If-Match is missing
        :raises PreconditionFailed: the revision differs from If-Match
        :raises Conflict: another writer was faster
        """
        return self._resumption.once(
            attempt, lambda: self._change(command, request_id, attempt, dry_run)
        )

    def _change(
        self, command: ChangeIP, request_id: str, attempt: Attempt | None, dry_run: bool
    ) -> DedicatedIP:
        try:
            ip = self._reader.get(command.address)
        except IPNotFound:
            done = is_resumed(attempt) and self._resumption.before_deletion(
                EventKind.CHANGED, command.address, None, request_id
            )
            if done:
                return done
            raise
        if is_resumed(attempt):
            done = self._resumption.changed(ip, request_id)
            if done:
                return done
        require_match(ip, command.if_match)
        stamp = audit.stamp(self._now(), request_id, attempt)
        [after] = changed(
            [command.address],
            [ip],
            lambda ip: ip.change(
                command.changes,
                reason=command.reason,
                place=self._places.rules(ip, command.changes),
                **stamp,
            ),
        )
        moves = (ip.zone, ip.host) != (after.zone, after.host)
        if moves and ip.status is Status.ASSIGNED and not command.if_match:
            raise PreconditionRequired
        if after is ip or dry_run:
            self._reader.expect_no_save()
            return after
        try:
            return self._transactions.change_one(ip, after)
        except Conflict as error:
            raise (PreconditionFailed() if command.if_match else error) from error
