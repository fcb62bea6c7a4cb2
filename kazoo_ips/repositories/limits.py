"""The limits of accounts, in the service's own database.

Each account with limits has a ledger. One more document, the index, lists the accounts that have
limits, so that every process knows them by one read. A ledger in conflict is read as the union of
its revisions: it names each address that one of them names, so none is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import generation
from kazoo_ips.model.limits import Ledger, Limits
from kazoo_ips.repositories.records import Records

INDEX = "limits"
_PREFIX = "limit-"
_TRIES = 20


@dataclass(frozen=True, slots=True)
class LimitIndex:
    """The accounts that have limits.

    :param own: those with a limit of their own addresses
    :param descendants: those with a limit that the accounts below them share
    """

    own: frozenset[str] = frozenset()
    descendants: frozenset[str] = frozenset()


class LimitRepository:
    """Reads and writes ledgers and the index."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def index(self) -> LimitIndex:
        """Return the accounts that have limits, as a majority of the nodes knows them."""
        return _index(self._live(INDEX))

    def list_account(self, account_id: str, limits: Limits) -> None:
        """Make the index list an account for the limits that it has, and for no other.

        :raises DatastoreUnreachable: it is unknown whether the index was written
        """
        for _ in range(_TRIES):
            live = self._live(INDEX)
            known = _index(live)
            new = LimitIndex(
                _with(known.own, account_id, limits.has_own),
                _with(known.descendants, account_id, limits.descendants_max is not None),
            )
            if new == known and len(live) <= 1:
                return
            if self._put(_index_document(new), live):
                return
        raise DatastoreUnreachable("the index of limits changes all the time")

    def find(self, account_id: str) -> Ledger | None:
        """Return the ledger of an account; None if it has none."""
        live = self._live(_PREFIX + account_id)
        return _merged([_ledger(leaf) for leaf in live]) if live else None

    def all(self) -> Iterator[Ledger]:
        """Return all ledgers. On a cluster the list may lag; `find` does not lag."""
        for document in self._records.range(_PREFIX):
            ledger = self.find(document["_id"].removeprefix(_PREFIX))
            if ledger:
                yield ledger

    def put(self, ledger: Ledger) -> Ledger | None:
        """Write a ledger at the revision it carries (compare-and-swap).

        :returns: the ledger at its new revision; None if another writer has changed it
        :raises DatastoreUnreachable: it is unknown whether the ledger was written
        """
        written = replace(ledger, writes=ledger.writes + 1)
        document = self._records.put(_document(written))
        if document is None:
            return None
        self._records.drop([_reference(ledger, revision) for revision in ledger.losing_revisions])
        return replace(written, revision=document["_rev"], losing_revisions=())

    def _live(self, record_id: str) -> list[Document]:
        """Return the live revisions of a document, the one to write on first."""
        live = [leaf for leaf in self._records.leaves(record_id) if not leaf.get("_deleted")]
        return sorted(live, key=lambda d: (generation(d["_rev"]), d["_rev"]), reverse=True)

    def _put(self, document: Mapping[str, Any], live: Sequence[Document]) -> bool:
        base = live[0]["_rev"] if live else None
        if self._records.put({**document, "_rev": base}) is None:
            return False
        self._records.drop(live[1:])
        return True


def _with(known: frozenset[str], account_id: str, is_listed: bool) -> frozenset[str]:
    return known | {account_id} if is_listed else known - {account_id}


def _index(live: Sequence[Document]) -> LimitIndex:
    return LimitIndex(
        frozenset(account_id for leaf in live for account_id in leaf["own"]),
        frozenset(account_id for leaf in live for account_id in leaf["descendants"]),
    )


def _index_document(index: LimitIndex) -> Mapping[str, Any]:
    return {
        "_id": INDEX,
        "type": "limits",
        "own": sorted(index.own),
        "descendants": sorted(index.descendants),
    }


def _merged(ledgers: Sequence[Ledger]) -> Ledger:
    """Return the union of the revisions of a ledger, with the limits of the latest one."""
    first, *others = ledgers
    if not others:
        return first
    latest = max(ledgers, key=lambda ledger: (ledger.since, ledger.writes))
    merged = replace(
        latest, revision=first.revision, writes=max(each.writes for each in ledgers),
        counted=min(each.counted for each in ledgers),
        losing_revisions=tuple(each.revision for each in others if each.revision),
    )  # fmt: skip
    for each in ledgers:
        merged = replace(
            merged,
            own={**each.own, **merged.own},
            below=merged.below | each.below,
            claims={
                name: tuple({*each.claims.get(name, ()), *merged.claims.get(name, ())})
                for name in {**each.claims, **merged.claims}
            },
        )
    return merged


def _reference(ledger: Ledger, revision: str) -> Mapping[str, Any]:
    return {"_id": _PREFIX + ledger.account_id, "_rev": revision}


def _document(ledger: Ledger) -> Mapping[str, Any]:
    in_zones: dict[str, list[str]] = {}
    for address, zone in ledger.own.items():
        in_zones.setdefault(zone, []).append(address)
    limits = ledger.limits
    return {
        "_id": _PREFIX + ledger.account_id,
        "_rev": ledger.revision,
        "type": "limit",
        "max": limits.max,
        "zones": dict(limits.zones),
        "descendants_max": limits.descendants_max,
        "since": ledger.since,
        "settles": ledger.settles,
        "counted": ledger.counted,
        "own": in_zones,
        "below": sorted(ledger.below),
        "claims": {name: list(addresses) for name, addresses in ledger.claims.items()},
        "writes": ledger.writes,
        "attempt": ledger.attempt,
    }


def _ledger(document: Document) -> Ledger:
    return Ledger(
        document["_id"].removeprefix(_PREFIX),
        Limits(document["max"], document["zones"], document["descendants_max"]),
        document["since"],
        document["settles"],
        document["counted"],
        {address: zone for zone, named in document["own"].items() for address in named},
        frozenset(document["below"]),
        {name: tuple(addresses) for name, addresses in document["claims"].items()},
        document["writes"],
        document["attempt"],
        document["_rev"],
    )
