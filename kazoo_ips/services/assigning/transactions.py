"""Transactions over several addresses: all that a request names are assigned or released, or none.

One address needs no transaction: a single compare-and-swap on its document decides. For several
addresses a transaction record is written first (`repositories/transaction_log.py`). Then each
document is written with the record's id in it. Then the record is committed or aborted, and that
decides for all documents.

* Assign: the documents are assigned and the copies written; then the record is committed.
* Release: the documents are marked with the record's id and stay assigned; then the record is
  committed. Only after that do the documents become available, and only then are the copies
  removed.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

from kazoo_ips.errors import Conflict, DatastoreUnreachable, KazooIPsError
from kazoo_ips.model import Attempt, DedicatedIP, Outcome
from kazoo_ips.observability import audit
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import Action, State, Transaction, TransactionLog
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, PoolWriter, WriteResult
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)

_LATE = 10.0
"""Seconds after which the record of a finished assignment is deleted on a cluster. If a lagging
node receives the deletion before the creation of the record, it creates the record again, as a
pending one."""


class TransactionService:
    """Assigns and releases addresses, one or several at a time."""

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        writer: PoolWriter,
        log_: TransactionLog,
        copies: AccountCopyService,
        recovery: RecoveryService,
        retries: RetryQueue,
    ) -> None:
        self._ips = ips
        self._writer = writer
        self._log = log_
        self._copies = copies
        self._recovery = recovery
        self._retries = retries
        self._lock = Lock()
        self._ended: list[tuple[float, Transaction]] = []
        """Transactions whose records are to be deleted, each with the time of the deletion."""
        self._kept: dict[str, Transaction] = {}
        """Transactions whose records stay until the reply of their request is stored, by key."""

    # One address.

    def assign_one(self, before: DedicatedIP, after: DedicatedIP) -> DedicatedIP:
        """Assign one address.

        :param before: the same dedicated IP as it was read
        :raises Conflict: another writer was faster
        :raises DatastoreUnreachable: the outcome of the write is unknown, or a quorum cannot be
            reached
        """
        results = self.write([before], [after])
        self.require(results)
        return self.acknowledge(results)

    def release_one(self, before: DedicatedIP, after: DedicatedIP) -> DedicatedIP:
        """Release one address; parameters and errors are those of `assign_one`."""
        results = self.write([before], [after])
        self.require(results)
        audit.released([before.address], before.assigned_to, after.request_id)
        self._copies.remove([before])
        return results[0].ip

    def write(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> list[WriteResult]:
        """Write one document without a transaction. The caller then writes or removes its copy.

        :raises DatastoreUnreachable: nothing was written
        """
        self._copies.expect_change(after[0].assigned_to or before[0].assigned_to or "")
        return self._writer.write(before, after)

    def acknowledge(self, results: Sequence[WriteResult]) -> DedicatedIP:
        """Write the copy of one address, whose assignment has a quorum.

        :raises DatastoreUnreachable: the copy cannot be written; the address is made available
            again
        """
        [done] = _done(results)
        try:
            self._copies.write([done])
        except DatastoreUnreachable:
            self._writer.make_available([done])
            self._copies.remove([done])
            raise
        audit.assigned([done.address], done.assigned_to or "", done.request_id or "")
        return done

    @staticmethod
    def require(results: Sequence[WriteResult]) -> None:
        """Raise an error unless all writes are done.

        :raises Conflict: another writer was faster
        :raises DatastoreUnreachable: a write is not done because an answer or a quorum is missing
        """
        if all(result.outcome is FinalOutcome.DONE for result in results):
            return
        lost = [result.ip.address for result in results if result.outcome is FinalOutcome.LOST]
        unknown = any(result.outcome is FinalOutcome.UNKNOWN for result in results)
        if lost and not unknown:
            raise Conflict(*lost)
        first = next(
            r for r in results if r.outcome in (FinalOutcome.UNKNOWN, FinalOutcome.UNDONE)
        )
        raise DatastoreUnreachable(f"{first.ip.address}: the write is {first.outcome.value}")

    # Several addresses.

    def assign(
        self,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
        attempt: Attempt | None = None,
    ) -> list[DedicatedIP]:
        """Assign all of these addresses or none.

        :param before: the same dedicated IPs as they were read
        :raises Conflict: another writer was faster; this request has changed nothing
        :raises DatastoreUnreachable: the outcome is unknown, or CouchDB refuses the writes
        """
        transaction = self.begin(Action.ASSIGN, after[0].assigned_to or "", after, attempt)
        results = self.prepare(transaction, before, after)
        try:
            self.require(results)
        except KazooIPsError:
            self.roll_back(transaction, results)
            raise
        return self.commit_assignment(transaction, results)

    def release(
        self,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
        attempt: Attempt | None = None,
    ) -> list[DedicatedIP]:
        """Release all of these addresses or none; parameters and errors are those of `assign`."""
        transaction = self.begin(Action.RELEASE, before[0].assigned_to or "", after, attempt)
        with self._copies.removal(before) as remove_copies:
            results = self.prepare(transaction, before, before)
            try:
                self.require(results)
            except KazooIPsError:
                self.abandon(transaction)
                raise
            transaction = self._commit(transaction, [ip.address for ip in before])
            self._roll_forward(transaction, [result.ip for result in results], after)
            remove_copies()
        return list(after)

    def begin(
        self,
        action: Action,
        account_id: str,
        after: Sequence[DedicatedIP],
        attempt: Attempt | None,
    ) -> Transaction:
        """Write the transaction record, as pending.

        :param after: the dedicated IPs as they are to be written, all with the same time and
            request id
        :raises DatastoreUnreachable: the record may be missing, so no document may be written
        """
        request_id, at = after[0].request_id or "", after[0].modified
        addresses = [ip.address for ip in after]
        return self._log.begin(action, account_id, request_id, at, addresses, attempt)

    def extend(self, transaction: Transaction, after: Sequence[DedicatedIP]) -> Transaction:
        """Add addresses to the transaction record, before their documents are written.

        :raises DatastoreUnreachable: it is unknown whether they are added, or another worker has
            aborted the transaction
        """
        with self._ending_on_error(transaction):
            return self._log.extend(transaction, [ip.address for ip in after])

    def prepare(
        self,
        transaction: Transaction,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
    ) -> list[WriteResult]:
        """Write documents with the transaction's id in them.

        :raises DatastoreUnreachable: nothing was written
        """
        marked = [replace(ip, transaction=transaction.id) for ip in after]
        with self._ending_on_error(transaction):
            return self._writer.write(before, marked)

    def commit_assignment(
        self, transaction: Transaction, results: Sequence[WriteResult]
    ) -> list[DedicatedIP]:
        """Write the copies and commit the transaction; roll back if the copies cannot be written.

        :param results: the results of all its writes; it assigns the addresses that are done
        :raises DatastoreUnreachable: the transaction is not committed, or that is unknown
        """
        done = _done(results)
        try:
            self._copies.write(done)
        except KazooIPsError:
            self.roll_back(transaction, results)
            raise
        self._close(self._commit(transaction, [ip.address for ip in done]))
        return done

    def roll_back(self, transaction: Transaction, results: Sequence[WriteResult]) -> None:
        """Undo the writes of an assignment and end its transaction.

        Recovery undoes the writes that cannot be undone now. The transaction cannot be committed
        any more.

        :raises DatastoreUnreachable: it is unknown whether all addresses are available again
        """
        if any(result.outcome is FinalOutcome.UNKNOWN for result in results):
            self._end_later(transaction)
            return
        self.make_available(transaction, results)
        self._copies.remove(_done(results))
        self.abandon(transaction)

    def make_available(self, transaction: Transaction, results: Sequence[WriteResult]) -> None:
        """Make the addresses available again that an assignment has written so far.

        The outcome of each of its writes has to be known.

        :raises DatastoreUnreachable: it is unknown whether they are available; recovery ends the
            transaction
        """
        with self._ending_on_error(transaction):
            self._writer.make_available(_done(results))

    def abandon(self, transaction: Transaction) -> None:
        """Delete the record of a transaction whose writes are all undone."""
        try:
            self._log.finish([replace(transaction, state=State.ABORTED)])
        except KazooIPsError:
            self._end_later(transaction)

    def _commit(self, transaction: Transaction, addresses: Sequence[str]) -> Transaction:
        """Commit the transaction.

        :raises DatastoreUnreachable: it is not committed, or that is unknown; recovery ends it
        """
        with self._ending_on_error(transaction):
            committed = self._log.commit(transaction, addresses)
        write = audit.assigned if committed.action is Action.ASSIGN else audit.released
        write(committed.addresses, committed.account_id, committed.request_id)
        return committed

    def _roll_forward(
        self,
        transaction: Transaction,
        marked: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
    ) -> None:
        """Make the documents of a committed release available."""
        revisions = {ip.address: ip.revision for ip in marked}
        available = [replace(ip, revision=revisions[ip.address]) for ip in after]
        try:
            written = self._ips.save_all(available)
        except KazooIPsError as error:
            log.warning("request %s: not rolled forward yet: %s", transaction.request_id, error)
        else:
            if all(w.outcome is Outcome.DONE for w in written):
                self._close(transaction)
                return
        self._end_later(transaction)

    def _close(self, transaction: Transaction) -> None:
        """Schedule the deletion of the record, now that all documents agree with its decision.

        The record of a request with an Idempotency-Key stays until its reply is stored: see
        `forget`.
        """
        self._recovery.record_ended(transaction.id)
        with self._lock:
            if transaction.attempt:
                self._kept[transaction.attempt.key] = transaction
                return
        self._schedule_deletion(transaction)

    def forget(self, key: str) -> None:
        """Schedule the deletion of the record of a request with an Idempotency-Key."""
        with self._lock:
            transaction = self._kept.pop(key, None)
        if transaction:
            self._schedule_deletion(transaction)

    def _schedule_deletion(self, transaction: Transaction) -> None:
        delayed = transaction.action is Action.ASSIGN and self._ips.replicas > 1
        due = time.monotonic() + (_LATE if delayed else 0)
        with self._lock:
            self._ended.append((due, transaction))
        self._retries.repeat("deletion of records", self._delete_ended)

    def _delete_ended(self) -> None:
        now = time.monotonic()
        with self._lock:
            ended = [entry for entry in self._ended if entry[0] <= now]
            self._ended = [entry for entry in self._ended if entry[0] > now]
        try:
            not_deleted = self._log.forget([transaction for _, transaction in ended])
        except KazooIPsError:
            with self._lock:
                self._ended += ended
            raise
        if self._ended:
            self._retries.repeat("deletion of records", self._delete_ended)
        for transaction in not_deleted:  # a request that reads one of the addresses may end it too
            self._end_later(transaction)

    @contextmanager
    def _ending_on_error(self, transaction: Transaction) -> Iterator[None]:
        """End the transaction if the body raises one of this package's errors."""
        try:
            yield
        except KazooIPsError:
            self._end_later(transaction)
            raise

    def _end_later(self, transaction: Transaction) -> None:
        """End the transaction now, or retry until the database allows it."""
        try:
            self._end_now(transaction)
        except KazooIPsError as error:
            log.warning("request %s: not ended yet: %s", transaction.request_id, error)
            name = f"transaction {transaction.id}"
            self._retries.repeat(name, lambda: self._end_now(transaction))

    def _end_now(self, transaction: Transaction) -> None:
        audited = transaction.state is State.COMMITTED
        if self._recovery.end_transaction(transaction.id, audited=audited) is None:
            # Another worker considered this process dead and ended the transaction, perhaps
            # before this process wrote the copies.
            self._copies.repair(transaction.account_id, transaction.addresses)


def _done(results: Sequence[WriteResult]) -> list[DedicatedIP]:
    return [result.ip for result in results if result.outcome is FinalOutcome.DONE]
