"""Compare-and-swap on the documents of the service's own database, `kazoo_ips`.

Each write either has a certain outcome or raises an error. All other databases are Kazoo's. If
this database is lost, no address is lost. Its records only say which requests to complete, to roll
back or to answer with a stored reply.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import uuid4

from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import Outcome, Written, generation

RECORDS = "kazoo_ips"
"""The name of the database."""

LATE = "late"
"""The field of a document whose creation was sent more than once. An earlier write may still
arrive."""

_TRIES = 3

_WITHDRAWN = "withdrawn"
"""The field of a tombstone that removes one revision, and does not delete the document."""

_WRITE = "write"
"""The field with a random id for each write. Without it, two writers of equal documents at the
same revision would create the same revision, and both would get 201."""


class Records:
    """Reads documents, and writes one at a time by compare-and-swap."""

    def __init__(self, couch: Couch) -> None:
        self._database = couch.database(RECORDS)

    @property
    def replicas(self) -> int:
        """The number of replicas of each document in the cluster; 1 on a single node."""
        return self._database.replicas

    def put(self, document: Mapping[str, object]) -> Document | None:
        """Write a document at the revision it carries, or a new one if that is None.

        If creating a document took more than one try, `LATE` is set in the result: the first try
        may still arrive, and would create the document again after it was deleted.

        :returns: the document at its new revision; None if another writer has changed it, and
            this write has no effect
        :raises DatastoreUnreachable: the outcome is unknown
        """
        wanted: Document = {**document, _WRITE: uuid4().hex}
        if wanted.get("_rev") is None:
            wanted.pop("_rev", None)
        late, base = False, wanted.get("_rev")
        for _ in range(_TRIES):
            written = self._database.put(wanted)
            if written.outcome is Outcome.DONE:
                return {**wanted, "_rev": written.revision, LATE: late}
            own, rivals = self._written(wanted, base)
            if own and rivals:
                self.drop([own])
                return None
            if own and self._database.replicas == 1:
                return {**own, LATE: late}
            if own:
                # Write it again on its own revision. A majority that accepts this has both writes.
                wanted["_rev"] = own["_rev"]
            elif rivals:
                return None
            # Otherwise the same write is repeated. A node that lags may have refused the first
            # one. If both arrive, they are the same write.
            late = late or "_rev" not in wanted
        raise DatastoreUnreachable(f"{wanted['_id']}: not known whether it is written")

    def _written(self, wanted: Document, base: str | None) -> tuple[Document | None, bool]:
        """Return the revision of a write, or None, and whether rivals wrote on the same base."""
        leaves = self.leaves(wanted["_id"], r=self._database.replicas, revs=True)
        own = next((leaf for leaf in leaves if leaf.get(_WRITE) == wanted[_WRITE]), None)
        rivals = any(leaf is not own and _follows(leaf, base) for leaf in leaves)
        return {k: v for k, v in own.items() if k != "_revisions"} if own else None, rivals

    def leaves(
        self, record_id: str, r: int | None = None, revs: bool | None = None
    ) -> list[Document]:
        """Return every leaf revision of a document, tombstones included.

        Revisions that were dropped are left out.

        :param r: how many replicas are read; a majority unless given
        :param revs: whether each revision includes its `_revisions`
        """
        leaves = self._database.leaves(record_id, r=r, revs=revs)
        return [leaf for leaf in leaves if not leaf.get(_WITHDRAWN)]

    def find(self, record_id: str, rank: Callable[[Document], tuple[int, ...]]) -> Document | None:
        """Return a document, or None if it does not exist.

        Of conflicting revisions the one with the highest rank wins, then the one with the highest
        generation. The losing revisions are dropped.

        :param rank: returns the rank of a revision
        """
        live = [leaf for leaf in self.leaves(record_id) if not leaf.get("_deleted")]
        if not live:
            return None

        def full_rank(leaf: Document) -> tuple[tuple[int, ...], int]:
            return rank(leaf), generation(leaf["_rev"])

        winner = max(live, key=lambda leaf: (full_rank(leaf), leaf["_rev"]))
        content = _content(winner)
        self.drop(
            [
                leaf
                for leaf in live
                if full_rank(leaf) < full_rank(winner)
                or (leaf is not winner and _content(leaf) == content)
            ]
        )
        return winner

    def remove(self, documents: Sequence[Mapping[str, object]]) -> list[Written]:
        """Delete documents at the revisions they carry. A document that has changed since stays.

        :returns: the outcome of each, in the given order
        :raises DatastoreUnreachable: nothing was sent
        """
        return self._database.put_all(
            [{"_id": d["_id"], "_rev": d["_rev"], "_deleted": True} for d in documents]
        )

    def drop(self, leaves: Sequence[Mapping[str, object]]) -> None:
        """Delete single revisions. A field in each tombstone says that the document still exists.

        :raises DatastoreUnreachable: nothing was sent
        """
        self._database.put_all(
            [
                {"_id": leaf["_id"], "_rev": leaf["_rev"], "_deleted": True, _WITHDRAWN: True}
                for leaf in leaves
            ]
        )

    def range(self, prefix: str) -> Iterator[Document]:
        """Return all documents whose ids begin with a prefix. On a cluster the list may lag."""
        return self._database.range(prefix, f"{prefix}\uffff")


def _content(leaf: Document) -> Document:
    """Return the fields of a revision that do not depend on the single write."""
    return {k: v for k, v in leaf.items() if k not in ("_rev", _WRITE)}


def _follows(leaf: Document, base: str | None) -> bool:
    """Whether a revision is a descendant of a base revision.

    A revision that is not a descendant is no rival of a write on that base. It is a conflict, left
    by a writer without a majority. If only such revisions are found, the nodes with newer
    revisions did not answer.

    :param leaf: a revision with its `_revisions`
    :param base: None for a new document, which may follow a deleted one
    """
    if base is None:
        return not leaf.get("_deleted")
    start, ids = leaf["_revisions"]["start"], leaf["_revisions"]["ids"]
    return base in {f"{start - n}-{digest}" for n, digest in enumerate(ids) if n}
