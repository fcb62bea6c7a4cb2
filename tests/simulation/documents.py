"""One node's copy of a database: revision trees, what a write makes of them, and views.

As CouchDB 3.5.0 has it: `couch_key_tree.erl`, `couch_db_updater.erl` (`merge_rev_tree`),
`couch_doc.erl` (`to_doc_info`), `couch_db.erl` (`new_revid`, `prep_and_validate_update`). A write
takes no time and is never lost; there are no attachments but in one piece, no purges, and
revisions are never stemmed. Knows nothing of other nodes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson

from kazoo_ips.model.addresses import canonical, sort_key

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision; of one that only its descendant has told of, there is no body.

    :param parent: None at a root, or where nobody has told
    """

    rev: str
    parent: str | None
    deleted: bool = False
    body: Document | None = None


def generation(rev: str) -> int:
    """How many writes led to a revision."""
    return int(rev.split("-", 1)[0])


@lru_cache(10_000)
def rank(rev: str) -> tuple[int, str]:
    """What revisions are compared by."""
    number, digest = rev.split("-", 1)
    return int(number), digest


class Tree:
    """The revisions of one document."""

    __slots__ = ("leaves", "revisions")

    def __init__(self) -> None:
        self.revisions: dict[str, Revision] = {}
        self.leaves: dict[str, None] = {}

    def copy(self) -> "Tree":
        """One that can change by itself."""
        other = Tree()
        other.revisions, other.leaves = dict(self.revisions), dict(self.leaves)
        return other

    @property
    def winner(self) -> Revision:
        """The one that everybody sees: alive, then the longest, then the highest."""
        leaves = self.leaves
        if len(leaves) == 1:
            return self.revisions[next(iter(leaves))]
        return max(
            (self.revisions[rev] for rev in leaves), key=lambda r: (not r.deleted, rank(r.rev))
        )

    @property
    def conflicts(self) -> tuple[str, ...]:
        """The other live leaves, the highest first."""
        if len(self.leaves) == 1:
            return ()
        winner = self.winner.rev
        live = [r for r in self.leaves if r != winner and not self.revisions[r].deleted]
        return tuple(sorted(live, key=rank, reverse=True))

    def path(self, rev: str) -> tuple[Revision, ...]:
        """A revision and its ancestors, as far as they are known."""
        found = [self.revisions[rev]]
        while (parent := found[-1].parent) is not None and parent in self.revisions:
            found.append(self.revisions[parent])
        return tuple(found)

    def merge(self, path: Iterable[Revision]) -> str:
        """Take a revision and its ancestors in.

        :returns: `internal_node` when all was known, `new_leaf` when it extends a leaf (the
            first of a document counts), else `new_branch`
        """
        leaf, *ancestors = path
        kind = "internal_node"
        if leaf.rev not in self.revisions:
            kind = "new_branch" if self.revisions else "new_leaf"
            self.leaves[leaf.rev] = None
        for revision in (leaf, *ancestors):
            known = self.revisions.get(revision.rev)
            if known is None:
                self.revisions[revision.rev] = revision
            elif known.parent is None and revision.parent is not None:
                self.revisions[revision.rev] = replace(known, parent=revision.parent)
        for revision in ancestors:
            if revision.rev in self.leaves:
                del self.leaves[revision.rev]
                kind = "new_leaf"
        return kind


def new_rev(deleted: bool, parent: str | None, body: Document) -> str:
    """The revision of a write: a hash of what it says and of the revision it follows."""
    content = orjson.dumps([deleted, parent, body])
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return f"{generation(parent) + 1 if parent else 1}-{digest}"


def body_of(document: Mapping[str, Any]) -> Document:
    """A document's own members, and its attachments."""
    return {k: v for k, v in document.items() if k[0] != "_" or k == "_attachments"}


def to_json(document_id: str, revision: Revision) -> Document:
    """A revision as CouchDB shows it."""
    shown: Document = {"_id": document_id, "_rev": revision.rev, **(revision.body or {})}
    if revision.deleted:
        shown["_deleted"] = True
    return shown


CONFLICT = "conflict"


class Shard:
    """A node's copy of a database; all of it is one shard (q=1)."""

    def __init__(self, trees: Mapping[str, Tree] | None = None) -> None:
        self.trees = {i: tree.copy() for i, tree in (trees or {}).items()}
        self.changes: dict[str, int] = {i: n for n, i in enumerate(self.trees, 1)}
        """The sequence number of each document's last change, in their order."""
        self.seq = len(self.trees)
        self._rows: dict[str, tuple[int, list[Row]]] = {}

    def _changed(self, document_id: str) -> None:
        self.seq += 1
        self.changes.pop(document_id, None)
        self.changes[document_id] = self.seq

    def write(self, document: Mapping[str, Any]) -> str:
        """Write a new revision; it, or `CONFLICT`."""
        document_id, deleted = document["_id"], bool(document.get("_deleted"))
        if document_id.startswith("_local/"):
            return "0-1"  # never refused; what it says is not asked for
        tree = self.trees.get(document_id) or Tree()
        parent, allowed = self._parent(tree, document.get("_rev"), deleted)
        body = body_of(document)
        rev = new_rev(deleted, parent, body)
        if not allowed or rev in tree.revisions:
            return CONFLICT
        tree.leaves.pop(parent or "", None)
        tree.revisions[rev] = Revision(rev, parent, deleted, body)
        tree.leaves[rev] = None
        self.trees[document_id] = tree
        self._changed(document_id)
        return rev

    @staticmethod
    def _parent(tree: Tree, rev: str | None, deleted: bool) -> tuple[str | None, bool]:
        """The revision that a write follows, and whether it may."""
        if not tree.leaves:
            return None, rev is None
        if tree.winner.deleted:
            # Made anew, on top of the tombstone that this copy would show.
            return tree.winner.rev, rev is None and not deleted
        return rev, rev in tree.leaves

    def changed_since(self, seq: int) -> list[str]:
        """The documents that have changed after a sequence number, in the order of that."""
        return [i for i, changed in self.changes.items() if changed > seq]

    def replicate(self, document_id: str, paths: Iterable[Iterable[Revision]]) -> None:
        """Take in revisions that were written elsewhere."""
        tree = self.trees.get(document_id) or Tree()
        kinds = [tree.merge(path) for path in paths]
        if any(kind != "internal_node" for kind in kinds):
            self.trees[document_id] = tree
            self._changed(document_id)

    def leaf_paths(self, document_id: str) -> list[tuple[Revision, ...]]:
        """All leaves with their ancestors."""
        tree = self.trees.get(document_id)
        return [tree.path(rev) for rev in sorted(tree.leaves, key=rank)] if tree else []

    def live(self) -> Iterator[tuple[str, Tree, Revision]]:
        """The documents that are there, by id."""
        for document_id in sorted(self.trees):
            tree = self.trees[document_id]
            winner = tree.winner
            if not winner.deleted:
                yield document_id, tree, winner

    def rows(self, view: str) -> "list[Row]":
        """All rows of a view, in order."""
        seq, rows = self._rows.get(view, (-1, []))
        if seq != self.seq:
            emit = VIEWS[view]
            found = (
                Row(collated(key), document_id, key, value)
                for document_id, _, winner in self.live()
                if document_id[0] != "_"
                for key, value in emit({**(winner.body or {}), "_id": document_id})
            )
            rows = sorted(found, key=lambda row: (row.order, row.id))
            self._rows[view] = self.seq, rows
        return rows


# Views: what `couch_views/` says, by hand. A test compares the two.


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a view, with what it is sorted by."""

    order: Any
    id: str
    key: Any
    value: Any


def collated(key: Any) -> Any:
    """What CouchDB compares keys by: null, booleans, numbers, texts, lists, objects."""
    match key:
        case None:
            return (0,)
        case bool():
            return (1, key)
        case int() | float():
            return (2, key)
        case str():
            return (3, key)
        case list():
            return (4, [collated(each) for each in key])
    return (5, [(name, collated(each)) for name, each in key.items()])


Emitted = Iterable[tuple[Any, Any]]


def _order(document: Document) -> str | None:
    if document.get("pvt_type") != "dedicated_ip" or document.get("pvt_deleted"):
        return None
    address = canonical(document["_id"])
    return sort_key(address) if address else None


def _by_zone(document: Document) -> Emitted:
    order = _order(document)
    if order:
        status, host = document.get("pvt_status"), document.get("pvt_host")
        value = [host, document.get("pvt_assigned_to")] if status == "assigned" else [host]
        yield [status, document.get("pvt_zone"), order], value


def _by_host(document: Document) -> Emitted:
    order = _order(document)
    if order:
        status, zone = document.get("pvt_status"), document.get("pvt_zone")
        owner = document.get("pvt_assigned_to") if status == "assigned" else None
        yield [document.get("pvt_host"), status, zone, order], owner


def _by_assignee(document: Document) -> Emitted:
    order, owner = _order(document), document.get("pvt_assigned_to")
    if order and document.get("pvt_status") == "assigned" and owner:
        yield [owner, document.get("pvt_zone"), order], document.get("pvt_host")


def _by_address_or_time(document: Document) -> Emitted:
    order = _order(document)
    if order:
        status, modified = document.get("pvt_status"), document.get("pvt_modified") or 0
        owner = document.get("pvt_assigned_to") if status == "assigned" else None
        line = [status, document.get("pvt_zone"), document.get("pvt_host"), owner, modified]
        yield ["address", order], line
        yield ["modified", modified], line


def _other_spellings(document: Document) -> Emitted:
    order = _order(document)
    if order and canonical(document["_id"]) != document["_id"]:
        yield [order], None


def _by_login(document: Document) -> Emitted:
    if document.get("pvt_type") != "account" or document.get("pvt_deleted"):
        return
    if name := document.get("name"):
        yield ["name", "".join(c for c in name.lower() if c.isascii() and c.isalnum())], None
    if realm := document.get("realm"):
        yield ["realm", realm.lower()], None
    if key := document.get("pvt_api_key"):
        yield ["api_key", key], None


VIEWS: dict[str, Callable[[Document], Emitted]] = {
    "ips/by_zone": _by_zone,
    "ips/by_host": _by_host,
    "ips/by_assignee": _by_assignee,
    "ips/by_address_or_time": _by_address_or_time,
    "ips/other_spellings": _other_spellings,
    "logins/by_login": _by_login,
}
"""The maps of `couch_views/`; each reduce counts."""
