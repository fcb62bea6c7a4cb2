"""Transferring addresses from an account to another one, without releasing them in between.

The document of each address passes from one account to the other in one write, so no third account
can get it. The copy of the new account is written before that of the old one is removed.
"""

from collections.abc import Callable

from kazoo_ips.errors import ValidationFailed
from kazoo_ips.model import Attempt, DedicatedIP, TransferIPs
from kazoo_ips.observability import audit
from kazoo_ips.repositories.transaction_log import Action
from kazoo_ips.services.assigning.assignment import changed, own_conflict
from kazoo_ips.services.assigning.read_repair import IPReader
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption
from kazoo_ips.services.assigning.transactions import TransactionService


class TransferService:
    """Transfers addresses.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        reader: IPReader,
        transactions: TransactionService,
        recovery: RecoveryService,
        resumption: Resumption,
        now: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._transactions = transactions
        self._recovery = recovery
        self._resumption = resumption
        self._now = now

    def transfer(
        self,
        command: TransferIPs,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Transfer addresses: all of them, in the order of the request, or none.

        :param attempt: the attempt of a request with an Idempotency-Key; if an earlier attempt has
            transferred the addresses, its result is returned; earlier attempts cannot commit any
            more
        :param dry_run: return the addresses as they would be, and write nothing
        :raises ValidationFailed: an address is unknown or not assigned to the account, the error
            says which and why; or both accounts are the same
        :raises LimitReached: a limit of the account that gets them permits fewer addresses
        :raises Conflict: another writer was faster; this request has changed nothing
        :raises DatastoreUnreachable: the outcome is unknown, or CouchDB refuses the writes
        """
        if command.from_id == command.to_id:
            rule = {"message": "from and to are the same account", "value": command.to_id}
            raise ValidationFailed({"to": {"forbidden": rule}})
        done, _ = self._recovery.end_attempts(attempt, Action.TRANSFER, command.to_id, request_id)
        if done:
            return self._resumption.of_transaction(done)
        found = self._reader.find(command.addresses)
        stamp = audit.stamp(self._now(), request_id, attempt)
        before = [found.get(address) for address in command.addresses]
        after = changed(
            command.addresses,
            before,
            lambda ip: ip.transfer(command.from_id, command.to_id, **stamp),
        )
        if dry_run:
            self._transactions.check(after)
            return after
        with own_conflict(attempt):
            return self._transfer([ip for ip in before if ip], after, attempt)

    def _transfer(
        self, before: list[DedicatedIP], after: list[DedicatedIP], attempt: Attempt | None
    ) -> list[DedicatedIP]:
        # With an Idempotency-Key, a later attempt reads the result from the record. Limits are
        # counted by the record too.
        limited = self._transactions.is_needed(after[0].assigned_to or "")
        if len(before) == 1 and attempt is None and not limited:
            return [self._transactions.transfer_one(before[0], after[0])]
        return self._transactions.transfer(before, after, attempt)
