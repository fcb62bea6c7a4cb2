"""The reservations of accounts, in the service's own database: one book for each account.

A book in conflict is read as the union of its revisions. The documents of the addresses decide
which reservations are open.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from kazoo_ips.couch.client import Document
from kazoo_ips.model import generation
from kazoo_ips.model.reservations import Reservation, ReservationBook
from kazoo_ips.repositories.records import Records

_PREFIX = "reservations-"


class ReservationRepository:
    """Reads and writes books."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def book(self, account_id: str) -> ReservationBook:
        """Return the book of an account; an empty one if it has none."""
        leaves = self._records.leaves(_PREFIX + account_id)
        live = [leaf for leaf in leaves if not leaf.get("_deleted")]
        live.sort(key=lambda leaf: (generation(leaf["_rev"]), leaf["_rev"]))
        book = ReservationBook(account_id)
        for leaf in live:  # the last one is written on
            book = _merged(book, leaf)
        return replace(book, losing_revisions=tuple(leaf["_rev"] for leaf in live[:-1]))

    def books(self) -> Iterator[ReservationBook]:
        """Yield the books of all accounts. On a cluster the list may lag; `book` does not lag."""
        for document in self._records.range(_PREFIX):
            account_id = document["_id"].removeprefix(_PREFIX)
            yield _merged(ReservationBook(account_id), document)

    def put(self, book: ReservationBook) -> bool:
        """Write a book at the revision it carries (compare-and-swap).

        :returns: whether it was written; False if another writer has changed it
        :raises DatastoreUnreachable: it is unknown whether the book was written
        """
        if self._records.put(_document(book)) is None:
            return False
        document_id = _PREFIX + book.account_id
        self._records.drop(
            [{"_id": document_id, "_rev": revision} for revision in book.losing_revisions]
        )
        return True


def _merged(book: ReservationBook, leaf: Document) -> ReservationBook:
    found = {
        reservation_id: _reservation(book.account_id, reservation_id, fields)
        for reservation_id, fields in leaf["reservations"].items()
    }
    return replace(
        book,
        reservations={**book.reservations, **found},
        revision=leaf["_rev"],
    )


def _document(book: ReservationBook) -> Mapping[str, Any]:
    return {
        "_id": _PREFIX + book.account_id,
        "_rev": book.revision,
        "type": "reservations",
        "reservations": {i: _fields(r) for i, r in book.reservations.items()},
    }


def _fields(reservation: Reservation) -> Mapping[str, Any]:
    fields = asdict(reservation)
    del fields["id"], fields["account_id"]
    return {**fields, "addresses": list(reservation.addresses)}


def _reservation(account_id: str, reservation_id: str, fields: Mapping[str, Any]) -> Reservation:
    addresses: Sequence[str] = fields["addresses"]
    return Reservation(reservation_id, account_id, **{**fields, "addresses": tuple(addresses)})
