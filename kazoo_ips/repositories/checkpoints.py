"""How far each follower of a changes feed has come, and which process is at it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.repositories.records import Records

_PREFIX = "follower-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One follower. Lease and checkpoint are one document: whoever lost the one cannot move the
    other.

    :param name: of the follower
    :param holder: the process that is at it
    :param until: until when it is, in Gregorian seconds, unless it is dead
    :param since: the place in the feed up to which everything is handled
    :param history: the feed that this place is of
    """

    name: str
    holder: str
    until: int
    since: str
    history: str
    revision: str | None = None


class Checkpoints:
    """Reads and writes them."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, name: str) -> Checkpoint | None:
        """How far a follower has come, or None."""
        document = self._records.find(_PREFIX + name, lambda known: (known["until"],))
        return _checkpoint(document) if document else None

    def put(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Write it at the revision it carries; None when somebody else has written.

        :raises DatastoreUnreachable: it cannot be found out whether it is written
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
