"""Transactions that another request meets, or that their owner left: finished or taken back.

A release that is committed is rolled forward, an assignment that is aborted is rolled back, each
as often as somebody comes by: doing it twice changes nothing more.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from cachetools import LRUCache

from kazoo_ips.errors import Conflict, DatastoreUnreachable, KazooIPsError
from kazoo_ips.model import Attempt, DedicatedIP, Outcome, Status
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import (
    Action,
    State,
    Transaction,
    TransactionLog,
    is_release,
    transaction_id,
)
from kazoo_ips.services.assigning.conflicts import ConflictResolver

log = logging.getLogger(__name__)

LEASE = 60
"""Seconds after which a request is taken for dead where its process cannot be looked at: longer
than any takes. One that is alive after all finds its record aborted and fails."""
KEPT = 24 * 3600
"""Seconds that the record of a request with a key is kept: as long as its reply."""

_WAITS = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait for the owner of an undecided transaction, before giving up."""
_TRIES = 3
"""Times that documents are put right while others write to them."""
_ENDED = 10_000
"""Transactions that are remembered to be finished."""


class RecoveryService:
    """Brings transactions to their end.

    :param look_again: called with an address that is to be looked at a little later, and the
        account whose copy of it may be wrong
    :param now: the time in Gregorian seconds
    :param pause: waits so many seconds
    :param metrics: where what is recovered is counted
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each thing it brings together
        self,
        ips: IPRepository,
        log_: TransactionLog,
        conflicts: ConflictResolver,
        look_again: Callable[[str, str], None],
        now: Callable[[], int],
        pause: Callable[[float], None],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._log = log_
        self._conflicts = conflicts
        self._look_again = look_again
        self._now = now
        self._pause = pause
        self._metrics = metrics
        self._ended: LRUCache[str, bool] = LRUCache(_ENDED)
        self._lock = Lock()

    # What a request meets.

    def resolve(self, ips: Iterable[DedicatedIP]) -> set[str]:
        """Bring the transactions that these documents name to an end.

        :param ips: as they were read, to be written to
        :returns: the ids of those that have to be read again
        :raises Conflict: one is undecided, and its owner at work on it
        """
        named: dict[str, list[DedicatedIP]] = {}
        for ip in ips:
            if ip.transaction and not self._is_ended(ip.transaction):
                named.setdefault(ip.transaction, []).append(ip)
        changed: set[str] = set()
        for transaction, marked in named.items():
            if self._resolve(transaction, marked):
                changed |= {ip.address for ip in marked}
        return changed

    def is_released(self, ip: DedicatedIP) -> bool:
        """Whether a release of this address is decided that its document does not show yet."""
        if not ip.transaction or not is_release(ip.transaction) or self._is_ended(ip.transaction):
            return False
        transaction = self._log.find(ip.transaction)
        if transaction is None:
            self.note_ended(ip.transaction)
        return transaction is not None and transaction.state is State.COMMITTED

    def _resolve(self, name: str, marked: Sequence[DedicatedIP]) -> bool:
        """Whether the documents have to be read again."""
        for looks, wait in enumerate((*_WAITS, None)):
            transaction = self._log.find(name)
            if transaction and not transaction.finished and self.is_orphaned(transaction):
                transaction = self.conclude(name) or self._log.find(name)
            if transaction is None or transaction.state is not State.PENDING:
                return self._apply(name, transaction, marked) or looks > 0
            if wait:
                self._pause(wait)
        raise Conflict(*(ip.address for ip in marked))

    def _apply(
        self, name: str, transaction: Transaction | None, marked: Sequence[DedicatedIP]
    ) -> bool:
        """Make documents what is decided of them; whether that is something else."""
        if transaction is None:
            self.note_ended(name)
            return False
        if transaction.state is State.COMMITTED:
            self._log.confirm(transaction)
        if not transaction.changes_documents:
            return False  # they are as they should be
        due = [_decided(transaction, ip) for ip in marked if _is_written(transaction, ip)]
        self._ips.save_all(due)
        return bool(due)

    def _is_ended(self, transaction: str) -> bool:
        with self._lock:
            return transaction in self._ended

    def note_ended(self, transaction: str) -> None:
        """Remember that all documents are as a transaction has decided."""
        with self._lock:
            self._ended[transaction] = True

    # What an earlier attempt at a request left.

    def settle_attempts(
        self, attempt: Attempt | None, action: Action, account_id: str, request_id: str
    ) -> Transaction | None:
        """Bring the earlier attempts at a request to their end, and keep them there.

        :returns: the transaction by which one of them has done it, or None
        :raises DatastoreUnreachable: one of them is not certain to have ended
        """
        for earlier in attempt.earlier if attempt else ():
            name = transaction_id(action, earlier)
            transaction = self._log.find(name)
            if transaction is None:
                transaction = self._log.fence(action, account_id, request_id, self._now(), earlier)
            elif transaction.state is State.PENDING:
                transaction = self._log.abort(transaction)
            if transaction is None:  # it has gone on this very moment
                transaction = self._log.find(name)
            if transaction is None or transaction.state is State.PENDING:
                raise DatastoreUnreachable(f"request {request_id}: an earlier attempt is alive")
            self.finish(transaction)
            if transaction.state is State.COMMITTED:
                return transaction
        return None

    # What owners left.

    def recover(self) -> int:
        """Bring the transactions of dead processes to their end; how many."""
        count = 0
        for listed in self._log.all():
            try:
                count += self._recover(listed)
            except KazooIPsError as error:  # its next time comes
                log.warning("request %s: not recovered yet: %s", listed.request_id, error)
        return count

    def _recover(self, listed: Transaction) -> bool:
        if not self.is_orphaned(listed):
            return False
        if listed.finished:
            if self._now() - listed.at > KEPT:
                self._log.sweep([listed])
            return False
        transaction = self.conclude(listed.id)
        if transaction is None:  # ended, and a cluster may have left this beside its tombstone
            self._log.forget([listed])
        else:
            self._metrics.claims_recovered.inc()
            log.warning(
                "request %s: its transaction is %s", transaction.request_id, transaction.state
            )
        return transaction is not None

    def conclude(self, name: str) -> Transaction | None:
        """Bring a transaction to its end that nobody is at work on any more.

        :param name: its id
        :returns: it as it was decided; None when it was finished before
        :raises DatastoreUnreachable: not everything is certain
        """
        transaction = self._log.find(name)
        if transaction is not None and transaction.state is State.PENDING:
            transaction = self._log.abort(transaction) or self._log.find(name)
        if transaction is None or transaction.finished:
            return None
        if transaction.state is State.PENDING:
            raise DatastoreUnreachable(f"request {transaction.request_id} is not decided")
        self.finish(transaction)
        return transaction

    def orphaned(self) -> list[Transaction]:
        """Transactions whose owner has died, and whose documents may not be as decided."""
        return [
            t
            for t in self._log.all()
            if not t.finished
            and (t.action, t.state) != (Action.ASSIGN, State.COMMITTED)
            and self.is_orphaned(t)
        ]

    def under_way(self) -> set[str]:
        """The addresses of all transactions that have not come to their end."""
        return {a for t in self._log.all() if not t.finished for a in t.addresses}

    def is_orphaned(self, transaction: Transaction) -> bool:
        """Whether the owner of a transaction has died, as far as anybody can tell."""
        return transaction.at + LEASE < self._now() or liveness.is_dead(transaction.worker)

    def finish(self, transaction: Transaction) -> None:
        """Make all documents of a decided transaction what is decided, and the copies follow.

        :raises DatastoreUnreachable: not everything is certain
        """
        if transaction.finished:
            return
        if transaction.state is State.COMMITTED:
            transaction = self._log.confirm(transaction)
        if (transaction.action, transaction.state) != (Action.RELEASE, State.ABORTED):
            self._finish_documents(transaction)
            self._conflicts.repair_copies(transaction.account_id, transaction.addresses)
            for address in transaction.addresses:
                self._look_again(address, transaction.account_id)
        self._log.finish([transaction])
        self.note_ended(transaction.id)

    def _finish_documents(self, transaction: Transaction) -> None:
        if not transaction.changes_documents:
            return
        for _ in range(_TRIES):
            found = self._ips.find(transaction.addresses).values()
            due = [_decided(transaction, ip) for ip in found if _is_written(transaction, ip)]
            due += [ip for ip in found if self._is_to_confirm(transaction, ip)]
            written = self._ips.save_all(due)
            hidden = [ip for ip in found if ip.conflicted and self._drop(transaction, ip)]
            if not hidden and all(w.outcome is Outcome.DONE for w in written):
                return
        raise DatastoreUnreachable(f"request {transaction.request_id} is not finished")

    def _is_to_confirm(self, transaction: Transaction, ip: DedicatedIP) -> bool:
        """Whether a document that is as decided has to be written again.

        An assignment that is aborted may still arrive: then it finds its revision gone. And on a
        cluster what this transaction has made available may lack a majority.
        """
        if ip.status is not Status.AVAILABLE:
            return False
        own = (ip.request_id, ip.modified) == (transaction.request_id, transaction.at)
        return transaction.action is Action.ASSIGN or (own and self._ips.replicas > 1)

    def _drop(self, transaction: Transaction, ip: DedicatedIP) -> bool:
        """Drop the revisions of an aborted assignment that lie hidden in a conflict."""
        if transaction.action is Action.RELEASE or ip.transaction == transaction.id:
            return False
        leaves = self._ips.leaves(ip.address).live
        hidden = [leaf for leaf in leaves if leaf.transaction == transaction.id]
        self._ips.drop_all(hidden)
        return bool(hidden)


def _is_written(transaction: Transaction, ip: DedicatedIP) -> bool:
    """Whether a document is as this very transaction has written it.

    Kazoo's own writes leave the transaction's id where it is, and change who has the address, or
    the time.
    """
    named = (ip.transaction, ip.assigned_to, ip.status)
    if named != (transaction.id, transaction.account_id, Status.ASSIGNED):
        return False
    if transaction.action is Action.ASSIGN:
        return ip.modified == transaction.at
    return ip.modified <= transaction.at


def _decided(transaction: Transaction, ip: DedicatedIP) -> DedicatedIP:
    """A document of an assignment that is aborted, or of a release that is committed."""
    if transaction.action is Action.RELEASE:
        at, request_id = transaction.at, transaction.request_id
        return ip.release(transaction.account_id, at=at, request_id=request_id)
    return ip.undo()
