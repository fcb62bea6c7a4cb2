"""The pool: dedicated IPs as Kazoo stores them, read and written one by one or many at once.

Unknown fields of a document survive every write. A write always uses the revision that was read.
Contains no business rules.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.errors import IPNotFound
from kazoo_ips.model import (
    Branches,
    Changed,
    DedicatedIP,
    Leaves,
    Withdrawal,
    Written,
    addresses,
    generation,
    replace,
    trail,
)
from kazoo_ips.repositories.documents import (
    POOL,
    TRAIL,
    TYPE,
    dump_trail,
    from_document,
    is_ip,
    load_trail,
    to_document,
)
from kazoo_ips.repositories.lists import ListRepository

_WITHDRAWN = "pvt_withdrawn"
_DROPPED = "pvt_dropped"
_EVENTS = "pvt_events"
"""Fields of tombstones. The last one has the events that are not in effect any more."""


class IPRepository:
    """Reads and writes the pool of dedicated IPs.

    :param lists: finds addresses whose ids are not canonical
    :param all_copies: whether a write needs every replica; otherwise it needs a majority
    """

    def __init__(self, couch: Couch, lists: ListRepository, all_copies: bool = False) -> None:
        self._pool = couch.database(POOL)
        self._lists = lists
        self._all_copies = all_copies
        self._unusual: dict[str, list[str]] = {}
        """Ids that `likely_spellings` does not contain, by canonical address."""
        self.archived: int | None = None
        """The time up to which the archive has all events, in Gregorian seconds, if it is known.
        Writes drop only earlier events from the trails."""

    # One address, or some.

    def get(self, address: str) -> DedicatedIP:
        """Return the dedicated IP of an address, whatever spelling its id has.

        :param address: as the client wrote it
        :raises IPNotFound: the address is not in the pool, or is not a valid address
        """
        canonical = addresses.canonical(address)
        if canonical is None:
            raise IPNotFound(address)
        if canonical == address:
            # The usual case: one read of one document.
            document = self._pool.read(address)
            if is_ip(document):
                return from_document(document)
            found = self._find_respelled({address: canonical})
        else:
            found = self.find([address])
        if address not in found:
            raise IPNotFound(address)
        return found[address]

    def get_to_assign(self, address: str) -> tuple[DedicatedIP, list[DedicatedIP]]:
        """Return the dedicated IP of an address, and the pool's other documents of that address.

        If the request names the id of the document, one read finds all of them.

        :param address: as the client wrote it
        :raises IPNotFound: the address is not in the pool, or is not a valid address
        """
        if addresses.canonical(address) == address:
            ids = (address, *self._other_ids(address))
            documents = self._pool.read_several(ids)
            document, *others = [documents.get(i) for i in ids]
            if is_ip(document):
                return from_document(document), [from_document(d) for d in others if is_ip(d)]
        ip = self.get(address)
        return ip, self.others([ip])[ip.address]

    def others(self, ips: Collection[DedicatedIP]) -> dict[str, list[DedicatedIP]]:
        """Return, by document id, the pool's other documents of the same address.

        If a document has a canonical id, the others are read by their likely ids, from a majority
        of the nodes. A query of the view would wait until CouchDB has indexed earlier writes.
        """
        canonical = [ip for ip in ips if addresses.canonical(ip.address) == ip.address]
        ids = {ip.address: self._other_ids(ip.address) for ip in canonical}
        found = self.by_id(set().union(*ids.values()))[0] if ids else {}
        others = {i: [found[other] for other in each if other in found] for i, each in ids.items()}
        respelled = [ip for ip in ips if ip.address not in ids]
        return others | (self.others_by_view(respelled) if respelled else {})

    def _other_ids(self, address: str) -> tuple[str, ...]:
        """Return the likely and the unusual spellings of an address in canonical form."""
        return (*addresses.likely_spellings(address), *self._unusual.get(address, ()))

    def learn_spellings(self) -> None:
        """Read the ids in unusual spellings, and keep them for assignments by name."""
        spelled = self._lists.other_spellings().items()
        unusual = {a: set(ids).difference(addresses.likely_spellings(a)) for a, ids in spelled}
        self._unusual = {a: sorted(ids) for a, ids in unusual.items() if ids}

    def has_other_spelling(self, address: str) -> bool:
        """Return whether the pool has an address under another spelling.

        :param address: a canonical address
        """
        return bool(self._find_respelled({address: address}))

    def others_by_view(self, ips: Collection[DedicatedIP]) -> dict[str, list[DedicatedIP]]:
        """Return the same as `others`, in any spelling that the view has indexed."""
        canonical = {ip.address: addresses.canonical(ip.address) or ip.address for ip in ips}
        spelled = self._lists.other_spellings(set(canonical.values()))
        same = {
            i: {c, *spelled.get(c, ())} - {i}
            for i, c in canonical.items()
            if i != c or c in spelled
        }
        found = self.by_id(set().union(*same.values()))[0] if same else {}
        return {
            i: [found[other] for other in sorted(same.get(i, ())) if other in found]
            for i in canonical
        }

    def find(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Return those of these addresses that are in the pool, by the spelling of the request."""
        return self.look_up(wanted)[0]

    def look_up(self, wanted: Sequence[str]) -> tuple[dict[str, DedicatedIP], set[str]]:
        """Look these addresses up by the spelling of the request.

        A document whose id has that spelling is preferred, then one with the canonical id, then
        one with any other spelling. Kazoo accepts every spelling of an address as an id.

        :returns: the addresses that are in the pool, and those that were deleted
        """
        spellings = {a: addresses.canonical(a) for a in wanted}
        valid = {a: c for a, c in spellings.items() if c}
        documents, deleted = self._pool.look_up({*valid, *valid.values()})
        found = {}
        for address, canonical in valid.items():
            document = documents.get(address) or documents.get(canonical)
            if is_ip(document):
                found[address] = from_document(document)
        found |= self._find_respelled({a: c for a, c in valid.items() if a not in found})
        return found, {a for a, c in valid.items() if a not in found and c in deleted}

    def _find_respelled(self, missing: Mapping[str, str]) -> dict[str, DedicatedIP]:
        spelled = self._lists.other_spellings(set(missing.values())) if missing else {}
        ids = {a: sorted(spelled[c]) for a, c in missing.items() if c in spelled}
        found = self.by_id({i for each in ids.values() for i in each})[0] if ids else {}
        first = {a: next((i for i in each if i in found), None) for a, each in ids.items()}
        return {a: found[i] for a, i in first.items() if i}

    def by_id(self, ids: Iterable[str]) -> tuple[dict[str, DedicatedIP], dict[str, DedicatedIP]]:
        """Return the dedicated IPs with exactly these ids, and the last state of deleted ones."""
        documents, deleted = self._pool.look_up(ids)
        found = {i: from_document(d) for i, d in documents.items() if is_ip(d)}
        return found, {i: from_document(d) for i, d in deleted.items()}

    # Writes. Each returns its outcome.

    def expect_save(self) -> None:
        """Announce that this thread will soon save a dedicated IP."""
        self._pool.expect_write()

    def expect_no_save(self) -> None:
        """Announce that this thread will not save a dedicated IP after all."""
        self._pool.expect_no_write()

    def save(self, ip: DedicatedIP) -> Written:
        """Write one dedicated IP at the revision that was read, or as a new document."""
        return self._pool.write(to_document(ip, self.archived), w=self._quorum())

    def save_all(
        self, ips: Sequence[DedicatedIP], transaction: str | None = None
    ) -> list[Written]:
        """Write many dedicated IPs. Each has its own outcome, in the given order.

        :param transaction: the id of the transaction that writes them, which the documents then
            name; by default each names that of its model
        """
        documents = [to_document(ip, self.archived, transaction) for ip in ips]
        if len(documents) == 1:  # cheaper for CouchDB than a bulk write
            return [self._pool.write(documents[0], w=self._quorum())]
        return self._pool.put_all(documents, w=self._quorum())

    def remove(self, ip: DedicatedIP) -> Written:
        """Delete a dedicated IP from the pool, at the revision that was read.

        The tombstone keeps the fields, so that it shows what was deleted.
        """
        document = to_document(ip, self.archived)
        return self._pool.put({**document, "_deleted": True}, w=self._quorum())

    # Conflicts and withdrawals on a cluster.

    @property
    def replicas(self) -> int:
        """The number of replicas of each document in the cluster; 1 on a single node."""
        return self._pool.replicas

    def _quorum(self) -> int | None:
        return self.replicas if self._all_copies else None

    def leaves(self, address: str) -> Leaves:
        """Return every leaf revision of an address, read from all replicas.

        :param address: the id of its document
        """
        return _leaves(self._pool.leaves(address, r=self.replicas))

    def branches(self, ids: Sequence[str]) -> dict[str, Branches]:
        """Return all revisions of several addresses that CouchDB still knows.

        They are read from a majority, by one request. A document that is no address has no leaves.
        """
        found = self._pool.leaves_of(ids)
        return {i: _branches(found.get(i, ())) for i in ids}

    def at_revision(self, address: str, revision: str) -> DedicatedIP | None:
        """Return an address as it was at an earlier revision.

        :returns: None if CouchDB does not have the revision any more, or if it is a tombstone
        """
        document = self._pool.revision(address, revision)
        if not is_ip(document) or document.get("_deleted"):
            return None
        return from_document(document)

    def deletion_at(self, address: str, revision: str) -> DedicatedIP | None:
        """Return an address as it was when an earlier revision deleted it.

        :returns: None if CouchDB does not have the revision any more, or if it is no deletion
        """
        document = self._pool.revision(address, revision) or {}
        is_deleted = document.get("_deleted") or document.get("pvt_deleted")
        if not is_deleted or {_WITHDRAWN, _DROPPED} & set(document):
            return None
        return from_document(document)

    def withdraw(self, written: DedicatedIP, before: DedicatedIP) -> Written:
        """Withdraw a write that has no quorum, by a tombstone on its revision.

        A live revision wins over a deleted one, so a writer with a quorum keeps the address. If
        no writer has a quorum, the address is restored from the tombstone, which carries the
        document as it was before the write.
        """
        return self._pool.put(_withdrawn(written, before))

    def withdraw_unseen(self, written: DedicatedIP, before: DedicatedIP) -> None:
        """Withdraw a write that only nodes have which do not answer now.

        The nodes that answer would refuse a tombstone on a revision that they do not have. So it
        is written as replication writes it, and replaces the revision on the other nodes later.

        :raises OutcomeUnknown: it is unknown whether the tombstone was written
        """
        self._graft_withdrawal(written, before)

    def _graft_withdrawal(self, written: DedicatedIP, before: DedicatedIP) -> Document:
        parent = written.revision or ""
        tombstone = {**_withdrawn(written, before), "_rev": _next_to(parent)}
        self._pool.graft(tombstone, parent=parent)
        return tombstone

    def drop(self, leaf: DedicatedIP, kept: DedicatedIP | None = None) -> Written:
        """Delete one of several live revisions.

        Fields of the tombstone say that the address itself was not deleted, and which events are
        not in effect any more.

        :param kept: the revision that stays; None if the latest event of the leaf alone is undone
        """
        return self._pool.put(_dropped(leaf, kept))

    def drop_all(
        self, leaves: Iterable[DedicatedIP], kept: DedicatedIP | None = None
    ) -> list[Written]:
        """Drop many revisions. Each has its own outcome, in the given order."""
        return self._pool.put_all([_dropped(leaf, kept) for leaf in leaves])

    def spread(self, withdrawal: Withdrawal) -> bool:
        """Replicate a tombstone to a majority of the nodes.

        :returns: whether a majority has it
        """
        leaves = self._pool.leaves(withdrawal.before.address, r=self.replicas, revs=True)
        tombstone = next((leaf for leaf in leaves if leaf["_rev"] == withdrawal.revision), None)
        if tombstone is None or not self._pool.replicate(tombstone):
            return False
        return self._pool.reaches_majority()

    def restore(self, withdrawal: Withdrawal) -> bool:
        """Restore an address whose writers have all withdrawn.

        The new revision is computed from the tombstone alone, so two workers that restore the
        address write the same revision.

        :returns: whether the document was written
        """
        tombstone = withdrawal.revision
        ip = replace(withdrawal.before.withdrawing(withdrawal.events), revision=tombstone)
        document = {**to_document(ip), "_rev": _next_to(tombstone)}
        return self._pool.graft(document, parent=tombstone)

    def withdraw_deletion(self, deletion: DedicatedIP, was: DedicatedIP) -> Withdrawal:
        """Withdraw a deletion that has no quorum, by a second tombstone that records this.

        CouchDB does not update a tombstone, so this computes the revision as `restore` does.

        :param deletion: the deletion, at the revision of its tombstone
        :param was: the dedicated IP before the deletion
        :raises OutcomeUnknown: it is unknown whether the second tombstone was written
        """
        return _withdrawal(self._graft_withdrawal(deletion, was))

    def changes(self, since: str, limit: int) -> tuple[str, list[str], list[DedicatedIP], bool]:
        """Read a page of the changes feed, with every address that was ever in the pool.

        :returns: the sequence at which the next page starts, the ids whose last revision is a
            withdrawal, the live dedicated IPs, and whether there may be more
        """
        feed = self._pool.changes(since=since, limit=limit, include_docs=True, conflicts=True)
        marks = {_WITHDRAWN, _DROPPED}  # if a document has several tombstones, the feed shows one
        withdrawn = [row["id"] for row in feed["results"] if marks & set(row["doc"])]
        documents = (row["doc"] for row in feed["results"] if not row.get("deleted"))
        live = [from_document(doc) for doc in documents if is_ip(doc)]
        return str(feed["last_seq"]), withdrawn, live, len(feed["results"]) == limit

    def changed(self, since: str, limit: int) -> tuple[str, list[Changed], bool]:
        """Read a page of the changes feed, for the change follower.

        :returns: the sequence at which the next page starts, the addresses that were written or
            deleted, and whether there may be more
        """
        feed = self._pool.changes(since=since, limit=limit, include_docs=True)
        documents = [row["doc"] for row in feed["results"]]
        changed = [_changed(doc) for doc in documents if doc.get("pvt_type") == TYPE]
        return str(feed["last_seq"]), changed, len(documents) == limit

    def history(self) -> str:
        """Return an identifier of the database, which changes if the database is created again."""
        return str(self._pool.info().get("instance_start_time", ""))

    def count(self) -> int:
        """Return the approximate number of documents in the pool."""
        return int(self._pool.info()["doc_count"])


def _leaves(leaves: Sequence[Document]) -> Leaves:
    dead = [leaf for leaf in leaves if leaf.get("_deleted")]
    live = sorted(
        (leaf for leaf in leaves if not leaf.get("_deleted") and is_ip(leaf)),
        # The order in which CouchDB chooses the winning revision.
        key=_precedence,
        reverse=True,
    )
    latest = max((leaf["_rev"] for leaf in leaves), key=generation, default=None)
    return Leaves(
        tuple(from_document(leaf) for leaf in live),
        tuple(_withdrawal(leaf) for leaf in dead if _WITHDRAWN in leaf),
        tuple(
            from_document(leaf) for leaf in dead if _WITHDRAWN not in leaf and _DROPPED not in leaf
        ),
        latest,
        tuple(event for leaf in dead for event in load_trail(leaf.get(_EVENTS))),
        tuple(from_document(leaf) for leaf in dead if _DROPPED in leaf and leaf.get(TRAIL)),
    )


def _branches(leaves: Sequence[Document]) -> Branches:
    live = [leaf for leaf in leaves if not leaf.get("_deleted")]
    winner = max(live or leaves, key=_precedence, default=None)
    if winner is None:
        return Branches(Leaves(()))
    start, digests = winner["_revisions"]["start"], winner["_revisions"]["ids"]
    revisions = {start - n: f"{start - n}-{digest}" for n, digest in enumerate(digests)}
    is_withdrawn = _WITHDRAWN in winner or _DROPPED in winner
    return Branches(_leaves(leaves), revisions, is_withdrawn)


def _precedence(leaf: Document) -> tuple[int, str]:
    return generation(leaf["_rev"]), leaf["_rev"]


def _withdrawn(written: DedicatedIP, before: DedicatedIP) -> Document:
    document = to_document(before)
    return {
        "_id": written.address,
        "_rev": written.revision,
        "_deleted": True,
        "pvt_type": TYPE,
        "pvt_request_id": written.request_id,
        _WITHDRAWN: {
            "base": before.revision,
            "events": dump_trail(trail.added(before.trail, written.trail)),
            "document": {k: v for k, v in document.items() if k[0] != "_"},
        },
    }


def _next_to(tombstone: str) -> str:
    """Return the revision after a tombstone, which is the same for every writer."""
    digest = hashlib.md5(tombstone.encode(), usedforsecurity=False).hexdigest()
    return f"{generation(tombstone) + 1}-{digest}"


def _dropped(leaf: DedicatedIP, kept: DedicatedIP | None) -> Document:
    last = trail.latest(leaf.trail)
    events = trail.lost(leaf.trail, kept.trail) if kept else (last,) if last else ()
    return {
        "_id": leaf.address,
        "_rev": leaf.revision,
        "_deleted": True,
        _DROPPED: True,
        _EVENTS: dump_trail(events),
        # An addition may be dropped that followed a deletion, whose tombstone it has replaced.
        TRAIL: dump_trail(tuple(event for event in leaf.trail if event not in events)),
    }


def _changed(document: Document) -> Changed:
    """Convert a row of the changes feed. A tombstone keeps the fields of the deleted document."""
    withdrawn = bool({_WITHDRAWN, _DROPPED} & set(document))
    return Changed(document["_id"], frozenset(from_document(document).accounts), withdrawn)


def _withdrawal(tombstone: Document) -> Withdrawal:
    mark = tombstone[_WITHDRAWN]
    document = {**mark["document"], "_id": tombstone["_id"], "_rev": mark["base"]}
    events = load_trail(mark.get("events"))
    return Withdrawal(tombstone["_rev"], mark["base"], from_document(document), events)
