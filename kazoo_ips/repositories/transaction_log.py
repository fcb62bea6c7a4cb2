"""The records of transactions. A record lists the addresses of a transaction and has its state.

A record is written before the first of its documents. A compare-and-swap on the record decides
the transaction: its owner changes `pending` to `committed`; its owner, or a worker that finds the
owner dead, changes `pending` to `aborted`. A record is deleted when its transaction is finished.
Then its documents are valid as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from uuid import uuid4

from kazoo_ips.couch.client import Document
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import Attempt, Outcome
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.records import LATE, Records

_PREFIX = "transaction-"


class Action(StrEnum):
    """The operation of a transaction on its addresses."""

    ASSIGN = "assign"
    RELEASE = "release"


class State(StrEnum):
    """The state of a transaction."""

    PENDING = "pending"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Transaction:
    """Several addresses that one request assigns or releases, all or none.

    :param id: begins with the action; each document it writes has it in `pvt_transaction`
    :param at: the time in its documents, in Gregorian seconds
    :param addresses: the addresses it may write; after the commit, those it has written
    :param worker: the process that owns it
    :param attempt: the attempt of a request with an Idempotency-Key, or None
    :param finished: whether its documents agree with its state
    :param lasting: whether a late write may still create its record, which is then not deleted
    """

    id: str
    action: Action
    account_id: str
    request_id: str
    at: int
    addresses: tuple[str, ...]
    worker: str
    state: State = State.PENDING
    attempt: Attempt | None = None
    finished: bool = False
    lasting: bool = False
    revision: str | None = None

    @property
    def changes_documents(self) -> bool:
        """Whether its documents have to be written again, after it was committed or aborted."""
        return (self.action is Action.ASSIGN) != (self.state is State.COMMITTED)


def transaction_id(action: Action, attempt: Attempt | None) -> str:
    """Return the id of a new transaction.

    Later attempts at the same request can compute the ids of earlier attempts. Request ids cannot
    be used, because clients choose them and may use one twice.
    """
    return f"{action}-{f'{attempt.key}-{attempt.number}' if attempt else uuid4().hex}"


def is_release(transaction: str) -> bool:
    """Whether the transaction with this id releases addresses."""
    return transaction.startswith(Action.RELEASE)


class TransactionLog:
    """Reads and writes records of transactions."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def begin(  # noqa: PLR0913, PLR0917 - what a record consists of
        self,
        action: Action,
        account_id: str,
        request_id: str,
        at: int,
        addresses: Sequence[str],
        attempt: Attempt | None = None,
    ) -> Transaction:
        """Write the record of a new transaction.

        :raises DatastoreUnreachable: it is unknown whether the record was written; the
            transaction must not start
        """
        transaction = Transaction(
            transaction_id(action, attempt),
            action,
            account_id,
            request_id,
            at,
            tuple(addresses),
            liveness.identity(),
            attempt=attempt,
        )
        return self._require(self._put(transaction))

    def extend(self, transaction: Transaction, addresses: Sequence[str]) -> Transaction:
        """Add addresses to a pending record, before their documents are written.

        :raises DatastoreUnreachable: the outcome is unknown, or another worker has aborted the
            transaction
        """
        longer = replace(transaction, addresses=(*transaction.addresses, *addresses))
        return self._require(self._put(longer))

    def commit(self, transaction: Transaction, addresses: Sequence[str]) -> Transaction:
        """Commit a transaction.

        :param addresses: the addresses whose documents it has written
        :raises DatastoreUnreachable: the outcome is unknown, or another worker has aborted the
            transaction
        """
        committed = replace(transaction, state=State.COMMITTED, addresses=tuple(addresses))
        return self._require(self._put(committed))

    def confirm(self, transaction: Transaction) -> Transaction:
        """Ensure that a majority of nodes has the record that was read, before acting on it.

        On a cluster a read may return a commit that only a minority of nodes has. Such a
        transaction can still be aborted.

        :raises DatastoreUnreachable: no majority has it
        """
        if self._records.replicas == 1 or transaction.finished:
            return transaction
        return self._require(self._put(transaction))

    def abort(self, transaction: Transaction) -> Transaction | None:
        """Abort a transaction.

        :returns: the aborted transaction; None if another worker has changed its state meanwhile
        :raises DatastoreUnreachable: the outcome is unknown
        """
        return self._put(replace(transaction, state=State.ABORTED))

    def fence(
        self, action: Action, account_id: str, request_id: str, at: int, attempt: Attempt
    ) -> Transaction | None:
        """Prevent the transaction of an attempt from starting, by writing its record as aborted.

        :param at: now, in Gregorian seconds
        :returns: the record; None if the transaction has already started
        :raises DatastoreUnreachable: the outcome is unknown
        """
        name, worker = transaction_id(action, attempt), liveness.identity()
        aborted = Transaction(name, action, account_id, request_id, at, (), worker, State.ABORTED)
        return self._put(replace(aborted, attempt=attempt, finished=True))

    def finish(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        """Delete the records of transactions whose documents agree with their state.

        Records of requests with an Idempotency-Key stay for later attempts, marked as finished.
        `forget` deletes them.

        :returns: the transactions whose records this call has ended or may have ended, without
            those that another worker has ended
        """
        left, refused = self._end(transactions, lambda t: t.lasting or t.attempt is not None)
        refused += [t for t, outcome in left if outcome is Outcome.REFUSED]
        return [t for t in transactions if t not in refused]

    def forget(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        """Delete records that no later attempt needs. Lasting records are marked as finished.

        :returns: the transactions whose records may still exist, because other workers
            have changed them
        """
        return [t for t, _ in self._end(transactions, lambda t: t.lasting)[0]]

    def _end(
        self, transactions: Sequence[Transaction], stays: Callable[[Transaction], bool]
    ) -> tuple[list[tuple[Transaction, Outcome]], list[Transaction]]:
        """Delete the records of transactions, and mark those that stay as finished.

        :returns: the transactions whose records may still exist, as `sweep` does; and those whose
            records could not be marked, because another worker has changed them
        """
        left = self.sweep([t for t in transactions if not stays(t)])
        to_mark = [t for t in transactions if stays(t) and not t.finished]
        return left, [t for t in to_mark if self._put(replace(t, finished=True)) is None]

    def sweep(self, transactions: Sequence[Transaction]) -> list[tuple[Transaction, Outcome]]:
        """Delete records that are no longer needed.

        :returns: the transactions whose records may still exist, and the outcomes of the deletions
        """
        written = self._records.remove([_reference(t) for t in transactions])
        outcomes = zip(transactions, (w.outcome for w in written), strict=True)
        return [(t, outcome) for t, outcome in outcomes if outcome is not Outcome.DONE]

    def find(self, transaction: str) -> Transaction | None:
        """Return a transaction, or None if its record was deleted.

        Of two conflicting revisions the committed one wins, because its writer may have had a
        majority. In that case the other writer had none. If neither had one, no request depends
        on the result. If the record also has a tombstone, only a finished revision counts. A node
        that lags may have created a deleted record again, as a pending one. It may also have
        deleted a revision that other nodes had as finished.
        """
        leaves = self._records.leaves(_PREFIX + transaction)
        is_deleted = any(leaf.get("_deleted") for leaf in leaves)
        live = [_transaction(leaf) for leaf in leaves if not leaf.get("_deleted")]
        found = [t for t in live if t.finished or not is_deleted]
        if not found:
            return None
        decisive = min(found, key=lambda t: _PRECEDENCE.index(t.state))
        if decisive.finished:
            self._records.drop([_reference(t) for t in live if t is not decisive])
        return decisive

    def all(self) -> list[Transaction]:
        """Return all transactions. On a cluster the list may lag; `find` does not lag."""
        documents = list(self._records.range(_PREFIX))
        found = (
            self.find(d["_id"].removeprefix(_PREFIX)) if "_conflicts" in d else _transaction(d)
            for d in documents
        )
        return [transaction for transaction in found if transaction]

    def _put(self, transaction: Transaction) -> Transaction | None:
        document = self._records.put(_document(transaction))
        if document is None:
            return None
        lasting = transaction.lasting or document[LATE]
        return replace(transaction, revision=document["_rev"], lasting=lasting)

    @staticmethod
    def _require(transaction: Transaction | None) -> Transaction:
        if transaction is None:
            raise DatastoreUnreachable("the request took too long and is undone")
        return transaction


_PRECEDENCE = (State.COMMITTED, State.ABORTED, State.PENDING)


def _reference(transaction: Transaction) -> Mapping[str, Any]:
    return {"_id": _PREFIX + transaction.id, "_rev": transaction.revision}


def _document(transaction: Transaction) -> Mapping[str, Any]:
    attempt = transaction.attempt
    return {
        "_id": _PREFIX + transaction.id,
        "_rev": transaction.revision,
        "type": "transaction",
        "action": transaction.action.value,
        "account_id": transaction.account_id,
        "request_id": transaction.request_id,
        "at": transaction.at,
        "addresses": list(transaction.addresses),
        "worker": transaction.worker,
        "state": transaction.state.value,
        **({"key": attempt.key, "attempt": attempt.number} if attempt else {}),
        "finished": transaction.finished,
        "lasting": transaction.lasting,
    }


def _transaction(document: Document) -> Transaction:
    return Transaction(
        document["_id"].removeprefix(_PREFIX),
        Action(document["action"]),
        document["account_id"],
        document["request_id"],
        document["at"],
        tuple(document["addresses"]),
        document["worker"],
        State(document["state"]),
        Attempt(document["key"], document["attempt"]) if "key" in document else None,
        document["finished"],
        document["lasting"],
        document["_rev"],
    )
