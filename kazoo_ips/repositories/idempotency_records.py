"""What is known of each Idempotency-Key: who is at its request, and what was replied to it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.model import Attempt
from kazoo_ips.repositories.records import Records

_PREFIX = "reply-"


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """One key.

    :param id: of the key and whose it is
    :param fingerprint: of method, path and body
    :param attempt: how many attempts have been begun
    :param until: until when, in Gregorian seconds, the last of them may be alive; 0 when it ended
    :param worker: the process that is at it
    :param reply: status, data and revision, once there is one
    """

    id: str
    fingerprint: str
    request_id: str
    created: int
    attempt: int
    until: int
    worker: str
    reply: Mapping[str, Any] | None = None
    revision: str | None = None

    @property
    def current(self) -> Attempt:
        """The last attempt. A key that is used again after its time makes others."""
        return Attempt(f"{self.id}-{self.created}", self.attempt)


def record_id(caller: str, key: str) -> str:
    """The id of a caller's key: the same for everybody who asks."""
    return hashlib.sha256(f"{caller} {key}".encode()).hexdigest()


class IdempotencyRecords:
    """Reads and writes them."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, record_id: str) -> IdempotencyRecord | None:
        """What is known of a key, or None."""
        document = self._records.find(_PREFIX + record_id, _rank)
        return _record(document) if document else None

    def begun(self, record: IdempotencyRecord) -> str | None:
        """The revision at which an attempt is there, on however few nodes; None when it is not."""
        leaves = self._records.leaves(_PREFIX + record.id)
        return next((str(leaf["_rev"]) for leaf in leaves if _is_of(leaf, record)), None)

    def yield_to_others(self, record: IdempotencyRecord) -> bool | None:
        """Drop an attempt where somebody else has taken the key as well, for another request id.

        Nothing was done by an attempt that was not certain to have begun; by the other, perhaps.

        :returns: whether it is dropped; None when only the other one shows
        """
        leaves = self._records.leaves(_PREFIX + record.id)
        live = [leaf for leaf in leaves if not leaf.get("_deleted")]
        if all(_name(leaf) == (record.request_id, record.created) for leaf in live):
            return False
        mine = [leaf for leaf in leaves if _is_of(leaf, record)]
        self._records.drop(mine)
        return True if mine else None

    def put(self, record: IdempotencyRecord) -> IdempotencyRecord | None:
        """Write what is known of a key at the revision it carries; None if it is not ours.

        :raises DatastoreUnreachable: whether it is ours cannot be found out
        """
        document = self._records.put(_document(record))
        return replace(record, revision=document["_rev"]) if document else None

    def sweep(self, before: int) -> int:
        """Delete those that were made before a time, in Gregorian seconds; how many."""
        old = [d for d in self._records.range(_PREFIX) if d["created"] < before]
        self._records.remove(old)
        return len(old)


def _is_of(leaf: Document, record: IdempotencyRecord) -> bool:
    """Whether a revision is of this attempt, before it has ended."""
    begun = (*_name(leaf), leaf.get("worker"), leaf.get("attempt"), leaf.get("until"))
    name = (record.request_id, record.created)
    return begun == (*name, record.worker, record.attempt, record.until)


def _name(leaf: Document) -> tuple[object, object]:
    """What tells a use of a key from another one's, by whoever took it first."""
    return leaf.get("request_id"), leaf.get("created")


def _rank(document: Document) -> tuple[int, ...]:
    # An attempt that has ended may show as under way on nodes that were cut off then.
    ended = document["until"] == 0
    return document["reply"] is not None, _number(document["attempt"]), ended


def _document(record: IdempotencyRecord) -> Mapping[str, Any]:
    return {
        "_id": _PREFIX + record.id,
        "_rev": record.revision,
        "type": "reply",
        "fingerprint": record.fingerprint,
        "request_id": record.request_id,
        "created": record.created,
        "attempt": record.attempt,
        "until": record.until,
        "worker": record.worker,
        "reply": record.reply,
    }


def _record(document: Document) -> IdempotencyRecord:
    return IdempotencyRecord(
        document["_id"].removeprefix(_PREFIX),
        document["fingerprint"],
        document["request_id"],
        document["created"],
        _number(document["attempt"]),
        document["until"],
        document.get("worker", ""),
        document["reply"],
        document["_rev"],
    )


def _number(attempt: object) -> int:
    """The number of an attempt; earlier releases wrote a name there."""
    return attempt if isinstance(attempt, int) else 1
