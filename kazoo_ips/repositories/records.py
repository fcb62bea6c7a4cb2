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

_SETTLED = "settled"
"""The field of a revision that is written after a majority has accepted its content."""

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
        for count in range(_TRIES):
            written = self._database.put(wanted)
            if written.outcome is Outcome.DONE and not count:
                return {**wanted, "_rev": written.revision, LATE: late}
            # CouchDB may have copied both this write and a rival's to all nodes. Then a majority
            # accepts this write again, although the rival's write was the one with a majority.
            own, rivals = self._written(wanted, base)
            if rivals:
                self.drop([own] if own else [])
                return None
            if own and (written.outcome is Outcome.DONE or self._database.replicas == 1):
                return {**own, LATE: late}
            if own:
                # Write it again on its own revision. A majority that accepts this has both writes.
                wanted["_rev"] = own["_rev"]
            # Otherwise the same write is repeated. A node that lags may have refused the first
            # one. If both arrive, they are the same write.
            late = late or "_rev" not in wanted
        raise DatastoreUnreachable(f"{wanted['_id']}: not known whether it is written")

    def put_settled(self, document: Mapping[str, object]) -> Document | None:
        """Write a document as `put` does, so that `find_settled` finds it beside any other write.

        On a cluster that takes two writes. The second one records that a majority has accepted the
        first one, because two conflicting revisions do not show which of them a majority has.
        """
        written = self.put({**document, _SETTLED: False})
        if written is None or self.replicas == 1:
            return written
        content = {name: value for name, value in written.items() if name != LATE}
        return self.put({**content, _SETTLED: True})

    def find_settled(self, record_id: str) -> Document | None:
        """Return a document that `put_settled` has written, or None if it does not exist."""
        return self.find(record_id, _rank_of_settled)

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
        return without_dropped(self._database.leaves(record_id, r=r, revs=revs))

    def every_leaf(self, record_id: str) -> list[Document]:
        """Return every leaf revision of a document, with tombstones and dropped revisions."""
        return self._database.leaves(record_id)

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

    def drop(self, leaves: Sequence[Mapping[str, object]]) -> list[Written]:
        """Delete single revisions. A field in each tombstone says that the document still exists.

        The tombstone keeps the content, in case that no other revision is left.

        :returns: the outcome of each, in the given order
        :raises DatastoreUnreachable: nothing was sent
        """
        if not leaves:
            return []  # a dry run may read, but must not write
        return self._database.put_all(
            [
                {
                    **{k: v for k, v in leaf.items() if k[0] != "_" or k in ("_id", "_rev")},
                    "_deleted": True,
                    _WITHDRAWN: True,
                }
                for leaf in leaves
            ]
        )

    def range(self, prefix: str) -> Iterator[Document]:
        """Return all documents whose ids begin with a prefix. On a cluster the list may lag."""
        return self._database.range(prefix, f"{prefix}\uffff")


def _rank_of_settled(leaf: Document) -> tuple[int, ...]:
    # The hash is compared too, so that one of two revisions without a majority is dropped.
    number, digest = leaf["_rev"].split("-", maxsplit=1)
    return bool(leaf.get(_SETTLED)), int(number), int(digest, 16)


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


def without_dropped(leaves: Sequence[Document]) -> list[Document]:
    """Return the leaf revisions of a document that were not dropped."""
    return [leaf for leaf in leaves if not leaf.get(_WITHDRAWN)]


def withdrawn(
    leaves: Sequence[Document], rank: Callable[[Document], tuple[int, ...]]
) -> Document | None:
    """Return the content of a document whose revisions were all dropped, or None.

    Two writers of one revision may both find that the other has written, and then both drop
    their own revision. The document was never deleted, but no live revision is left.

    :param leaves: all leaf revisions of the document
    :param rank: as for `Records.find`; the content is that of the dropped revision that ranks
        highest
    :returns: the document without a revision: CouchDB accepts only a new document after the
        tombstones
    """
    dropped = [leaf for leaf in leaves if _WITHDRAWN in leaf and _WRITE in leaf]
    if not dropped or without_dropped(leaves):
        return None
    content = max(dropped, key=lambda leaf: (rank(leaf), leaf["_rev"]))
    return {k: v for k, v in content.items() if k not in {"_deleted", "_rev", _WITHDRAWN}}
