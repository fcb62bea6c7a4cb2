"""The documents of our own database, each write of which ends in certainty.

The one database that is not Kazoo's. Losing it loses no address: what is in it only says what to
finish, undo or repeat.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import uuid4

from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import Outcome, Written, generation

RECORDS = "kazoo_ips"
"""The database."""

LATE = "late"
"""The field that says of a new document that a write of it may still arrive."""

_TRIES = 3

_WITHDRAWN = "withdrawn"
"""The field of a tombstone that takes one revision back: the document itself is not deleted."""

_WRITE = "write"
"""The field that tells a write from everybody else's: two writers of the same document at the
same revision would otherwise make the same revision, and both be told that it was them."""


class Records:
    """Compare-and-swap, one document at a time."""

    def __init__(self, couch: Couch) -> None:
        self._database = couch.database(RECORDS)

    @property
    def replicas(self) -> int:
        """On how many nodes CouchDB keeps each document; 1 where there is no cluster."""
        return self._database.replicas

    def put(self, document: Mapping[str, object]) -> Document | None:
        """Write a document at the revision it carries, or a new one where that is None.

        A new one that took more than one try says so by `LATE`: should it be deleted, the first
        try would make it anew whenever it arrives.

        :returns: it at its new revision; None when somebody else has written, and nothing of
            this write is left
        :raises DatastoreUnreachable: it cannot be found out
        """
        wanted: Document = {**document, _WRITE: uuid4().hex}
        if wanted.get("_rev") is None:
            wanted.pop("_rev", None)
        late, base = False, wanted.get("_rev")
        for _ in range(_TRIES):
            written = self._database.put(wanted)
            if written.outcome is Outcome.DONE:
                return {**wanted, "_rev": written.revision, LATE: late}
            ours, rivals = self._written(wanted, base)
            if ours and rivals:
                self.drop([ours])
                return None
            if ours and self._database.replicas == 1:
                return {**ours, LATE: late}
            if ours:
                # On its own revision: a majority that takes it has had the first write as well.
                wanted["_rev"] = ours["_rev"]
            elif rivals:
                return None
            # Else the same again: whichever of the two arrives first, it is this write. It may
            # have been refused by a node that lags.
            late = late or "_rev" not in wanted
        raise DatastoreUnreachable(f"{wanted['_id']}: not known whether it is written")

    def _written(self, wanted: Document, base: str | None) -> tuple[Document | None, bool]:
        """A write as it is there, if it is, and whether it has rivals: made on the same base."""
        leaves = self.leaves(wanted["_id"], r=self._database.replicas, revs=True)
        ours = next((leaf for leaf in leaves if leaf.get(_WRITE) == wanted[_WRITE]), None)
        rivals = any(leaf is not ours and _follows(leaf, base) for leaf in leaves)
        return {k: v for k, v in ours.items() if k != "_revisions"} if ours else None, rivals

    def leaves(
        self, record_id: str, r: int | None = None, revs: bool | None = None
    ) -> list[Document]:
        """Every current revision of a document, and what deleted it.

        One that was taken back is as if it had never been.

        :param r: how many copies are asked; a majority unless given
        :param revs: whether each tells its `_revisions`
        """
        leaves = self._database.leaves(record_id, r=r, revs=revs)
        return [leaf for leaf in leaves if not leaf.get(_WITHDRAWN)]

    def find(self, record_id: str, rank: Callable[[Document], tuple[int, ...]]) -> Document | None:
        """A document, or None.

        Of several revisions that a cluster left side by side the one of the highest rank counts,
        and of these the one that was written to most often; the others are dropped.
        """
        live = [leaf for leaf in self.leaves(record_id) if not leaf.get("_deleted")]
        if not live:
            return None

        def place(leaf: Document) -> tuple[tuple[int, ...], int]:
            return rank(leaf), generation(leaf["_rev"])

        first = max(live, key=lambda leaf: (place(leaf), leaf["_rev"]))
        said = _said(first)
        self.drop(
            [
                leaf
                for leaf in live
                if place(leaf) < place(first) or (leaf is not first and _said(leaf) == said)
            ]
        )
        return first

    def remove(self, documents: Sequence[Mapping[str, object]]) -> list[Written]:
        """Delete documents at the revisions they carry. One that has changed since stays.

        :returns: what became of each, in the order given
        :raises DatastoreUnreachable: nothing was sent
        """
        return self._database.put_all(
            [{"_id": d["_id"], "_rev": d["_rev"], "_deleted": True} for d in documents]
        )

    def drop(self, leaves: Sequence[Mapping[str, object]]) -> None:
        """Delete revisions, each marked: the document itself is not deleted by that.

        :raises DatastoreUnreachable: nothing was sent
        """
        self._database.put_all(
            [
                {"_id": leaf["_id"], "_rev": leaf["_rev"], "_deleted": True, _WITHDRAWN: True}
                for leaf in leaves
            ]
        )

    def range(self, prefix: str) -> Iterator[Document]:
        """All documents whose ids begin so. On a cluster the list may lag."""
        return self._database.range(prefix, f"{prefix}\uffff")


def _said(leaf: Document) -> Document:
    """What a revision says, whichever write it is."""
    return {k: v for k, v in leaf.items() if k not in ("_rev", _WRITE)}


def _follows(leaf: Document, base: str | None) -> bool:
    """Whether a revision was made on a certain one.

    One that was not is no rival of a write on that one: it stands beside it, from a writer that
    had no majority. Where only such show, the nodes that know more have not answered.

    :param leaf: with its `_revisions`
    :param base: None where a document is new, which may follow one that was deleted
    """
    if base is None:
        return not leaf.get("_deleted")
    start, ids = leaf["_revisions"]["start"], leaf["_revisions"]["ids"]
    return base in {f"{start - n}-{digest}" for n, digest in enumerate(ids) if n}
