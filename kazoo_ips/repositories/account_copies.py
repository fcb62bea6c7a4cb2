"""The accounts' copies of their dedicated IPs, which Kazoo's billing counts.

A copy has the content of the pool document, is in the account's database, and has a revision of
its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kazoo_ips.couch.client import Couch, Database, Document
from kazoo_ips.errors import DatastoreMissing, DatastoreMissingView
from kazoo_ips.model import DedicatedIP, Outcome, Written
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.documents import (
    TYPE,
    from_document,
    is_ip,
    to_copy,
)

_ATTEMPTS = 3
"""Attempts to overwrite an existing copy. Only requests of the same account compete for it."""

_COPIES = {
    "pvt_type": TYPE,
    "$or": [{"pvt_deleted": {"$exists": False}}, {"pvt_deleted": {"$ne": True}}],
}
"""A Mango selector. In CouchDB, `$ne` does not match a document without the field."""
_BY_TYPE = "maintenance/listing_by_type"
"""Kazoo's view of an account's database: the key is a document's type, the value its name."""


class AccountCopyRepository:
    """Reads and writes the copies of dedicated IPs."""

    def __init__(self, couch: Couch) -> None:
        self._couch = couch

    def expect_change(self, account_id: str) -> None:
        """Announce that this thread will soon save or drop a copy in the account's database."""
        self._couch.database(account_database(account_id)).expect_write()

    def save(self, ips: Sequence[DedicatedIP]) -> list[Written]:
        """Write the accounts' copies of these assigned dedicated IPs.

        Most copies are new, so the first write carries no revision. Copies that exist already
        are then read and overwritten.
        """
        outcomes: dict[str, Written] = {}
        for database, batch in self._by_account(ips):
            for ip, written in zip(batch, _put(database, map(to_copy, batch)), strict=True):
                outcomes[ip.address] = written
            for _ in range(_ATTEMPTS):
                stale = [ip for ip in batch if outcomes[ip.address].outcome is Outcome.REFUSED]
                if not stale:
                    break
                existing = database.get_all([ip.address for ip in stale])
                again = [_to_copy(ip, existing.get(ip.address)) for ip in stale]
                for ip, written in zip(stale, _put(database, again), strict=True):
                    outcomes[ip.address] = written
        return [outcomes[ip.address] for ip in ips]

    def overwrite(self, account_id: str, ips: Sequence[DedicatedIP]) -> list[Written]:
        """Write an account's copies of these dedicated IPs, most of which exist already.

        :raises DatastoreMissing: the account has no database
        """
        database = self._couch.database(account_database(account_id))
        existing = database.get_all([ip.address for ip in ips])
        return _put(database, [_to_copy(ip, existing.get(ip.address)) for ip in ips])

    def drop(
        self,
        account_id: str,
        copies: Iterable[DedicatedIP],
        release: DedicatedIP | None = None,
    ) -> list[Written]:
        """Delete these copies at the revisions that were read. A copy written since then stays.

        :param release: the released address, if a majority has the release. The tombstone records
            the release for `releases`
        """
        database = self._couch.database(account_database(account_id))
        fields = (
            {"pvt_request_id": release.request_id, "pvt_modified": release.modified}
            if release
            else {}
        )
        return _put(database, [{**_tombstone(copy.source), **fields} for copy in copies])

    def releases(self, account_id: str, address: str) -> set[tuple[str, int]]:
        """Return the acknowledged releases of an address that removed the account's copy.

        :returns: the request id and the time of each, in Gregorian seconds
        """
        try:
            leaves = self._couch.database(account_database(account_id)).leaves(address)
        except DatastoreMissing:
            return set()
        tombstones = [leaf for leaf in leaves if leaf.get("_deleted")]
        return {
            (str(each["pvt_request_id"]), each["pvt_modified"])
            for each in tombstones
            if "pvt_request_id" in each
        }

    def drop_conflicts(self, account_id: str, copies: Iterable[DedicatedIP]) -> None:
        """Delete the conflicting revisions of these copies. The revisions that were read stay."""
        database = self._couch.database(account_database(account_id))
        for copy in copies:
            for revision in copy.source.get("_conflicts", ()):
                database.remove(copy.address, revision)

    def find(self, account_id: str, of: Iterable[str]) -> dict[str, DedicatedIP]:
        """Return an account's copies of these addresses, by address.

        :raises DatastoreMissing: the account has no database
        """
        database = self._couch.database(account_database(account_id))
        documents = database.get_all(of)
        return {a: from_document(d) for a, d in documents.items() if is_ip(d)}

    def of_account(self, account_id: str) -> list[DedicatedIP]:
        """Return all copies of an account.

        :raises DatastoreMissing: the account has no database
        """
        database = self._couch.database(account_database(account_id))
        documents = database.select({"pvt_type": TYPE}, limit=1_000_000)
        return [from_document(document) for document in documents if is_ip(document)]

    def addresses(self, account_id: str, limit: int = 1_000_000) -> list[str]:
        """Return the addresses of an account's copies.

        Reads the view that Kazoo installs in every account's database. In a database with 10,000
        other documents that takes 3 ms; a scan of the database takes most of a second. On a
        cluster the view may lag.

        :param limit: the maximum number of addresses

        :raises DatastoreMissing: the account has no database
        """
        database = self._couch.database(account_database(account_id))
        try:
            rows = database.rows(_BY_TYPE, key=TYPE, limit=limit)
        except DatastoreMissingView:  # the database was not created by Kazoo
            return [d["_id"] for d in database.select(_COPIES, limit, fields=["_id"])]
        return [row.id for row in rows]

    def _by_account(
        self, ips: Sequence[DedicatedIP]
    ) -> Iterable[tuple[Database, list[DedicatedIP]]]:
        batches: dict[str, list[DedicatedIP]] = {}
        for ip in ips:
            batches.setdefault(ip.assigned_to or "", []).append(ip)
        for account_id, batch in batches.items():
            yield self._couch.database(account_database(account_id)), batch


def _put(database: Database, documents: Iterable[Document]) -> list[Written]:
    """Write one document with `write`, which may join a batch, and several in one request."""
    batch = list(documents)
    return [database.write(batch[0])] if len(batch) == 1 else database.put_all(batch)


def _tombstone(document: Mapping[str, Any]) -> Document:
    return {"_id": document["_id"], "_rev": document["_rev"], "_deleted": True}


def _to_copy(ip: DedicatedIP, existing: Document | None = None) -> Document:
    document = to_copy(ip)
    return {**document, "_rev": existing["_rev"]} if existing else document
