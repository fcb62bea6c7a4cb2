"""The checkpoint of each follower of a changes feed, and the lease of the process that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.repositories.records import Records

_PREFIX = "follower-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Lease and checkpoint of one follower.

    They are one document, so a process that has lost the lease cannot move the checkpoint.

    :param name: the name of the follower
    :param holder: the process that holds the lease
    :param until: when the lease expires, in Gregorian seconds; it ends earlier if the process dies
    :param since: the sequence in the feed up to which all changes are handled
    :param history: the database history that the sequence belongs to
    """

    name: str
    holder: str
    until: int
    since: str
    history: str
    revision: str | None = None


class Checkpoints:
    """Reads and writes checkpoints."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, name: str) -> Checkpoint | None:
        """Return the checkpoint of a follower, or None if it has none."""
        document = self._records.find(_PREFIX + name, lambda document: (document["until"],))
        return _checkpoint(document) if document else None

    def put(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Write a checkpoint at the revision it carries (compare-and-swap).

        :returns: the checkpoint at its new revision; None if another process has written it
        :raises DatastoreUnreachable: it is unknown whether the checkpoint was written
        """
        document = self._records.put(_document(checkpoint))
        return replace(checkpoint, revision=document["_rev"]) if document else None


def _document(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return {
        "_id": _PREFIX + checkpoint.name,
        "_rev": checkpoint.revision,
        "type": "follower",
        "holder": checkpoint.holder,
        "until": checkpoint.until,
        "since": checkpoint.since,
        "history": checkpoint.history,
    }


def _checkpoint(document: Document) -> Checkpoint:
    return Checkpoint(
        document["_id"].removeprefix(_PREFIX),
        document["holder"],
        document["until"],
        document["since"],
        document["history"],
        document["_rev"],
    )
