"""Recovery of transactions that another worker has left undecided or unfinished.

A committed release is rolled forward: its documents become available. An aborted assignment is
rolled back. Both are idempotent, so any number of workers may do them.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock

from cachetools import LRUCache

from kazoo_ips.errors import Conflict, DatastoreUnreachable, KazooIPsError
from kazoo_ips.model import KEY_SECONDS, Attempt, DedicatedIP, Status
from kazoo_ips.observability import audit
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import (
    Action,
    Transaction,
    TransactionLog,
    TransactionState,
    is_release,
    transaction_id,
)
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.states.places import PlaceService

log = logging.getLogger(__name__)

LEASE = 60
"""Seconds after which the owner of a transaction is considered dead: longer than any request
takes. The death of an owner on this machine is noticed at once. If the owner is alive, it finds
its record aborted, and its request fails."""

_WAITS = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait between reads of the record of a pending transaction, before giving up."""
_TRIES = 3
"""Maximum number of tries to finish documents while other writers write to them."""
_ENDED = 10_000
"""Number of finished transactions that this process remembers."""


class RecoveryService:
    """Ends transactions: aborts those of dead owners and finishes the documents of decided ones.

    :param schedule_check: schedules a later check of an address, and of an account's copy of it
    :param now: returns the time in Gregorian seconds
    :param pause: sleeps for a number of seconds
    :param metrics: counts the transactions that are recovered
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        log_: TransactionLog,
        conflicts: ConflictResolver,
        places: PlaceService,
        schedule_check: Callable[[str, str], None],
        now: Callable[[], int],
        pause: Callable[[float], None],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._log = log_
        self._conflicts = conflicts
        self._places = places
        self._schedule_check = schedule_check
        self._now = now
        self._pause = pause
        self._metrics = metrics
        self._ended: LRUCache[str, bool] = LRUCache(_ENDED)
        self._lock = Lock()

    # Transactions of the documents that a request has read.

    def resolve(self, ips: Iterable[DedicatedIP]) -> set[str]:
        """End the transactions that these documents name.

        :param ips: the dedicated IPs as they were read, in order to write to them
        :returns: the addresses that have to be read again
        :raises Conflict: a transaction is pending, and its owner is alive
        """
        by_transaction: dict[str, list[DedicatedIP]] = {}
        for ip in ips:
            if ip.transaction and not self.is_ended(ip.transaction):
                by_transaction.setdefault(ip.transaction, []).append(ip)
        changed: set[str] = set()
        for transaction, marked in by_transaction.items():
            if self._resolve(transaction, marked):
                changed |= {ip.address for ip in marked}
        return changed

    def is_released(self, ip: DedicatedIP) -> bool:
        """Return whether a committed release includes this address.

        Its document then still says assigned, until a worker rolls the release forward.
        """
        if not ip.transaction or not is_release(ip.transaction) or self.is_ended(ip.transaction):
            return False
        transaction = self._log.find(ip.transaction)
        if transaction is None:
            self.record_ended(ip.transaction)
        return transaction is not None and transaction.state is TransactionState.COMMITTED

    def is_known_to_end(self, transaction: str) -> bool:
        """Return whether this process knows that a transaction is finished or committed.

        Documents of releases agree with each state of their transaction: they change after the
        commit.
        """
        return is_release(transaction) or self.is_ended(transaction)

    def is_committed(self, name: str) -> bool:
        """Return whether an assignment is committed, or was finished in any way.

        If it was finished, its documents have to be read again: they may have been undone.

        :raises DatastoreUnreachable: that is not known
        """
        transaction = self._log.find(name)
        if transaction is None or transaction.finished:
            self.record_ended(name)
            return True
        if transaction.state is not TransactionState.COMMITTED:
            return False
        self._log.confirm(transaction)
        return True

    def is_uncommitted(self, transaction: str) -> bool:
        """Return whether a transaction is an assignment that has not committed.

        Its documents say assigned already, and become available again if it is aborted.
        """
        if is_release(transaction) or self.is_ended(transaction):
            return False
        found = self._log.find(transaction)
        if found is None:
            self.record_ended(transaction)
        return found is not None and found.state is not TransactionState.COMMITTED

    def is_under_way(self, name: str) -> bool:
        """Return whether a transaction is pending. If its owner is dead, end it first.

        :raises DatastoreUnreachable: that is not known
        """
        transaction = self._log.find(name)
        if transaction is None or transaction.finished:
            return False
        if self.is_orphaned(transaction):
            self.end_transaction(name)
            return False
        return transaction.state is TransactionState.PENDING

    def _resolve(self, name: str, marked: Sequence[DedicatedIP]) -> bool:
        """End one transaction; return whether its documents have to be read again."""
        for waits, wait in enumerate((*_WAITS, None)):
            transaction = self._log.find(name)
            if transaction and not transaction.finished and self.is_orphaned(transaction):
                transaction = self.end_transaction(name) or self._log.find(name)
            if transaction is None or transaction.state is not TransactionState.PENDING:
                return self._apply(name, transaction, marked) or waits > 0
            if wait:
                self._pause(wait)
        raise Conflict(*(ip.address for ip in marked))

    def _apply(
        self, name: str, transaction: Transaction | None, marked: Sequence[DedicatedIP]
    ) -> bool:
        """Make documents agree with a transaction's decision; return whether that changed any."""
        if transaction is None:
            self.record_ended(name)
            return False
        self._log.confirm(transaction)
        if not transaction.changes_documents:
            return False  # the documents agree with the decision as they are
        due = [self._decided(transaction, ip) for ip in marked if _is_written(transaction, ip)]
        self._save_decided(transaction, due)
        return bool(due)

    def is_ended(self, transaction: str) -> bool:
        """Return whether this process knows that all documents agree with its outcome."""
        with self._lock:
            return transaction in self._ended

    def record_ended(self, transaction: str) -> None:
        """Remember that all documents agree with the decision of a transaction."""
        with self._lock:
            self._ended[transaction] = True

    # Earlier attempts of a request with an Idempotency-Key.

    def end_attempts(
        self, attempt: Attempt | None, action: Action, account_id: str, request_id: str
    ) -> tuple[Transaction | None, list[str]]:
        """End the earlier attempts of a request, so that none of them can commit any more.

        :returns: the transaction of the earlier attempt that has committed, or None; and the
            addresses of the aborted attempts
        :raises DatastoreUnreachable: it is unknown whether an earlier attempt has ended
        """
        aborted: list[str] = []
        for earlier in attempt.earlier if attempt else ():
            name = transaction_id(action, earlier)
            transaction = self._log.find(name)
            if transaction is None:
                transaction = self._log.fence(action, account_id, request_id, self._now(), earlier)
            elif transaction.state is TransactionState.PENDING:
                transaction = self._log.abort(transaction)
            if transaction is None:  # the earlier attempt has changed its record meanwhile
                transaction = self._log.find(name)
            if transaction is None or transaction.state is TransactionState.PENDING:
                raise DatastoreUnreachable(
                    f"request {request_id}: an earlier attempt has not ended"
                )
            self.finish(transaction)
            if transaction.state is TransactionState.COMMITTED:
                return transaction, aborted
            aborted += transaction.addresses
        return None, aborted

    # Transactions of dead owners.

    def recover(self) -> None:
        """End the transactions of dead processes."""
        for listed in self._log.all():
            try:
                self._recover(listed)
            except KazooIPsError as error:  # the next round tries again
                log.warning("request %s: not recovered yet: %s", listed.request_id, error)

    def _recover(self, listed: Transaction) -> None:
        if not self.is_orphaned(listed):
            return
        if listed.finished:
            if self._now() - listed.at > KEY_SECONDS:
                self._log.sweep([listed])
            return
        transaction = self.end_transaction(listed.id)
        if transaction is None:  # ended before
            # On a cluster a revision may remain after the deletion of the record. If the record
            # exists, the list lagged, and a later attempt may need the record.
            if self._log.find(listed.id) is None:
                self._log.forget([listed])
        else:
            self._metrics.transactions_recovered.inc()
            log.warning(
                "request %s: its transaction is %s", transaction.request_id, transaction.state
            )

    def end_transaction(self, name: str, *, audited: bool = False) -> Transaction | None:
        """End a transaction on which no process works any more.

        :param name: the transaction's id
        :param audited: True if the owner calls this and has written the audit lines
        :returns: the transaction with its decision; None if it was finished before
        :raises DatastoreUnreachable: it is unknown whether the transaction is ended
        """
        transaction = self._log.find(name)
        if transaction is not None and transaction.state is TransactionState.PENDING:
            transaction = self._log.abort(transaction) or self._log.find(name)
        if transaction is None or transaction.finished:
            return None
        if transaction.state is TransactionState.PENDING:
            raise DatastoreUnreachable(f"request {transaction.request_id} is not decided")
        self.finish(transaction, audited=audited)
        return transaction

    def orphaned(self) -> list[Transaction]:
        """Return the transactions of dead owners whose documents may not show the decision."""
        return [
            t
            for t in self._log.all()
            if not t.finished
            and (t.action is Action.RELEASE or t.state is not TransactionState.COMMITTED)
            and self.is_orphaned(t)
        ]

    def under_way(self) -> set[str]:
        """Return the addresses of all transactions that are not finished."""
        return {a for t in self._log.all() if not t.finished for a in t.addresses}

    def is_orphaned(self, transaction: Transaction) -> bool:
        """Return whether the owner of a transaction is dead or considered dead."""
        return transaction.at + LEASE < self._now() or liveness.is_dead(transaction.worker)

    def finish(self, transaction: Transaction, *, audited: bool = False) -> None:
        """Make all documents of a decided transaction agree with the decision, then the copies.

        If several workers do so, the worker that ends the record writes the audit lines.

        :param audited: True if the owner calls this and has written the audit lines
        :raises DatastoreUnreachable: it is unknown whether all documents and copies agree
        """
        if transaction.finished:
            return
        released: dict[str, str] = {}
        transaction = self._log.confirm(transaction)
        if (transaction.action, transaction.state) != (Action.RELEASE, TransactionState.ABORTED):
            released = self._finish_documents(transaction)
            for account_id in transaction.accounts:
                self._conflicts.repair_copies(account_id, transaction.addresses)
                for address in transaction.addresses:
                    self._schedule_check(address, account_id)
        ended = self._log.finish([transaction])
        self.record_ended(transaction.id)
        if ended and transaction.state is TransactionState.COMMITTED and not audited:
            write_audit(transaction, released, recovered=True)

    def _finish_documents(self, transaction: Transaction) -> dict[str, str]:
        """Write the documents that do not agree with the decision yet.

        :returns: the status of each address that was written
        """
        statuses: dict[str, str] = {}
        if not transaction.changes_documents:
            return statuses
        for _ in range(_TRIES):
            found = self._written(transaction)
            due = [self._decided(transaction, ip) for ip in found if _is_written(transaction, ip)]
            statuses |= {ip.address: ip.status for ip in due}
            to_confirm = [ip for ip in found if self._is_to_confirm(transaction, ip)]
            done = self._save_decided(transaction, due, to_confirm)
            hidden = [ip for ip in found if ip.conflicted and self._drop(transaction, ip)]
            if done and not hidden:
                return statuses
        raise DatastoreUnreachable(f"request {transaction.request_id} is not finished")

    def _written(self, transaction: Transaction) -> list[DedicatedIP]:
        """Return the documents of a decided transaction.

        Of a document in conflict, CouchDB shows any revision. For a release the one is returned
        that the release has marked: it had a majority.
        """
        found = list(self._ips.by_id(transaction.addresses)[0].values())
        if transaction.action is not Action.RELEASE:
            return found
        return [self._marked(transaction, ip) if ip.conflicted else ip for ip in found]

    def _marked(self, transaction: Transaction, ip: DedicatedIP) -> DedicatedIP:
        leaves = self._ips.leaves(ip.address).live
        return next((leaf for leaf in leaves if _is_written(transaction, leaf)), ip)

    def _decided(self, transaction: Transaction, ip: DedicatedIP) -> DedicatedIP:
        """Return a document with the decision applied: an assignment undone, or a release done."""
        if transaction.action is Action.RELEASE:
            return ip.release(
                transaction.account_id,
                at=transaction.at,
                request_id=transaction.request_id,
                by=transaction.by,
                keyed=transaction.attempt is not None,
                place=self._places.rules(ip),
            ).as_committed()
        return ip.undo()

    def _save_decided(
        self,
        transaction: Transaction,
        due: Sequence[DedicatedIP],
        to_confirm: Sequence[DedicatedIP] = (),
    ) -> bool:
        """Save documents with the decision applied; return whether all writes are done.

        :param to_confirm: documents that agree with the decision, and are saved again
        """
        saved = self._conflicts.save_again([*due, *to_confirm])
        if transaction.action is not Action.RELEASE:
            # CouchDB accepts the write of one worker only, so no other worker writes this line.
            undone = [ip.address for ip in due if ip.address in saved]
            is_reserved = transaction.action is Action.RESERVE
            status = Status.RESERVED if is_reserved else Status.ASSIGNED
            account_id, from_id = transaction.account_id, transaction.from_id
            audit.undone(undone, account_id, transaction.request_id, status, from_id)
        return len(saved) == len(due) + len(to_confirm)

    def _is_to_confirm(self, transaction: Transaction, ip: DedicatedIP) -> bool:
        """Return whether a document that agrees with the decision has to be written again.

        A write of an aborted assignment may still arrive. CouchDB refuses it after the new
        revision. On a cluster a document that this transaction released may lack a quorum.
        """
        if _is_written(transaction, ip):  # it does not agree yet
            return False
        if transaction.action is Action.TRANSFER:
            return (ip.status, ip.assigned_to) == (Status.ASSIGNED, transaction.from_id)
        if ip.status is Status.ASSIGNED or not ip.has_known_status:
            return False
        own = (ip.request_id, ip.modified) == (transaction.request_id, transaction.at)
        return transaction.action is not Action.RELEASE or (own and self._ips.replicas > 1)

    def _drop(self, transaction: Transaction, ip: DedicatedIP) -> bool:
        """Drop the conflicting revisions of an aborted assignment; return whether any existed."""
        if transaction.action is Action.RELEASE or ip.transaction == transaction.id:
            return False
        leaves = self._ips.leaves(ip.address).live
        hidden = [leaf for leaf in leaves if leaf.transaction == transaction.id]
        self._ips.drop_all(hidden)
        return bool(hidden)


def write_audit(
    transaction: Transaction, statuses: Mapping[str, str], *, recovered: bool = False
) -> None:
    """Write the audit lines of a committed transaction.

    :param statuses: the status of each address after a release, or before any other change; an
        address without one is available
    :param recovered: whether an earlier line may record the same change
    """
    addresses, account_id = transaction.addresses, transaction.account_id
    request_id = transaction.request_id
    if transaction.action is Action.TRANSFER:
        from_id = transaction.from_id or ""
        audit.transferred(addresses, from_id, account_id, request_id, recovered=recovered)
    elif transaction.action is Action.ASSIGN:
        audit.assigned(addresses, account_id, request_id, was=statuses, recovered=recovered)
    elif transaction.action is Action.RESERVE:
        audit.reserved(addresses, account_id, request_id, was=statuses, recovered=recovered)
    else:
        audit.released(addresses, account_id, request_id, to=statuses, recovered=recovered)


def _is_written(transaction: Transaction, ip: DedicatedIP) -> bool:
    """Return whether a document is unchanged since exactly this transaction wrote it.

    A later write by a Kazoo node keeps the transaction's id, but changes the account or the time.
    """
    status = Status.RESERVED if transaction.action is Action.RESERVE else Status.ASSIGNED
    owner_id = ip.reserved_for if status is Status.RESERVED else ip.assigned_to
    named = (ip.transaction, owner_id, ip.status)
    if named != (transaction.id, transaction.account_id, status):
        return False
    if transaction.action is Action.RELEASE:
        return ip.modified <= transaction.at
    return ip.modified == transaction.at
