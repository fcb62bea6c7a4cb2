"""The records of transactions: which documents of the pool belong together, and what is decided.

A record is written before the first of its documents. One compare-and-swap on it decides:
`pending` becomes `committed` by its owner, or `aborted` by its owner or by whoever finds that its
owner died. A record that is gone is finished: whatever its documents say is true.
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
    """What a transaction does with its addresses."""

    ASSIGN = "assign"
    RELEASE = "release"


class State(StrEnum):
    """What is decided of a transaction."""

    PENDING = "pending"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Transaction:
    """Several addresses that one request assigns or releases, all or none.

    :param id: begins with the action; each document it writes names it in `pvt_transaction`
    :param at: the time its writes carry, in Gregorian seconds
    :param addresses: those it may write; of one that is committed, those it has written
    :param worker: the process that is at it
    :param attempt: of a request with an Idempotency-Key, or None
    :param finished: whether its documents say what is decided
    :param lasting: a write that makes its record may still arrive: it is not deleted
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
        """Whether its documents have to be written again, now that it is decided."""
        return (self.action is Action.ASSIGN) != (self.state is State.COMMITTED)


def transaction_id(action: Action, attempt: Attempt | None) -> str:
    """The id of a new transaction. Later attempts at the same request know those of earlier ones.

    Request ids will not do: they are the callers' to choose and may come twice.
    """
    return f"{action}-{f'{attempt.key}-{attempt.number}' if attempt else uuid4().hex}"


def is_release(transaction: str) -> bool:
    """Whether a transaction of this id releases addresses."""
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
        """Write the record of what is about to be done.

        :raises DatastoreUnreachable: it is not certain to be there, so nothing must be done
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
        """Add addresses to a pending record, before they are written.

        :raises DatastoreUnreachable: it is not certain, or somebody has aborted it
        """
        longer = replace(transaction, addresses=(*transaction.addresses, *addresses))
        return self._require(self._put(longer))

    def commit(self, transaction: Transaction, addresses: Sequence[str]) -> Transaction:
        """Decide that it is done.

        :param addresses: those that it has written
        :raises DatastoreUnreachable: it is not certain, or somebody has aborted it
        """
        committed = replace(transaction, state=State.COMMITTED, addresses=tuple(addresses))
        return self._require(self._put(committed))

    def confirm(self, transaction: Transaction) -> Transaction:
        """Make certain that what was read of a record has a majority, before acting on it.

        On a cluster a commit that only some nodes have shows as well, and may yet be aborted.

        :raises DatastoreUnreachable: it has none
        """
        if self._records.replicas == 1 or transaction.finished:
            return transaction
        return self._require(self._put(transaction))

    def abort(self, transaction: Transaction) -> Transaction | None:
        """Decide that it is not done; None when somebody else has decided meanwhile.

        :raises DatastoreUnreachable: it is not certain
        """
        return self._put(replace(transaction, state=State.ABORTED))

    def fence(
        self, action: Action, account_id: str, request_id: str, at: int, attempt: Attempt
    ) -> Transaction | None:
        """Keep the transaction of an attempt from beginning; None when it has begun by now.

        :param at: now, in Gregorian seconds
        :raises DatastoreUnreachable: it is not certain
        """
        name, worker = transaction_id(action, attempt), liveness.identity()
        never = Transaction(name, action, account_id, request_id, at, (), worker, State.ABORTED)
        return self._put(replace(never, attempt=attempt, finished=True))

    def finish(self, transactions: Sequence[Transaction]) -> None:
        """Note that the documents say what is decided: the records are deleted.

        Those of a request with a key stay, to tell its later attempts. They go with `forget`.
        """
        self._end(transactions, lambda t: t.lasting or t.attempt is not None)

    def forget(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        """Delete records that nobody will ask for any more; those that last are finished.

        :returns: those that may still be there, unfinished: others have written to them
        """
        return self._end(transactions, lambda t: t.lasting)

    def _end(
        self, transactions: Sequence[Transaction], stays: Callable[[Transaction], bool]
    ) -> list[Transaction]:
        left = self.sweep([t for t in transactions if not stays(t)])
        for transaction in transactions:
            if stays(transaction) and not transaction.finished:
                self._put(replace(transaction, finished=True))
        return left

    def sweep(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        """Delete records whose time is over; those that may still be there."""
        written = self._records.remove([_reference(t) for t in transactions])
        outcomes = zip(transactions, written, strict=True)
        return [t for t, answer in outcomes if answer.outcome is not Outcome.DONE]

    def find(self, transaction: str) -> Transaction | None:
        """A record as it is decided, or None when it is gone.

        Of two revisions that a cluster left side by side the committed one counts: its owner may
        have been told so by a majority, and the other writer has not, or nobody waits for it.
        """
        leaves = self._records.leaves(_PREFIX + transaction)
        if not leaves or any(leaf.get("_deleted") for leaf in leaves):
            return None
        known = [_transaction(leaf) for leaf in leaves]
        decisive = min(known, key=lambda t: _DECISIVE.index(t.state))
        if decisive.finished:
            self._records.drop([_reference(t) for t in known if t is not decisive])
        return decisive

    def all(self) -> list[Transaction]:
        """All records. On a cluster the list may lag; `find` does not."""
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


_DECISIVE = (State.COMMITTED, State.ABORTED, State.PENDING)


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
