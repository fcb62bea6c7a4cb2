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
from kazoo_ips.model.history import NOBODY, Author
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.records import LATE, Records, withdrawn, without_dropped

_PREFIX = "transaction-"
"""The ids of the records of transactions begin with it, except those of `_NEWER`. The release
before this one does not know these, so it must not find them among the others."""


class Action(StrEnum):
    """The operation of a transaction on its addresses."""

    ASSIGN = "assign"
    RELEASE = "release"
    RESERVE = "reserve"
    TRANSFER = "transfer"


_NEWER = (Action.RESERVE, Action.TRANSFER)
"""What the release before this one does not know."""


class TransactionState(StrEnum):
    """The state of a transaction."""

    PENDING = "pending"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Transaction:
    """Several addresses that one request assigns, releases or transfers, all or none.

    :param id: begins with the action; each document it writes has it in `pvt_transaction`
    :param account_id: the account that gets the addresses, or releases them
    :param at: the time in its documents, in Gregorian seconds
    :param addresses: the addresses it may write; after the commit, those it has written
    :param worker: the process that owns it
    :param attempt: the attempt of a request with an Idempotency-Key, or None
    :param by: who has sent the request
    :param final: whether no other worker can have decided otherwise, so that an abort may be acted
        on
    :param finished: whether its documents agree with its state
    :param from_id: the account that has the addresses before a transfer
    :param lasting: whether a late write may still create its record, which is then not deleted
    """

    id: str
    action: Action
    account_id: str
    request_id: str
    at: int
    addresses: tuple[str, ...]
    worker: str
    state: TransactionState = TransactionState.PENDING
    attempt: Attempt | None = None
    by: Author = NOBODY
    finished: bool = False
    lasting: bool = False
    revision: str | None = None
    from_id: str | None = None
    final: bool = False

    @property
    def has_final_decision(self) -> bool:
        """Whether no other worker can have decided otherwise, as far as the record says."""
        return self.final or self.finished

    @property
    def changes_documents(self) -> bool:
        """Whether its documents have to be written again, after it was committed or aborted."""
        return (self.action is Action.RELEASE) == (self.state is TransactionState.COMMITTED)

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts whose copies it writes or removes."""
        return tuple(filter(None, (self.account_id, self.from_id)))


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
        by: Author = NOBODY,
        from_id: str | None = None,
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
            by=by,
            from_id=from_id,
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
        committed = replace(
            transaction, state=TransactionState.COMMITTED, addresses=tuple(addresses)
        )
        return self._require(self._put(committed))

    def confirm(self, transaction: Transaction) -> Transaction:
        """Ensure that the decision that was read is the only one, before acting on it.

        On a cluster a read may return a decision that only a minority of nodes has, so that
        another worker can still decide otherwise, or has done so. CouchDB may have copied both
        decisions to all nodes. Then no read shows which of them had a majority. A worker acts on a
        commit at once, but on an abort only when it is final. So a commit beside an abort that is
        not final stays, and the abort is dropped.

        :raises DatastoreUnreachable: no majority has it, or another worker may have decided
            otherwise
        """
        if self._records.replicas == 1 or transaction.has_final_decision:
            return transaction
        saved = self._require(self._put(transaction))
        live = _live(self._records.leaves(_record_id(saved.id)))
        others = [t for t in live if t.state not in {TransactionState.PENDING, saved.state}]
        if saved.state is TransactionState.ABORTED and not others:
            return self._require(self._put(replace(saved, final=True)))
        is_open = saved.state is TransactionState.ABORTED or any(
            t.has_final_decision for t in others
        )
        dropped = [] if is_open else self._records.drop([_reference(t) for t in others])
        if is_open or any(w.outcome is not Outcome.DONE for w in dropped):
            raise DatastoreUnreachable(f"request {saved.request_id} is not decided")
        return saved

    def abort(self, transaction: Transaction, *, finished: bool = False) -> Transaction | None:
        """Abort a transaction.

        :param finished: whether its documents agree with that
        :returns: the aborted transaction; None if another worker has changed its state meanwhile
        :raises DatastoreUnreachable: the outcome is unknown
        """
        aborted = replace(transaction, state=TransactionState.ABORTED)
        if self._records.replicas > 1:
            # A worker that finds a commit beside this abort may drop the abort until it is final.
            written = self._put(aborted)
            if written is None:
                return None
            aborted = written
        return self._put(replace(aborted, final=True, finished=finished))

    def fence(
        self, action: Action, account_id: str, request_id: str, at: int, attempt: Attempt
    ) -> Transaction | None:
        """Prevent the transaction of an attempt from starting, by writing its record as aborted.

        :param at: now, in Gregorian seconds
        :returns: the record; None if the transaction has already started
        :raises DatastoreUnreachable: the outcome is unknown
        """
        name, worker = transaction_id(action, attempt), liveness.identity()
        new = Transaction(name, action, account_id, request_id, at, (), worker, attempt=attempt)
        return self.abort(new, finished=True)

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

        Of two conflicting decisions a final one wins, and otherwise the commit: see `confirm`. If
        the record also has a tombstone, only a finished revision counts. A node that lags may have
        created a deleted record again, as a pending one. It may also have deleted a revision that
        other nodes had as finished.

        If two workers have decided at the same time, and both have withdrawn their decision, the
        transaction is pending again.
        """
        every = self._records.every_leaf(_record_id(transaction))
        leaves = without_dropped(every)
        if not leaves:
            undecided = withdrawn(every, lambda leaf: (len(leaf["addresses"]),))
            if undecided is None:
                return None
            undecided |= {"state": TransactionState.PENDING, "final": False, "finished": False}
            return _transaction(undecided)
        is_deleted = any(leaf.get("_deleted") for leaf in leaves)
        live = _live(leaves)
        found = [t for t in live if t.finished or not is_deleted]
        if not found:
            return None
        decisive = min(found, key=_precedence)
        if decisive.finished:
            self._records.drop([_reference(t) for t in live if t is not decisive])
        return decisive

    def all(self) -> list[Transaction]:
        """Return all transactions. On a cluster the list may lag; `find` does not lag."""
        prefixes = (_PREFIX, *(f"{action}-" for action in _NEWER))
        documents = [d for prefix in prefixes for d in self._records.range(prefix)]
        found = (
            self.find(_name(d["_id"])) if "_conflicts" in d else _transaction(d) for d in documents
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


_STATES = (TransactionState.COMMITTED, TransactionState.ABORTED, TransactionState.PENDING)


def _precedence(transaction: Transaction) -> tuple[bool, int]:
    return not transaction.has_final_decision, _STATES.index(transaction.state)


def _record_id(transaction: str) -> str:
    return transaction if transaction.startswith(_NEWER) else _PREFIX + transaction


def _name(record_id: str) -> str:
    return record_id.removeprefix(_PREFIX)


def _live(leaves: Sequence[Document]) -> list[Transaction]:
    """Return the live revisions of a record."""
    return [_transaction(leaf) for leaf in leaves if not leaf.get("_deleted")]


def _reference(transaction: Transaction) -> Mapping[str, Any]:
    return {"_id": _record_id(transaction.id), "_rev": transaction.revision}


def _document(transaction: Transaction) -> Mapping[str, Any]:
    attempt = transaction.attempt
    return {
        "_id": _record_id(transaction.id),
        "_rev": transaction.revision,
        "type": "transaction",
        "action": transaction.action.value,
        "account_id": transaction.account_id,
        "request_id": transaction.request_id,
        "at": transaction.at,
        "addresses": list(transaction.addresses),
        "worker": transaction.worker,
        "state": transaction.state.value,
        **({"from_id": transaction.from_id} if transaction.from_id else {}),
        **({"key": attempt.key, "attempt": attempt.number} if attempt else {}),
        "by": {name: value for name, value in transaction.by._asdict().items() if value},
        "final": transaction.final,
        "finished": transaction.finished,
        "lasting": transaction.lasting,
    }


def _transaction(document: Document) -> Transaction:
    return Transaction(
        _name(document["_id"]),
        Action(document["action"]),
        document["account_id"],
        document["request_id"],
        document["at"],
        tuple(document["addresses"]),
        document["worker"],
        TransactionState(document["state"]),
        Attempt(document["key"], document["attempt"]) if "key" in document else None,
        Author(**document.get("by", {})),
        document["finished"],
        document["lasting"],
        document.get("_rev"),
        document.get("from_id"),
        document.get("final", False),
    )
