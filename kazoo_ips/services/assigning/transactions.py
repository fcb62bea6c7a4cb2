"""Transactions over several addresses: all that a request names change, or none.

One address needs no transaction: a single compare-and-swap on its document decides. For several
addresses a transaction record is written first (`repositories/transaction_log.py`). Then each
document is written with the record's id in it. Then the record is committed or aborted, and that
decides for all documents.

* Assign: the documents are assigned and the copies written; then the record is committed.
* Reserve: the documents are reserved and the reservation recorded; then the record is committed.
* Transfer: the same. After the commit the copies of the previous account are removed.
* Release: the documents are marked with the record's id and stay assigned; then the record is
  committed. Only after that do the documents become available, and only then are the copies
  removed.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

from kazoo_ips.errors import Conflict, DatastoreUnreachable, KazooIPsError, LimitReached
from kazoo_ips.model import Attempt, DedicatedIP, Outcome
from kazoo_ips.model.limits import Ledger
from kazoo_ips.observability import audit
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import (
    Action,
    Transaction,
    TransactionLog,
    TransactionState,
)
from kazoo_ips.services.assigning.account_copies import AccountCopyService, by_owner
from kazoo_ips.services.assigning.limits import LimitService
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, PoolWriter, WriteResult
from kazoo_ips.services.assigning.recovery import RecoveryService, write_audit
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)

Record = Callable[[str, Sequence[DedicatedIP]], None]

_LATE = 10.0
"""Seconds after which the record of a finished assignment is deleted on a cluster. If a lagging
node receives the deletion before the creation of the record, it creates the record again, as a
pending one."""


class TransactionService:
    """Assigns, transfers and releases addresses, one or several at a time."""

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        writer: PoolWriter,
        log_: TransactionLog,
        copies: AccountCopyService,
        recovery: RecoveryService,
        retries: RetryQueue,
        limits: LimitService,
    ) -> None:
        self._ips = ips
        self._writer = writer
        self._log = log_
        self._copies = copies
        self._recovery = recovery
        self._retries = retries
        self._limits = limits
        self._lock = Lock()
        self._ended: list[tuple[float, Transaction]] = []
        """Transactions whose records are to be deleted, each with the time of the deletion."""
        self._kept: dict[str, Transaction] = {}
        """Transactions whose records stay until the reply of their request is stored, by key."""

    # One address.

    def is_needed(self, account_id: str) -> bool:
        """Return whether an account gets also single addresses by transactions: it has limits.

        :raises DatastoreUnreachable: that is not known
        """
        return self._limits.is_limited(account_id)

    def check(self, after: Sequence[DedicatedIP]) -> None:
        """Check whether the limits of an account permit these assignments, for a dry run.

        :raises LimitReached: a limit permits fewer addresses
        """
        self._limits.check(after[0].assigned_to or after[0].reserved_for or "", after)

    def assign_one(
        self, before: DedicatedIP, after: DedicatedIP, attempt: Attempt | None = None
    ) -> DedicatedIP:
        """Assign one address.

        :param before: the same dedicated IP as it was read
        :raises LimitReached: a limit of the account permits fewer addresses
        :raises Conflict: another writer was faster
        :raises DatastoreUnreachable: the outcome of the write is unknown, or a quorum cannot be
            reached
        """
        if self.is_needed(after.assigned_to or ""):
            return self.assign([before], [after], attempt)[0]
        results = self.write([before], [after])
        self.require(results)
        return self.acknowledge(results)

    def release_one(self, before: DedicatedIP, after: DedicatedIP) -> DedicatedIP:
        """Release one address; parameters and errors are those of `assign_one`."""
        results = self.write([before], [after])
        self.require(results)
        to = {after.address: after.status}
        audit.released([before.address], before.assigned_to, after.request_id, to=to)
        self._copies.remove([before], results[0].ip)
        return results[0].ip

    def change_one(self, before: DedicatedIP, after: DedicatedIP) -> DedicatedIP:
        """Change the zone, the host or the notes of one address; errors are as in `assign_one`.

        If the copy cannot be written now, the address stays changed; the copy is written later.
        """
        results = self.write([before], [after])
        self.require(results)
        [done] = _done(results)
        audit.changed(audit.Change.CHANGED, [before], [done], done.trail[-1].reason)
        if not self._copies.follow([done]):
            raise DatastoreUnreachable(f"{done.address}: changed, but its copy is not")
        return done

    def transfer_one(self, before: DedicatedIP, after: DedicatedIP) -> DedicatedIP:
        """Transfer one address to another account; parameters and errors as in `assign_one`."""
        results = self.write([before], [after])
        self.require(results)
        done = self._write_copy(results)
        old_id, new_id = before.assigned_to or "", done.assigned_to or ""
        audit.transferred([done.address], old_id, new_id, done.request_id or "")
        self._copies.remove([before])
        return done

    # Many addresses, each by itself.

    def change_each(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> list[WriteResult]:
        """Change the zone, the host or other fields of addresses.

        A copy that cannot be written now is written later.

        :raises DatastoreUnreachable: nothing was written
        """
        results = self._writer.write(before, after)
        pairs = [
            (old, result.ip)
            for old, result in zip(before, results, strict=True)
            if result.outcome is FinalOutcome.DONE
        ]
        olds, news = [old for old, _ in pairs], [new for _, new in pairs]
        audit.changed(audit.Change.CHANGED, olds, news)
        self._copies.follow(news)
        return results

    def assign_each(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> tuple[list[DedicatedIP], set[str]]:
        """Assign addresses, each by itself.

        :returns: those that no other writer has got, and the addresses that limits do not permit
        :raises DatastoreUnreachable: nothing was written, or it is unknown whether an assignment
            whose copy cannot be written is undone
        """
        owners = {ip.assigned_to or "" for ip in after}
        limited = {owner for owner in owners if self.is_needed(owner)}
        pairs = list(zip(before, after, strict=True))
        done, refused = self._assign_limited([p for p in pairs if p[1].assigned_to in limited])
        rest = [pair for pair in pairs if pair[1].assigned_to not in limited]
        if rest:
            done += self._assign_unlimited([old for old, _ in rest], [new for _, new in rest])
        return done, refused

    def _assign_limited(
        self, pairs: Sequence[tuple[DedicatedIP, DedicatedIP]]
    ) -> tuple[list[DedicatedIP], set[str]]:
        done: list[DedicatedIP] = []
        refused: set[str] = set()
        for old, new in pairs:
            try:
                done += self.assign([old], [new])
            except LimitReached:
                refused.add(new.address)
            except Conflict:
                continue  # the caller reads it again
        return done, refused

    def _assign_unlimited(
        self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]
    ) -> list[DedicatedIP]:
        done = _done(self._writer.write(before, after))
        followed = self._copies.follow(done)
        uncopied = [ip for ip in done if ip.address not in followed]
        if uncopied:
            self._writer.make_available(uncopied)
            self._copies.remove(uncopied)
        assigned = [ip for ip in done if ip.address in followed]
        for owner_id, ips in by_owner(assigned).items():
            addresses = [ip.address for ip in ips]
            was = {ip.address: ip.status_before for ip in ips}
            audit.assigned(addresses, owner_id, ips[0].request_id or "", was=was)
        return assigned

    # One address, without its copy.

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

        :raises DatastoreUnreachable: the copy cannot be written; the assignment is undone
        """
        done = self._write_copy(results)
        was = {done.address: done.status_before}
        audit.assigned([done.address], done.assigned_to or "", done.request_id or "", was=was)
        return done

    def _write_copy(self, results: Sequence[WriteResult]) -> DedicatedIP:
        [done] = _done(results)
        try:
            self._copies.write([done])
        except DatastoreUnreachable:
            self._writer.make_available([done])
            self._copies.remove([done])
            raise
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
        :raises LimitReached: a limit of the account permits fewer addresses
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

    def reserve(
        self,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
        record: Record,
        attempt: Attempt | None = None,
    ) -> list[DedicatedIP]:
        """Reserve all of these addresses or none; errors are those of `assign`.

        :param record: as in `commit_reservation`
        """
        transaction = self.begin(Action.RESERVE, after[0].reserved_for or "", after, attempt)
        results = self.prepare(transaction, before, after)
        try:
            self.require(results)
        except KazooIPsError:
            self.roll_back(transaction, results)
            raise
        return self.commit_reservation(transaction, results, record)

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
            transaction = self._commit(transaction, after)
            self._roll_forward(transaction, [result.ip for result in results], after)
            remove_copies()
        return list(after)

    def transfer(
        self,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
        attempt: Attempt | None = None,
    ) -> list[DedicatedIP]:
        """Transfer all of these addresses or none; parameters and errors are those of `assign`."""
        old_id, new_id = before[0].assigned_to, after[0].assigned_to or ""
        transaction = self.begin(Action.TRANSFER, new_id, after, attempt, old_id)
        results = self.prepare(transaction, before, after)
        try:
            self.require(results)
            self._copies.write(_done(results))
        except KazooIPsError:
            self.roll_back(transaction, results)
            raise
        transaction = self._commit(transaction, after)
        self._copies.remove(before)
        self._close(transaction)
        return _done(results)

    def begin(
        self,
        action: Action,
        account_id: str,
        after: Sequence[DedicatedIP],
        attempt: Attempt | None,
        from_id: str | None = None,
    ) -> Transaction:
        """Write the transaction record, as pending, and count its addresses against the limits.

        :param account_id: the account that gets the addresses, or releases them
        :param from_id: the account that has the addresses before a transfer
        :param after: the dedicated IPs as they are to be written, all with the same time and
            request id
        :raises LimitReached: a limit of the account permits fewer addresses; nothing is written
        :raises DatastoreUnreachable: the record may be missing, so no document may be written
        """
        request_id, at = after[0].request_id or "", after[0].modified
        addresses = [ip.address for ip in after]
        by = audit.author()
        takes = action is not Action.RELEASE
        checked = self._limits.check(account_id, after) if takes else ()
        transaction = self._log.begin(
            action, account_id, request_id, at, addresses, attempt, by, from_id
        )
        if takes:
            try:
                self._claim(transaction, after, checked)
            except LimitReached:
                self.abandon(transaction)
                raise
        return transaction

    def _claim(
        self, transaction: Transaction, ips: Sequence[DedicatedIP], checked: Sequence[Ledger] = ()
    ) -> None:
        """Count addresses against the limits, before their documents are written.

        :raises LimitReached: a limit permits fewer addresses; the transaction is still pending
        :raises DatastoreUnreachable: it is unknown whether they are counted
        """
        try:
            self._limits.claim(transaction.id, transaction.account_id, ips, checked)
        except LimitReached:
            raise
        except KazooIPsError:
            self._end_later(transaction)
            raise

    def extend(
        self,
        transaction: Transaction,
        after: Sequence[DedicatedIP],
        taken: Sequence[DedicatedIP] = (),
    ) -> Transaction:
        """Add addresses to the transaction record, before their documents are written.

        :param taken: the dedicated IPs that the transaction has written already, and keeps
        :raises LimitReached: a limit of the account permits fewer addresses; the transaction is
            still pending
        :raises DatastoreUnreachable: it is unknown whether they are added, or another worker has
            aborted the transaction
        """
        self._claim(transaction, [*taken, *after])
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
        with self._ending_on_error(transaction):
            return self._writer.write(before, after, transaction.id)

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
        self._close(self._commit(transaction, done))
        return done

    def commit_reservation(
        self, transaction: Transaction, results: Sequence[WriteResult], record: Record
    ) -> list[DedicatedIP]:
        """Record a reservation and commit its transaction; roll back if that is not possible.

        :param results: the results of all its writes; it reserves the addresses that are done
        :param record: writes the reservation into the book of its account, given the id of the
            transaction and the addresses
        :raises DatastoreUnreachable: the transaction is not committed, or that is unknown
        """
        done = _done(results)
        try:
            record(transaction.id, done)
        except KazooIPsError:
            self.roll_back(transaction, results)
            raise
        self._close(self._commit(transaction, done))
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
            self._log.finish([replace(transaction, state=TransactionState.ABORTED)])
        except KazooIPsError:
            self._end_later(transaction)

    def _commit(self, transaction: Transaction, after: Sequence[DedicatedIP]) -> Transaction:
        """Commit the transaction.

        :param after: the dedicated IPs as it assigns or releases them
        :raises DatastoreUnreachable: it is not committed, or that is unknown; recovery ends it
        """
        with self._ending_on_error(transaction):
            committed = self._log.commit(transaction, [ip.address for ip in after])
        if transaction.action is Action.RELEASE:
            statuses = {ip.address: ip.status for ip in after}
        else:
            statuses = {ip.address: ip.status_before for ip in after}
        write_audit(committed, statuses)
        return committed

    def _roll_forward(
        self,
        transaction: Transaction,
        marked: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
    ) -> None:
        """Make the documents of a committed release available."""
        revisions = {ip.address: ip.revision for ip in marked}
        available = [ip.based_on(revisions[ip.address]).as_committed() for ip in after]
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
        delayed = transaction.action is not Action.RELEASE and self._ips.replicas > 1
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
        audited = transaction.state is TransactionState.COMMITTED
        if self._recovery.end_transaction(transaction.id, audited=audited) is None:
            # Another worker has considered this process dead and has ended the transaction,
            # perhaps before this process wrote the copies.
            for account_id in transaction.accounts:
                self._copies.repair(account_id, transaction.addresses)


def _done(results: Sequence[WriteResult]) -> list[DedicatedIP]:
    return [result.ip for result in results if result.outcome is FinalOutcome.DONE]
