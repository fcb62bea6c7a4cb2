"""The checkpoint of each follower of a changes feed, and the lease of the process that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.processes import liveness
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
    :param began: when the follower started for the first time, in Gregorian seconds; None if an
        earlier release wrote the checkpoint
    :param covered: the time before which all changes are handled, in Gregorian seconds; None if it
        is not known
    :param pending: work that handled changes have caused and that is not done yet, as JSON
    """

    name: str
    holder: str
    until: int
    since: str
    history: str
    revision: str | None = None
    began: int | None = None
    pending: Mapping[str, Any] = field(default_factory=dict)
    covered: int | None = None

    def is_held_by_another(self, now: int) -> bool:
        """Return whether another process, which may be alive, holds the lease.

        If the document names this process as the holder, an earlier write of this process had an
        unknown outcome. Then this process may take the lease.

        :param now: in Gregorian seconds
        """
        is_own = self.holder == liveness.identity()
        return now < self.until and not is_own and not liveness.is_dead(self.holder)


class Checkpoints:
    """Reads and writes checkpoints."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, name: str) -> Checkpoint | None:
        """Return the checkpoint of a follower, or None if it has none."""
        document = self._records.find(_PREFIX + name, lambda document: (document["until"],))
        return _checkpoint(document) if document else None

    def all(self) -> list[Checkpoint]:
        """Return the checkpoints of all followers, by name."""
        return [_checkpoint(document) for document in self._records.range(_PREFIX)]

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
        "began": checkpoint.began,
        "pending": checkpoint.pending,
        "covered": checkpoint.covered,
    }


def _checkpoint(document: Document) -> Checkpoint:
    return Checkpoint(
        document["_id"].removeprefix(_PREFIX),
        document["holder"],
        document["until"],
        document["since"],
        document["history"],
        document["_rev"],
        document.get("began"),
        document.get("pending") or {},
        document.get("covered"),
    )
