"""The record of each Idempotency-Key: the process that handles its request, and the reply."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.model import Attempt
from kazoo_ips.repositories.records import Records, withdrawn

_PREFIX = "reply-"


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The record of one key.

    :param id: a hash of the caller and the key
    :param fingerprint: a hash of method, path and body
    :param attempt: the number of attempts that have started
    :param until: the time, in Gregorian seconds, until which the last attempt may be running; 0
        if it has ended
    :param worker: the process of the last attempt
    :param reply: status, data and revision; None before the first reply
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
        """The last attempt. It includes `created`, because a key can be used again later."""
        return Attempt(f"{self.id}-{self.created}", self.attempt)


def record_id(caller: str, key: str) -> str:
    """Return the id of a caller's key, which is the same in every process."""
    return hashlib.sha256(f"{caller} {key}".encode()).hexdigest()


class IdempotencyRecords:
    """Reads and writes the records of keys."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, record_id: str) -> IdempotencyRecord | None:
        """Return the record of a key, or None.

        If all attempts that claimed the key at the same time have withdrawn, the key still belongs
        to its first request, which may have changed something.
        """
        document = self._records.find(_PREFIX + record_id, _rank)
        if document:
            return _record(document)
        content = withdrawn(self._records.every_leaf(_PREFIX + record_id), _rank)
        return replace(_record(content), until=0, reply=None) if content else None

    def revision_of(self, record: IdempotencyRecord) -> str | None:
        """Return the revision of an attempt, even if only a minority of nodes has it, or None."""
        leaves = self._records.leaves(_PREFIX + record.id)
        return next((str(leaf["_rev"]) for leaf in leaves if _is_of(leaf, record)), None)

    def drop_if_taken(self, record: IdempotencyRecord) -> bool | None:
        """Drop an attempt if another request, with another request id, has claimed the key too.

        The dropped attempt has changed nothing, because its claim had an unknown outcome. The
        other attempt may have changed something.

        :returns: whether the attempt was dropped; None if only the other attempt was found
        """
        leaves = self._records.leaves(_PREFIX + record.id)
        live = [leaf for leaf in leaves if not leaf.get("_deleted")]
        if all(_name(leaf) == (record.request_id, record.created) for leaf in live):
            return False
        mine = [leaf for leaf in leaves if _is_of(leaf, record)]
        self._records.drop(mine)
        return True if mine else None

    def put(self, record: IdempotencyRecord) -> IdempotencyRecord | None:
        """Write the record of a key at the revision it carries (compare-and-swap).

        :returns: the record at its new revision; None if another writer has changed it
        :raises DatastoreUnreachable: it is unknown whether the record was written
        """
        document = self._records.put(_document(record))
        return replace(record, revision=document["_rev"]) if document else None

    def sweep(self, before: int) -> int:
        """Delete the records created before a time, in Gregorian seconds.

        :returns: how many were deleted
        """
        old = [d for d in self._records.range(_PREFIX) if d["created"] < before]
        self._records.remove(old)
        return len(old)


def _is_of(leaf: Document, record: IdempotencyRecord) -> bool:
    """Whether a revision was written by this attempt before it ended."""
    attempt = (*_name(leaf), leaf.get("worker"), leaf.get("attempt"), leaf.get("until"))
    name = (record.request_id, record.created)
    return attempt == (*name, record.worker, record.attempt, record.until)


def _name(leaf: Document) -> tuple[object, object]:
    """Identify one use of a key, by the first request that claimed the key."""
    return leaf.get("request_id"), leaf.get("created")


def _rank(document: Document) -> tuple[int, ...]:
    # A node that was cut off may have a revision from before the end of an attempt.
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
        document.get("_rev"),
    )


def _number(attempt: object) -> int:
    """Return the number of an attempt. Earlier releases stored a name instead."""
    return attempt if isinstance(attempt, int) else 1
