"""One node's replica of a database: revision trees, writes and views.

It behaves as in CouchDB 3.5.0: `couch_key_tree.erl`, `couch_db_updater.erl` (`merge_rev_tree`),
`couch_doc.erl` (`to_doc_info`), `couch_db.erl` (`new_revid`, `prep_and_validate_update`). A write
takes no time and is durable. Attachments are part of their document. There are no purges, and
revisions are never stemmed. This module knows nothing of other nodes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec

from kazoo_ips.model.addresses import canonical, sort_key

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision.

    :param parent: None at a root, or if the parent is not known
    :param body: None if the replica knows the revision only as an ancestor of another one
    """

    rev: str
    parent: str | None
    deleted: bool = False
    body: Document | None = None


def generation(rev: str) -> int:
    """Return the number before the hyphen."""
    return int(rev.split("-", 1)[0])


@lru_cache(10_000)
def rank(rev: str) -> tuple[int, str]:
    """Return the key by which revisions are sorted."""
    number, digest = rev.split("-", 1)
    return int(number), digest


class Tree:
    """The revisions of one document."""

    __slots__ = ("leaves", "revisions")

    def __init__(self) -> None:
        self.revisions: dict[str, Revision] = {}
        self.leaves: dict[str, None] = {}

    def copy(self) -> "Tree":
        """Return an independent copy."""
        other = Tree()
        other.revisions, other.leaves = dict(self.revisions), dict(self.leaves)
        return other

    @property
    def winner(self) -> Revision:
        """The winner: live before deleted, then the highest generation, then the highest hash."""
        leaves = self.leaves
        if len(leaves) == 1:
            return self.revisions[next(iter(leaves))]
        return max(
            (self.revisions[rev] for rev in leaves), key=lambda r: (not r.deleted, rank(r.rev))
        )

    @property
    def conflicts(self) -> tuple[str, ...]:
        """The other live leaf revisions, the highest first."""
        if len(self.leaves) == 1:
            return ()
        winner = self.winner.rev
        live = [r for r in self.leaves if r != winner and not self.revisions[r].deleted]
        return tuple(sorted(live, key=rank, reverse=True))

    def path(self, rev: str) -> tuple[Revision, ...]:
        """Return a revision and its known ancestors."""
        found = [self.revisions[rev]]
        while (parent := found[-1].parent) is not None and parent in self.revisions:
            found.append(self.revisions[parent])
        return tuple(found)

    def merge(self, path: Iterable[Revision]) -> str:
        """Merge a revision and its ancestors into the tree.

        :returns: `internal_node` if the revision was known, `new_leaf` if it extends a leaf or is
            the first revision of the document, otherwise `new_branch`
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
    """Return the new revision of a write: its hash covers the body and the parent."""
    content = msgspec.json.encode([deleted, parent, body])
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return f"{generation(parent) + 1 if parent else 1}-{digest}"


def body_of(document: Mapping[str, Any]) -> Document:
    """Return the document without CouchDB's fields, except its attachments."""
    return {k: v for k, v in document.items() if k[0] != "_" or k == "_attachments"}


def to_json(document_id: str, revision: Revision) -> Document:
    """Return a revision as CouchDB's JSON."""
    shown: Document = {"_id": document_id, "_rev": revision.rev, **(revision.body or {})}
    if revision.deleted:
        shown["_deleted"] = True
    return shown


CONFLICT = "conflict"


class Shard:
    """A node's replica of a database, which is one shard (q=1)."""

    def __init__(self, trees: Mapping[str, Tree] | None = None) -> None:
        self.trees = {i: tree.copy() for i, tree in (trees or {}).items()}
        self.changes: dict[str, int] = {i: n for n, i in enumerate(self.trees, 1)}
        """The sequence number of each document's last change, in ascending order."""
        self.seq = len(self.trees)
        self._rows: dict[str, tuple[int, list[Row]]] = {}

    def _changed(self, document_id: str) -> None:
        self.seq += 1
        self.changes.pop(document_id, None)
        self.changes[document_id] = self.seq

    def write(self, document: Mapping[str, Any]) -> str:
        """Write a new revision and return it; `CONFLICT` if it is refused."""
        document_id, deleted = document["_id"], bool(document.get("_deleted"))
        if document_id.startswith("_local/"):
            return "0-1"  # local documents are never read, so they are not stored
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
        """Return the parent revision of a write, and whether the write is allowed."""
        if not tree.leaves:
            return None, rev is None
        if tree.winner.deleted:
            # A new document follows the tombstone that wins in this replica.
            return tree.winner.rev, rev is None and not deleted
        return rev, rev in tree.leaves

    def changed_since(self, seq: int) -> list[str]:
        """Return the ids of the documents that changed after a sequence number, in that order."""
        return [i for i, changed in self.changes.items() if changed > seq]

    def replicate(self, document_id: str, paths: Iterable[Iterable[Revision]]) -> None:
        """Merge revisions that another replica has accepted."""
        tree = self.trees.get(document_id) or Tree()
        kinds = [tree.merge(path) for path in paths]
        if any(kind != "internal_node" for kind in kinds):
            self.trees[document_id] = tree
            self._changed(document_id)

    def leaf_paths(self, document_id: str) -> list[tuple[Revision, ...]]:
        """Return all leaf revisions with their ancestors."""
        tree = self.trees.get(document_id)
        return [tree.path(rev) for rev in sorted(tree.leaves, key=rank)] if tree else []

    def live(self) -> Iterator[tuple[str, Tree, Revision]]:
        """Yield the documents that are not deleted, sorted by id."""
        for document_id in sorted(self.trees):
            tree = self.trees[document_id]
            winner = tree.winner
            if not winner.deleted:
                yield document_id, tree, winner

    def rows(self, view: str) -> "list[Row]":
        """Return all rows of a view, in order."""
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


# Views: the map functions of `couch_views/` in Python. A test compares them.


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a view, with its sort key."""

    order: Any
    id: str
    key: Any
    value: Any


def collated(key: Any) -> Any:
    """Return the sort key of a view's key: null, booleans, numbers, strings, arrays, objects."""
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


def _available_by_host(document: Document) -> Emitted:
    order = _order(document)
    if order and document.get("pvt_status") == "available":
        number, host = 0, document.get("pvt_host")
        for character in str(host):
            number = (number + ord(character)) * 25173 % 65536
        yield [document.get("pvt_zone"), number, host, order], None


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


def _by_expiry(document: Document) -> Emitted:
    status = document.get("pvt_status")
    if not _order(document) or status not in {"aging", "reserved"}:
        return
    end = document.get("pvt_available_at" if status == "aging" else "pvt_reserved_until")
    at = end if isinstance(end, int) else 0
    zone, host = document.get("pvt_zone"), document.get("pvt_host")
    for place in (["all"], ["zone", zone], ["host", host]):
        yield [status, *place, at], [zone, host]


def _by_label(document: Document) -> Emitted:
    order, labels = _order(document), document.get("labels")
    if order and isinstance(labels, dict):
        status, host = document.get("pvt_status"), document.get("pvt_host")
        owner = document.get("pvt_assigned_to") if status == "assigned" else None
        for name, value in labels.items():
            if isinstance(value, str):
                yield [f"{name}:{value}", document.get("pvt_zone"), order], [status, host, owner]


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


def _by_ancestor(document: Document) -> Emitted:
    tree = document.get("pvt_tree")
    if document.get("pvt_type") != "account" or document.get("pvt_deleted"):
        return
    for ancestor in tree if isinstance(tree, list) else ():
        yield [ancestor, document["_id"]], document.get("name") or ""


def _event(document: Document) -> Document | None:
    """Return a document of the history if views show its event; None otherwise."""
    if not document.get("event") or not isinstance(document.get("at"), int):
        return None
    if document["event"] == "retracted":
        return None
    return document


def _event_value(event: Document) -> list[Any]:
    """Return the fields of an event as the views have them."""
    names = ("id", "ip", "event", "at", "account_id", "before", "after", "by", "request_id",
             "source", "certain", "revision", "reason")  # fmt: skip
    states = {
        name: [event[name].get(field) for field in ("status", "account_id", "zone", "host")]
        for name in ("before", "after")
        if event.get(name)
    }
    return [states.get(name, event.get(name)) for name in names]


def _events_by_address(document: Document) -> Emitted:
    event, address = _event(document), canonical(str(document.get("ip")))
    if event and address:
        generation = _generation(document)
        yield [sort_key(address), event["at"], generation, document["_id"]], _event_value(event)


def _events_by_account(document: Document) -> Emitted:
    event = _event(document)
    if event:
        states = [event.get("before") or {}, event.get("after") or {}]
        accounts = [event.get("account_id"), *(state.get("account_id") for state in states)]
        for account_id in dict.fromkeys(filter(None, accounts)):
            yield (
                [account_id, event["at"], _generation(document), document["_id"]],
                _event_value(event),
            )


def _events_by_zone(document: Document) -> Emitted:
    event = _event(document)
    if event:
        states = [event.get("before") or {}, event.get("after") or {}]
        zones = dict.fromkeys(filter(None, (state.get("zone") for state in states)))
        for zone in [None, *zones]:
            yield [zone, event["at"], _generation(document), document["_id"]], None


def _by_retraction(document: Document) -> Emitted:
    if document.get("event") == "retracted" and document.get("retracts"):
        yield [document["at"], document["_id"]], [document["ip"], document["retracts"]]


def _generation(document: Document) -> int:
    return int((document.get("revision") or "0").partition("-")[0])


VIEWS: dict[str, Callable[[Document], Emitted]] = {
    "ips/by_zone": _by_zone,
    "ips/by_host": _by_host,
    "ips/available_by_host": _available_by_host,
    "ips/by_assignee": _by_assignee,
    "ips/by_address_or_time": _by_address_or_time,
    "ips/by_label": _by_label,
    "ips/by_expiry": _by_expiry,
    "ips/other_spellings": _other_spellings,
    "logins/by_login": _by_login,
    "account_tree/by_ancestor": _by_ancestor,
    "history/by_account": _events_by_account,
    "history/by_address": _events_by_address,
    "history/by_retraction": _by_retraction,
    "history/by_zone": _events_by_zone,
}
"""The map functions of `couch_views/`."""
COUNTED = frozenset(name for name in VIEWS if name.startswith("ips/"))
"""The views that have a reduce function. It counts rows."""
