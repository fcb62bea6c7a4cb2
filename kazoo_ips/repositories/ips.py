"""Dedicated IPs as Kazoo stores them: the pool, and the copies in the accounts' databases.

The one place that sees these documents (`core/kazoo_ips/src/kz_ip.erl` is where their fields come
from). A document's fields that are not ours survive every write, and nothing is written with a
revision other than the one read. Knows no HTTP and takes no decisions.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from kazoo_ips import addresses
from kazoo_ips.couch.client import Couch, Database, Document, Key, Row
from kazoo_ips.errors import IPNotFound
from kazoo_ips.model import (
    DedicatedIP,
    Leaves,
    Listing,
    ListIPs,
    Outcome,
    Status,
    Withdrawal,
    Written,
    generation,
)
from kazoo_ips.repositories.accounts import account_database

POOL = "dedicated_ips"
_TYPE = "dedicated_ip"
_WITHDRAWN = "pvt_withdrawn"
_DROPPED = "pvt_dropped"
_FEW = 16
"""IPv6 addresses that are asked for one by one; of more, all between the first and the last."""

_NAMES_KEPT = 2.0
"""Seconds."""

_ATTEMPTS = 3
"""Times that a copy is written over one that is there: only its own account's requests race."""
_CHUNK = 5000
"""Rows of a view read at a time where all are wanted."""


class IPRepository:
    """The pool of dedicated IPs and their copies.

    :param all_copies: whether a write counts only once every node that should has it; otherwise
        CouchDB's own majority does
    """

    def __init__(self, couch: Couch, all_copies: bool = False) -> None:
        self._couch = couch
        self._pool = couch.database(POOL)
        self._all_copies = all_copies
        self._known_names: dict[str, tuple[object, list[str], float]] = {}

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
            document = self._pool.find(address, conflicts=True)
            if _is_ip(document):
                return _from_document(document)
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
            if _is_ip(document):
                found[address] = _from_document(document)
        missing = {a: c for a, c in known.items() if a not in found and ":" in c}
        found |= self._find_respelled(missing) if missing else {}
        return found, {a for a, c in known.items() if a not in found and c in gone}

    def _find_respelled(self, missing: Mapping[str, str]) -> dict[str, DedicatedIP]:
        wanted = {canonical: address for address, canonical in missing.items()}
        if len(wanted) > _FEW:
            ends = sorted(wanted, key=addresses.sort_key)
            spelled = self.respelled(ends[0], ends[-1])
        else:
            spelled = self._spelled(wanted)
        there = self.by_id([i for canonical, i in spelled.items() if canonical in wanted])[0]
        return {wanted[c]: there[i] for c, i in spelled.items() if c in wanted and i in there}

    def _spelled(self, canonical: Iterable[str]) -> dict[str, str]:
        """The ids that the pool has these addresses under, by address."""
        order = {addresses.sort_key(address): address for address in canonical}
        keys = [[status, zone, key] for status in Status for zone in self.zones() for key in order]
        rows = self._pool.rows("ips/by_zone", keys=keys, reduce=False) if keys else []
        return {order[row.key[2]]: row.id for row in rows}

    def by_id(self, ids: Iterable[str]) -> tuple[dict[str, DedicatedIP], set[str]]:
        """Those that the pool has under these very ids, and the ids that it had once."""
        documents, gone = self._pool.look_up(ids)
        return {i: _from_document(d) for i, d in documents.items() if _is_ip(d)}, gone

    def respelled(self, first: str | None = None, last: str | None = None) -> dict[str, str]:
        """The ids of IPv6 addresses that are not canonical, by the canonical address.

        They are Kazoo's, who takes any spelling. For many addresses this is much cheaper than to
        ask for each.

        :param first: the canonical address to start at
        :param last: the canonical address to end at
        """
        start = addresses.sort_key(first) if first else "6"
        end = addresses.sort_key(last) if last else {}
        ids = (
            row.id
            for status in Status
            for zone in self.zones()
            for row in self._walk([status, zone, start], [status, zone, end])
        )
        spelled = ((addresses.canonical(i), i) for i in ids)
        return {canonical: i for canonical, i in spelled if canonical and canonical != i}

    def _walk(self, start: Key, end: Key) -> Iterable[Row]:
        last_id = None
        while True:
            rows = self._pool.rows(
                "ips/by_zone", startkey=start, startkey_docid=last_id, endkey=end, limit=_CHUNK,
                skip=1 if last_id else None, reduce=False,
            )  # fmt: skip
            yield from rows
            if len(rows) < _CHUNK:
                return
            start, last_id = rows[-1].key, rows[-1].id

    # Writes: each says what became of it.

    def save(self, ip: DedicatedIP) -> Written:
        """Write one dedicated IP at the revision it was read at, or a new one."""
        return self._pool.put(_to_document(ip), w=self._quorum())

    def save_all(self, ips: Sequence[DedicatedIP]) -> list[Written]:
        """Write many, each with its own outcome, in the order given."""
        if len(ips) == 1:  # cheaper for CouchDB than many of one
            return [self.save(ips[0])]
        return self._pool.put_all([_to_document(ip) for ip in ips], w=self._quorum())

    def remove(self, ip: DedicatedIP) -> Written:
        """Take a dedicated IP out of the pool, at the revision it was read at.

        The tombstone keeps its fields, so that `find_removed` can tell what was removed.
        """
        return self._pool.put({**_to_document(ip), "_deleted": True}, w=self._quorum())

    def find_removed(self, address: str, request_id: str) -> DedicatedIP | None:
        """The dedicated IP that this very request took out of the pool, or None."""
        for leaf in self._pool.leaves(address):
            if leaf.get("_deleted") and _is_ip(leaf) and leaf.get("pvt_request_id") == request_id:
                return None if _WITHDRAWN in leaf else _from_document(leaf)
        return None

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
            (leaf for leaf in leaves if not leaf.get("_deleted") and _is_ip(leaf)),
            # CouchDB's own choice of whom everybody sees.
            key=lambda leaf: (generation(leaf["_rev"]), leaf["_rev"]),
            reverse=True,
        )
        return Leaves(
            tuple(_from_document(leaf) for leaf in live),
            tuple(_withdrawal(leaf) for leaf in dead if _WITHDRAWN in leaf),
            tuple(
                leaf["_rev"] for leaf in dead if _WITHDRAWN not in leaf and _DROPPED not in leaf
            ),
        )

    def withdraw(self, claim: DedicatedIP, before: DedicatedIP) -> Written:
        """Take back a claim that has no quorum: a tombstone on its own revision.

        A live revision beats a deleted one, so whoever did get the quorum has the address. The
        tombstone carries what the address was before, in case nobody did.
        """
        document = _to_document(before)
        tombstone = {
            "_id": claim.address,
            "_rev": claim.revision,
            "_deleted": True,
            "pvt_type": _TYPE,
            "pvt_request_id": claim.request_id,
            _WITHDRAWN: {
                "base": before.revision,
                "document": {k: v for k, v in document.items() if k[0] != "_"},
            },
        }
        return self._pool.put(tombstone)

    def drop(self, leaf: DedicatedIP) -> Written:
        """Delete one of several live revisions, marked: the address itself was not deleted."""
        return self._pool.put(_dropped(leaf))

    def drop_all(self, leaves: Iterable[DedicatedIP]) -> list[Written]:
        """Drop many, each with its own outcome, in the order given."""
        return _put(self._pool, map(_dropped, leaves))

    def restore(self, withdrawal: Withdrawal) -> None:
        """Bring an address back that everybody withdrew from.

        The revision depends on nothing but the tombstone: two who do this write the same one.
        """
        tombstone = withdrawal.revision
        digest = hashlib.md5(tombstone.encode(), usedforsecurity=False).hexdigest()
        revision = f"{generation(tombstone) + 1}-{digest}"
        document = {**_to_document(withdrawal.before), "_rev": revision}
        self._pool.graft(document, parent=tombstone)

    def changes(self, since: str, limit: int) -> tuple[str, list[str], list[DedicatedIP], bool]:
        """A part of the pool's history, for whoever must see every address that ever was.

        :returns: where the next part starts, the ids whose last revision is a withdrawal, the
            live dedicated IPs, and whether there may be more
        """
        feed = self._pool.changes(since=since, limit=limit, include_docs=True, conflicts=True)
        marks = {_WITHDRAWN, _DROPPED}  # CouchDB shows one of several tombstones
        withdrawn = [row["id"] for row in feed["results"] if marks & set(row["doc"])]
        documents = (row["doc"] for row in feed["results"] if not row.get("deleted"))
        there = [_from_document(doc) for doc in documents if _is_ip(doc)]
        return str(feed["last_seq"]), withdrawn, there, len(feed["results"]) == limit

    def count(self) -> int:
        """How many documents the pool has, more or less."""
        return int(self._pool.info()["doc_count"])

    # The copies, which Kazoo's billing counts.

    def save_copies(self, ips: Sequence[DedicatedIP]) -> list[Written]:
        """Write the accounts' copies of these assigned dedicated IPs.

        A copy is the pool's document at a revision of its own. Written blindly first, since most
        are new; what is there already is read and written over.
        """
        outcomes: dict[str, Written] = {}
        for database, batch in self._by_account(ips):
            for ip, written in zip(batch, _put(database, map(_to_copy, batch)), strict=True):
                outcomes[ip.address] = written
            for _ in range(_ATTEMPTS):
                stale = [ip for ip in batch if outcomes[ip.address].outcome is Outcome.REFUSED]
                there = database.get_all([ip.address for ip in stale]) if stale else {}
                again = [_to_copy(ip, there.get(ip.address)) for ip in stale]
                for ip, written in zip(stale, _put(database, again), strict=True):
                    outcomes[ip.address] = written
        return [outcomes[ip.address] for ip in ips]

    def drop_copies(self, account_id: str, copies: Iterable[DedicatedIP]) -> list[Written]:
        """Delete these copies as they were read: one written since then stays."""
        database = self._couch.database(account_database(account_id))
        return _put(database, [_tombstone(copy.source) for copy in copies])

    def copies(self, account_id: str, of: Iterable[str]) -> dict[str, DedicatedIP]:
        """An account's copies of these addresses, by address.

        :raises DatastoreMissing: the account has no database
        """
        database = self._couch.database(account_database(account_id))
        documents = database.get_all(of)
        return {a: _from_document(d) for a, d in documents.items() if _is_ip(d)}

    def list_copies(self, account_id: str) -> list[DedicatedIP]:
        """All copies that an account has.

        :raises DatastoreMissing: the account has no database
        """
        database = self._couch.database(account_database(account_id))
        documents = database.select({"pvt_type": _TYPE}, limit=1_000_000)
        return [_from_document(document) for document in documents if _is_ip(document)]

    def _by_account(
        self, ips: Sequence[DedicatedIP]
    ) -> Iterable[tuple[Database, list[DedicatedIP]]]:
        batches: dict[str, list[DedicatedIP]] = {}
        for ip in ips:
            batches.setdefault(ip.assigned_to or "", []).append(ip)
        for account_id, batch in batches.items():
            yield self._couch.database(account_database(account_id)), batch

    # Lists: one function a question, its key ranges spelled here and nowhere else.

    def available(self, page: ListIPs, skip: int | None = None) -> list[Listing]:
        """Available addresses by zone and address, of a zone or host if asked."""
        if page.host:
            return self._listings("by_host", [page.host, "available"], page, skip)
        return self._listings("by_zone", ["available"], page, skip)

    def assigned(self, page: ListIPs) -> list[Listing]:
        """What all accounts have, by zone and address, of a zone or host if asked."""
        if page.host:
            return self._listings("by_host", [page.host, "assigned"], page)
        return self._listings("by_zone", ["assigned"], page)

    def assigned_to(self, account_id: str, page: ListIPs) -> list[Listing]:
        """What one account has, by zone and address, of a zone or host if asked."""
        if not page.host:
            return self._listings("by_assignee", [account_id], page)
        # An account's own are few enough to be looked through.
        own = self._listings("by_assignee", [account_id], replace(page, limit=None))
        return [listing for listing in own if listing.host == page.host][: page.limit]

    def by_host(self, host: str | None) -> list[tuple[Listing, Status]]:
        """The whole pool or one host's part of it, by host: for the summary."""
        prefix = [host] if host else []
        rows = self._pool.rows("ips/by_host", startkey=prefix, endkey=[*prefix, {}], reduce=False)
        return [(_listing("by_host", row), _status(row.key[1])) for row in rows]

    def available_window(
        self, zone: str | None, host: str | None, skip: int, limit: int
    ) -> list[Listing]:
        """Some available addresses: `limit` of them behind the first `skip`."""
        return self.available(ListIPs(zone, host, limit), skip=skip)

    def hosts_available(self, zone: str | None) -> list[str]:
        """The hosts that have available addresses, in a zone or at all."""
        keys = [row.key for row in self._pool.rows("ips/by_host", group_level=3)]
        return sorted({h for h, status, z in keys if status == "available" and zone in (None, z)})

    def zones_available(self) -> list[str]:
        """The zones that have available addresses."""
        rows = self._pool.rows(
            "ips/by_zone", startkey=["available"], endkey=["available", {}], group_level=2
        )
        return [row.key[1] for row in rows]

    def count_available(self, zone: str | None, host: str | None) -> int:
        """How many addresses are available, in a zone or on a host or at all."""
        view = "ips/by_host" if host else "ips/by_zone"
        prefix: Key = [host, "available"] if host else ["available"]
        prefix = [*prefix, zone] if zone else prefix
        rows = self._pool.rows(view, startkey=prefix, endkey=[*prefix, {}], reduce=True)
        return int(rows[0].value) if rows else 0

    def counts(self) -> dict[tuple[str, str], int]:
        """How many addresses the pool has, by zone and status."""
        rows = self._pool.rows("ips/by_zone", group_level=2)
        return {(str(row.key[1] or ""), str(row.key[0] or "")): int(row.value) for row in rows}

    def zones(self) -> list[str]:
        """The names of the zones in use, over the whole pool."""
        return self._names("ips/by_zone", 1)

    def hosts(self) -> list[str]:
        """The names of the hosts in use, over the whole pool."""
        return self._names("ips/by_host", 0)

    def _names(self, view: str, part: int) -> list[str]:
        """The different names in one part of a view's keys.

        CouchDB takes half a millisecond to find each, so they are kept for as long as it says that
        nothing was written since; and no longer than `_NAMES_KEPT`, as on a cluster the index they
        were read from may have been behind.
        """
        sequence = self._pool.info()["update_seq"]
        known, names, until = self._known_names.get(view, (None, [], 0.0))
        if known != sequence or until < time.monotonic():
            rows = self._pool.rows(view, group_level=part + 1)
            names = sorted({row.key[part] for row in rows if isinstance(row.key[part], str)})
            until = time.monotonic() + _NAMES_KEPT
            self._known_names[view] = (sequence, names, until)
        return names

    def _listings(
        self, view: str, prefix: Key, page: ListIPs, skip: int | None = None
    ) -> list[Listing]:
        if page.zone:
            prefix = [*prefix, page.zone]
        start, last_id = prefix, None
        if page.after:
            zone, order, last_id = page.after
            start = [*prefix, order] if page.zone else [*prefix, zone or None, order]
        rows = self._pool.rows(
            f"ips/{view}",
            startkey=start,
            startkey_docid=last_id,
            endkey=[*prefix, {}],
            # The row where the last page ended comes again and is left out.
            limit=page.limit + bool(last_id) if page.limit is not None else None,
            skip=skip,
            reduce=False,
        )
        if last_id and rows and rows[0].id == last_id:
            rows = rows[1:]
        return [_listing(view, row) for row in rows[: page.limit]]


def _put(database: Database, documents: Iterable[Mapping[str, Any]]) -> list[Written]:
    """One document by itself, several together: the former is cheaper for CouchDB."""
    batch = list(documents)
    return [database.put(batch[0])] if len(batch) == 1 else database.put_all(batch)


def _tombstone(document: Mapping[str, Any]) -> Document:
    return {"_id": document["_id"], "_rev": document["_rev"], "_deleted": True}


def _dropped(leaf: DedicatedIP) -> Document:
    return {"_id": leaf.address, "_rev": leaf.revision, "_deleted": True, _DROPPED: True}


def _is_ip(document: Document | None) -> TypeGuard[Document]:
    return bool(document and document.get("pvt_type") == _TYPE and not document.get("pvt_deleted"))


def _status(value: object) -> Status:
    # Whatever a hand wrote there that is not "available" is nothing to give away.
    return Status.AVAILABLE if value == Status.AVAILABLE else Status.ASSIGNED


def _from_document(document: Document) -> DedicatedIP:
    return DedicatedIP(
        address=document["_id"],
        zone=document.get("pvt_zone") or "",
        host=document.get("pvt_host") or "",
        status=_status(document.get("pvt_status")),
        assigned_to=document.get("pvt_assigned_to"),
        created=document.get("pvt_created", 0),
        modified=document.get("pvt_modified", 0),
        request_id=document.get("pvt_request_id"),
        revision=document["_rev"],
        conflicted="_conflicts" in document,
        source=document,
    )


def _withdrawal(tombstone: Document) -> Withdrawal:
    mark = tombstone[_WITHDRAWN]
    document = {**mark["document"], "_id": tombstone["_id"], "_rev": mark["base"]}
    return Withdrawal(tombstone["_rev"], mark["base"], _from_document(document))


def _to_document(ip: DedicatedIP) -> Document:
    document = {
        **{k: v for k, v in ip.source.items() if k != "_conflicts"},
        "_id": ip.address,
        "pvt_vsn": ip.source.get("pvt_vsn", "1"),
        "pvt_type": _TYPE,
        "pvt_status": ip.status.value,
        "pvt_zone": ip.zone,
        "pvt_host": ip.host,
        "pvt_created": ip.created,
        "pvt_modified": ip.modified,
        "pvt_assigned_to": ip.assigned_to,
        "pvt_request_id": ip.request_id,
        "_rev": ip.revision,
    }
    optional = ("pvt_assigned_to", "pvt_request_id", "_rev")
    return {k: v for k, v in document.items() if v is not None or k not in optional}


def _to_copy(ip: DedicatedIP, there: Document | None = None) -> Document:
    document = _to_document(ip)
    document.pop("_attachments", None)  # only named in what was read, and nobody's concern
    document.pop("_rev", None)
    return {**document, "_rev": there["_rev"]} if there else document


def _listing(view: str, row: Row) -> Listing:
    """One line from one row; each view keeps its part of it in key and value."""
    key, value = row.key, row.value
    if view == "by_zone":
        return Listing(row.id, key[1] or "", value[0] or "", value[1] if value[1:] else None)
    if view == "by_host":
        return Listing(row.id, key[2] or "", key[0] or "", value)
    return Listing(row.id, key[1] or "", value or "", key[0])
