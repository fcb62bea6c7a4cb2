"""The pool: dedicated IPs as Kazoo stores them, one by one or many at once.

A document's fields that are not ours survive every write, and nothing is written with a revision
other than the one read. Knows no HTTP and takes no decisions.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.errors import IPNotFound
from kazoo_ips.model import (
    Changed,
    DedicatedIP,
    Leaves,
    Withdrawal,
    Written,
    addresses,
    generation,
)
from kazoo_ips.repositories.documents import POOL, TYPE, from_document, is_ip, to_document
from kazoo_ips.repositories.lists import ListRepository

_WITHDRAWN = "pvt_withdrawn"
_DROPPED = "pvt_dropped"
_FEW = 16
"""IPv6 addresses that are asked for one by one; of more, all between the first and the last."""


class IPRepository:
    """The pool of dedicated IPs.

    :param lists: finds addresses that are spelled in another way
    :param all_copies: whether a write counts only once every node that should has it; otherwise
        CouchDB's own majority does
    """

    def __init__(self, couch: Couch, lists: ListRepository, all_copies: bool = False) -> None:
        self._pool = couch.database(POOL)
        self._lists = lists
        self._all_copies = all_copies

    # One address, or some.

    def get(self, address: str) -> DedicatedIP:
        """The dedicated IP of that address, however it was spelled when it was added.

        :param address: as the caller wrote it
        :raises IPNotFound: not in the pool, or not an address
        """
        canonical = addresses.canonical(address)
        if canonical is None:
            raise IPNotFound(address)
        if canonical == address:
            # Nearly always: one read of one document.
            document = self._pool.read(address)
            if is_ip(document):
                return from_document(document)
        found = self.find([address])
        if address not in found:
            raise IPNotFound(address)
        return found[address]

    def find(self, wanted: Sequence[str]) -> dict[str, DedicatedIP]:
        """Those of these addresses that the pool has, by the spelling asked for."""
        return self.look_up(wanted)[0]

    def look_up(self, wanted: Sequence[str]) -> tuple[dict[str, DedicatedIP], set[str]]:
        """Those of these addresses that the pool has, and those that it had once.

        The id as written comes first, then the canonical one, then any other spelling that Kazoo
        may have let somebody use for the same IPv6 address.
        """
        spellings = {a: addresses.canonical(a) for a in wanted}
        known = {a: c for a, c in spellings.items() if c}
        documents, gone = self._pool.look_up({*known, *known.values()})
        found = {}
        for address, canonical in known.items():
            document = documents.get(address) or documents.get(canonical)
            if is_ip(document):
                found[address] = from_document(document)
        missing = {a: c for a, c in known.items() if a not in found and ":" in c}
        found |= self._find_respelled(missing) if missing else {}
        return found, {a for a, c in known.items() if a not in found and c in gone}

    def _find_respelled(self, missing: Mapping[str, str]) -> dict[str, DedicatedIP]:
        wanted = {canonical: address for address, canonical in missing.items()}
        if len(wanted) > _FEW:
            ends = sorted(wanted, key=addresses.sort_key)
            spelled = self._lists.respelled(ends[0], ends[-1])
        else:
            spelled = self._lists.spelled(wanted)
        there = self.by_id([i for canonical, i in spelled.items() if canonical in wanted])[0]
        return {wanted[c]: there[i] for c, i in spelled.items() if c in wanted and i in there}

    def by_id(self, ids: Iterable[str]) -> tuple[dict[str, DedicatedIP], dict[str, DedicatedIP]]:
        """Those that the pool has under these very ids, and what those were that it had once."""
        documents, gone = self._pool.look_up(ids)
        there = {i: from_document(d) for i, d in documents.items() if is_ip(d)}
        return there, {i: from_document(d) for i, d in gone.items()}

    # Writes: each says what became of it.

    def expect_save(self) -> None:
        """Say that this thread is going to save one before long."""
        self._pool.expect_write()

    def save(self, ip: DedicatedIP) -> Written:
        """Write one dedicated IP at the revision it was read at, or a new one."""
        return self._pool.write(to_document(ip), w=self._quorum())

    def save_all(self, ips: Sequence[DedicatedIP]) -> list[Written]:
        """Write many, each with its own outcome, in the order given."""
        if len(ips) == 1:  # cheaper for CouchDB than many of one
            return [self.save(ips[0])]
        return self._pool.put_all([to_document(ip) for ip in ips], w=self._quorum())

    def remove(self, ip: DedicatedIP) -> Written:
        """Take a dedicated IP out of the pool, at the revision it was read at.

        The tombstone keeps its fields, which tell what was removed.
        """
        return self._pool.put({**to_document(ip), "_deleted": True}, w=self._quorum())

    # What a cluster leaves behind.

    @property
    def replicas(self) -> int:
        """On how many nodes CouchDB keeps each document; 1 where there is no cluster."""
        return self._pool.replicas

    def _quorum(self) -> int | None:
        return self.replicas if self._all_copies else None

    def leaves(self, address: str) -> Leaves:
        """Every current revision of an address, asked of all copies.

        :param address: the id it has
        """
        leaves = self._pool.leaves(address, r=self.replicas)
        dead = [leaf for leaf in leaves if leaf.get("_deleted")]
        live = sorted(
            (leaf for leaf in leaves if not leaf.get("_deleted") and is_ip(leaf)),
            # CouchDB's own choice of whom everybody sees.
            key=lambda leaf: (generation(leaf["_rev"]), leaf["_rev"]),
            reverse=True,
        )
        return Leaves(
            tuple(from_document(leaf) for leaf in live),
            tuple(_withdrawal(leaf) for leaf in dead if _WITHDRAWN in leaf),
            tuple(
                from_document(leaf)
                for leaf in dead
                if _WITHDRAWN not in leaf and _DROPPED not in leaf
            ),
        )

    def withdraw(self, claim: DedicatedIP, before: DedicatedIP) -> Written:
        """Take back a claim that has no quorum: a tombstone on its own revision.

        A live revision beats a deleted one, so whoever did get the quorum has the address. The
        tombstone carries what the address was before, in case nobody did.
        """
        return self._pool.put(_withdrawn(claim, before))

    def drop(self, leaf: DedicatedIP) -> Written:
        """Delete one of several live revisions, marked: the address itself was not deleted."""
        return self._pool.put(_dropped(leaf))

    def drop_all(self, leaves: Iterable[DedicatedIP]) -> list[Written]:
        """Drop many, each with its own outcome, in the order given."""
        return self._pool.put_all([_dropped(leaf) for leaf in leaves])

    def spread(self, withdrawal: Withdrawal) -> bool:
        """Make a tombstone known to a majority of the nodes; whether it is."""
        leaves = self._pool.leaves(withdrawal.before.address, r=self.replicas, revs=True)
        tombstone = next((leaf for leaf in leaves if leaf["_rev"] == withdrawal.revision), None)
        if tombstone is None or not self._pool.replicate(tombstone):
            return False
        return self._pool.reaches_majority()

    def restore(self, withdrawal: Withdrawal) -> bool:
        """Bring an address back that everybody withdrew from; whether that was written.

        The revision depends on nothing but the tombstone: two who do this write the same one.
        """
        tombstone = withdrawal.revision
        document = {**to_document(withdrawal.before), "_rev": _next_to(tombstone)}
        return self._pool.graft(document, parent=tombstone)

    def withdraw_deletion(self, deletion: str, was: DedicatedIP) -> Withdrawal:
        """Mark a deletion that has no quorum as one that never was.

        CouchDB makes no new revision on a tombstone, so it is written as `restore` does it.

        :param deletion: the revision of its tombstone
        :param was: the dedicated IP as it was before
        :raises OutcomeUnknown: nobody says whether it is marked
        """
        claim = replace(was, revision=deletion)
        tombstone = {**_withdrawn(claim, was), "_rev": _next_to(deletion)}
        self._pool.graft(tombstone, parent=deletion)
        return _withdrawal(tombstone)

    def changes(self, since: str, limit: int) -> tuple[str, list[str], list[DedicatedIP], bool]:
        """A part of the pool's history, for whoever must see every address that ever was.

        :returns: where the next part starts, the ids whose last revision is a withdrawal, the
            live dedicated IPs, and whether there may be more
        """
        feed = self._pool.changes(since=since, limit=limit, include_docs=True, conflicts=True)
        marks = {_WITHDRAWN, _DROPPED}  # CouchDB shows one of several tombstones
        withdrawn = [row["id"] for row in feed["results"] if marks & set(row["doc"])]
        documents = (row["doc"] for row in feed["results"] if not row.get("deleted"))
        there = [from_document(doc) for doc in documents if is_ip(doc)]
        return str(feed["last_seq"]), withdrawn, there, len(feed["results"]) == limit

    def changed(self, since: str, limit: int) -> tuple[str, list[Changed], bool]:
        """A part of the pool's history, for whoever follows what is written.

        :returns: where the next part starts, the addresses that were written or deleted, and
            whether there may be more
        """
        feed = self._pool.changes(since=since, limit=limit, include_docs=True)
        documents = [row["doc"] for row in feed["results"]]
        changed = [_changed(doc) for doc in documents if doc.get("pvt_type") == TYPE]
        return str(feed["last_seq"]), changed, len(documents) == limit

    def history(self) -> str:
        """Names the pool's history: another one when the database was made anew."""
        return str(self._pool.info().get("instance_start_time", ""))

    def count(self) -> int:
        """How many documents the pool has, more or less."""
        return int(self._pool.info()["doc_count"])


def _withdrawn(claim: DedicatedIP, before: DedicatedIP) -> Document:
    document = to_document(before)
    return {
        "_id": claim.address,
        "_rev": claim.revision,
        "_deleted": True,
        "pvt_type": TYPE,
        "pvt_request_id": claim.request_id,
        _WITHDRAWN: {
            "base": before.revision,
            "document": {k: v for k, v in document.items() if k[0] != "_"},
        },
    }


def _next_to(tombstone: str) -> str:
    """The revision that follows a tombstone, whoever writes it."""
    digest = hashlib.md5(tombstone.encode(), usedforsecurity=False).hexdigest()
    return f"{generation(tombstone) + 1}-{digest}"


def _dropped(leaf: DedicatedIP) -> Document:
    return {"_id": leaf.address, "_rev": leaf.revision, "_deleted": True, _DROPPED: True}


def _changed(document: Document) -> Changed:
    """What a row of the history tells; a tombstone keeps what it was the end of."""
    withdrawn = bool({_WITHDRAWN, _DROPPED} & set(document))
    return Changed(document["_id"], frozenset(from_document(document).accounts), withdrawn)


def _withdrawal(tombstone: Document) -> Withdrawal:
    mark = tombstone[_WITHDRAWN]
    document = {**mark["document"], "_id": tombstone["_id"], "_rev": mark["base"]}
    return Withdrawal(tombstone["_rev"], mark["base"], from_document(document))
