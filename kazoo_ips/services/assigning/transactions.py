"""Addresses go from the pool to an account, or back: all that a request names, or none.

One address needs nothing but its document: one compare-and-swap decides. Of several, a record is
written first (`repositories/transaction_log.py`), then all documents with the record's id in them,
then the record decides. Whatever becomes available to others does so after that.

* Assign: the documents are assigned and the copies written; then the record is committed.
* Release: the documents are marked and stay assigned; then the record is committed, and only then
  are they made available and the copies removed.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

from kazoo_ips.errors import Conflict, DatastoreUnreachable, KazooIPsError
from kazoo_ips.model import Attempt, DedicatedIP, Outcome
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import Action, State, Transaction, TransactionLog
from kazoo_ips.services.assigning.account_copies import AccountCopyService
from kazoo_ips.services.assigning.pool_writes import Fate, PoolWriter, Result
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.retry_queue import RetryQueue

log = logging.getLogger(__name__)

_LATE = 10.0
"""Seconds until the record of an assignment is deleted on a cluster. A node that is slow to make
it, and is told first that it is deleted, makes it anew, as one that was never decided."""


class TransactionService:
    """Assigns and releases."""

    def __init__(  # noqa: PLR0913, PLR0917 - one for each thing it brings together
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
        """Those whose records are to be deleted, and when."""
        self._kept: dict[str, Transaction] = {}
        """Those whose records wait for the reply of their request to be kept, by its key."""

    # One address.

    def assign_one(self, before: DedicatedIP, after: DedicatedIP) -> DedicatedIP:
        """Assign one address.

        :param before: the same dedicated IP as it was read
        :raises Conflict: somebody else was faster
        :raises DatastoreUnreachable: it is not certain what became of it
        """
        results = self.write([before], [after])
        self.require(results)
        return self.acknowledge(results)

    def release_one(self, before: DedicatedIP, after: DedicatedIP) -> DedicatedIP:
        """Release one address; parameters and errors are those of `assign_one`."""
        results = self.write([before], [after])
        self.require(results)
        self._copies.remove([before])
        return results[0].ip

    def write(self, before: Sequence[DedicatedIP], after: Sequence[DedicatedIP]) -> list[Result]:
        """Write one document by itself; a copy of it is written or removed next.

        :raises DatastoreUnreachable: nothing was written
        """
        self._copies.expect_change(after[0].assigned_to or before[0].assigned_to or "")
        return self._writer.write(before, after)

    def acknowledge(self, results: Sequence[Result]) -> DedicatedIP:
        """Write the copy of one address that is certainly its account's by now.

        :raises DatastoreUnreachable: it cannot be written; the address is put back
        """
        [done] = _done(results)
        try:
            self._copies.write([done])
        except DatastoreUnreachable:
            self._writer.put_back([done])
            self._copies.remove([done])
            raise
        return done

    @staticmethod
    def require(results: Sequence[Result]) -> None:
        """Go on only if all writes are done.

        :raises Conflict: somebody else was faster
        :raises DatastoreUnreachable: it is for lack of an answer that they are not
        """
        if all(result.fate is Fate.DONE for result in results):
            return
        lost = [result.ip.address for result in results if result.fate is Fate.LOST]
        unknown = any(result.fate is Fate.UNKNOWN for result in results)
        if lost and not unknown:
            raise Conflict(*lost)
        first = next(r for r in results if r.fate in (Fate.UNKNOWN, Fate.UNDONE))
        raise DatastoreUnreachable(f"{first.ip.address}: the write is {first.fate.value}")

    # Several addresses.

    def assign(
        self,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
        attempt: Attempt | None = None,
    ) -> list[DedicatedIP]:
        """Assign all of these or none.

        :param before: the same dedicated IPs as they were read
        :raises Conflict: somebody else was faster; nothing of it is left
        :raises DatastoreUnreachable: it is not certain what became of it
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
        """Release all of these or none; parameters and errors are those of `assign`."""
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
        """Write the record of what is about to be done.

        :param after: the dedicated IPs as they shall be, all written at the same time
        :raises DatastoreUnreachable: it is not certain to be there, so nothing must be done
        """
        request_id, at = after[0].request_id or "", after[0].modified
        addresses = [ip.address for ip in after]
        return self._log.begin(action, account_id, request_id, at, addresses, attempt)

    def extend(self, transaction: Transaction, after: Sequence[DedicatedIP]) -> Transaction:
        """Add addresses to the record, before they are written.

        :raises DatastoreUnreachable: it is not certain, or somebody has aborted it
        """
        with self._or_concluded(transaction):
            return self._log.extend(transaction, [ip.address for ip in after])

    def prepare(
        self,
        transaction: Transaction,
        before: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
    ) -> list[Result]:
        """Write documents with the transaction's id in them.

        :raises DatastoreUnreachable: nothing was written
        """
        marked = [replace(ip, transaction=transaction.id) for ip in after]
        with self._or_concluded(transaction):
            return self._writer.write(before, marked)

    def commit_assignment(
        self, transaction: Transaction, results: Sequence[Result]
    ) -> list[DedicatedIP]:
        """Write the copies and decide that it is done; else nothing of it stays.

        :param results: of all its writes; those that are done make it up
        :raises DatastoreUnreachable: it is not done, or not certain to be
        """
        done = _done(results)
        try:
            self._copies.write(done)
        except KazooIPsError:
            self.roll_back(transaction, results)
            raise
        self._close(self._commit(transaction, [ip.address for ip in done]))
        return done

    def roll_back(self, transaction: Transaction, results: Sequence[Result]) -> None:
        """Put back what an assignment has written, and give it up.

        What is not certain now is seen to later; the transaction is not committed any more.

        :raises DatastoreUnreachable: it is not certain that everything is put back
        """
        if any(result.fate is Fate.UNKNOWN for result in results):
            self._conclude_later(transaction)
            return
        self.put_back(transaction, results)
        self._copies.remove(_done(results))
        self.abandon(transaction)

    def put_back(self, transaction: Transaction, results: Sequence[Result]) -> None:
        """Put back what an assignment has written so far, none of which is unknown.

        :raises DatastoreUnreachable: it is not certain; the transaction is given up
        """
        with self._or_concluded(transaction):
            self._writer.put_back(_done(results))

    def abandon(self, transaction: Transaction) -> None:
        """Delete the record of a transaction of which nothing is left."""
        try:
            self._log.finish([replace(transaction, state=State.ABORTED)])
        except KazooIPsError:
            self._conclude_later(transaction)

    def _commit(self, transaction: Transaction, addresses: Sequence[str]) -> Transaction:
        """Decide that it is done.

        :raises DatastoreUnreachable: it is not; or it is not certain, and recovery will see to it
        """
        with self._or_concluded(transaction):
            return self._log.commit(transaction, addresses)

    def _roll_forward(
        self,
        transaction: Transaction,
        marked: Sequence[DedicatedIP],
        after: Sequence[DedicatedIP],
    ) -> None:
        """Make the documents of a release available, now that it is decided."""
        revisions = {ip.address: ip.revision for ip in marked}
        available = [replace(ip, revision=revisions[ip.address]) for ip in after]
        try:
            written = self._ips.save_all(available)
        except KazooIPsError as error:
            log.warning("request %s: not rolled forward: %s", transaction.request_id, error)
        else:
            if all(w.outcome is Outcome.DONE for w in written):
                self._close(transaction)
                return
        self._conclude_later(transaction)

    def _close(self, transaction: Transaction) -> None:
        """Have the record deleted soon, now that all documents are as it says.

        A request with a key leaves it until its reply is kept: see `forget`.
        """
        self._recovery.note_ended(transaction.id)
        with self._lock:
            if transaction.attempt:
                self._kept[transaction.attempt.key] = transaction
                return
        self._end(transaction)

    def forget(self, key: str) -> None:
        """Have the record deleted that a request with a key has left, if any."""
        with self._lock:
            transaction = self._kept.pop(key, None)
        if transaction:
            self._end(transaction)

    def _end(self, transaction: Transaction) -> None:
        waits = transaction.action is Action.ASSIGN and self._ips.replicas > 1
        due = time.monotonic() + (_LATE if waits else 0)
        with self._lock:
            self._ended.append((due, transaction))
        self._retries.repeat("deletion of records", self._delete_ended)

    def _delete_ended(self) -> None:
        now = time.monotonic()
        with self._lock:
            ended = [entry for entry in self._ended if entry[0] <= now]
            self._ended = [entry for entry in self._ended if entry[0] > now]
        try:
            left = self._log.forget([transaction for _, transaction in ended])
        except KazooIPsError:
            with self._lock:
                self._ended += ended
            raise
        if self._ended:
            self._retries.repeat("deletion of records", self._delete_ended)
        for transaction in left:  # who meets an address meanwhile brings it to its end as well
            self._conclude_later(transaction)

    @contextmanager
    def _or_concluded(self, transaction: Transaction) -> Iterator[None]:
        """Give a transaction up when this raises one of our errors: recovery will see to it."""
        try:
            yield
        except KazooIPsError:
            self._conclude_later(transaction)
            raise

    def _conclude_later(self, transaction: Transaction) -> None:
        """Bring it to its end now, or as soon as the database allows."""
        try:
            self._conclude(transaction)
        except KazooIPsError as error:
            log.warning("request %s: not concluded yet: %s", transaction.request_id, error)
            name = f"transaction {transaction.id}"
            self._retries.repeat(name, lambda: self._conclude(transaction))

    def _conclude(self, transaction: Transaction) -> None:
        if self._recovery.conclude(transaction.id) is None:
            # Who took this process for dead has concluded it, perhaps before the copies came.
            self._copies.mend(transaction.account_id, transaction.addresses)


def _done(results: Sequence[Result]) -> list[DedicatedIP]:
    return [result.ip for result in results if result.fate is Fate.DONE]
