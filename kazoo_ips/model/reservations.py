"""Reservations: addresses that are set aside for an account for some time. Standard library only.

The documents of the addresses decide: an address is reserved as long as its document says so, and
until the time that it says. The book of an account lists its reservations, so that one read finds
them and no account has too many. A reservation is open while the documents of all its addresses
hold them. The book may still list reservations that have ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kazoo_ips.model.dedicated_ip import DedicatedIP

DEFAULT_SECONDS = 1800
"""How long a reservation lasts by default."""
MAX_SECONDS = 86_400
"""How long a reservation may last, from its start, with all extensions."""
MAX_OPEN = 100
"""Maximum number of open reservations of an account."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Addresses that are set aside for an account.

    :param started: when it was made, in Gregorian seconds
    :param until: when it ends
    :param transaction: the transaction that reserves the addresses. Until it is committed, they
        are not reserved
    :param cancelled_by: the id of the request that has cancelled it, or None
    """

    id: str
    account_id: str
    addresses: tuple[str, ...]
    started: int
    until: int
    transaction: str = ""
    cancelled_by: str | None = None

    @property
    def order(self) -> tuple[int, str]:
        """A sort key: the earliest reservation comes first."""
        return self.started, self.id

    def holds(self, ip: DedicatedIP, now: int) -> bool:
        """Return whether a document says that the reservation holds the address.

        :param now: the time in Gregorian seconds
        """
        if ip.disabled:
            return False
        held = (ip.reservation, ip.reserved_for) == (self.id, self.account_id)
        return held and (ip.reserved_until or 0) > now


@dataclass(frozen=True, slots=True)
class ReservationBook:
    """The reservations of an account, by id.

    :param rivals: the conflicting revisions that the next write drops
    """

    account_id: str
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    revision: str | None = None
    rivals: tuple[str, ...] = ()

    @property
    def addresses(self) -> set[str]:
        """All addresses of its reservations, also of those that have ended."""
        return {address for each in self.reservations.values() for address in each.addresses}

    def with_reservation(self, reservation: Reservation, now: int) -> "ReservationBook":
        """Return the book with one more reservation, or with a changed one.

        Reservations that are over for a day are removed.

        :param now: the time in Gregorian seconds
        """
        kept = {i: r for i, r in self.reservations.items() if r.until > now - MAX_SECONDS}
        return replace(self, reservations={**kept, reservation.id: reservation})

    def without(self, ids: frozenset[str]) -> "ReservationBook":
        """Return the book without reservations that have ended."""
        kept = {i: r for i, r in self.reservations.items() if i not in ids}
        return replace(self, reservations=kept)

    def open_at(self, now: int) -> list[Reservation]:
        """Return the reservations that may be open, the earliest first.

        :param now: the time in Gregorian seconds
        """
        found = [r for r in self.reservations.values() if r.until > now and not r.cancelled_by]
        return sorted(found, key=lambda reservation: reservation.order)
