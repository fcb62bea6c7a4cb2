"""Reservations: addresses that are set aside for an account for some time. Standard library only.

The documents of the addresses decide. An address is reserved while its document names the
reservation, until the time that the document names. A reservation is open while this is true of
all its addresses. The book of an account lists its reservations, so that one read finds them, and
so that their number can be limited. The book may also list reservations that have ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kazoo_ips.model.dedicated_ip import DedicatedIP

DEFAULT_SECONDS = 1800
"""Seconds that a reservation lasts by default."""
MAX_SECONDS = 86_400
"""Maximum number of seconds that a reservation lasts from its start, with all extensions."""
MAX_OPEN = 100
"""Maximum number of open reservations of an account."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Addresses that are set aside for an account.

    :param started: when it was created, in Gregorian seconds
    :param until: when it ends, in Gregorian seconds
    :param transaction: the id of the transaction that reserves the addresses. They are not
        reserved before it is committed
    :param cancelled_by: the id of the request that has cancelled it; None if none has
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
        """Return whether the reservation holds an address, by the document of the address.

        :param now: the time in Gregorian seconds
        """
        if ip.disabled:
            return False
        held = (ip.reservation, ip.reserved_for) == (self.id, self.account_id)
        return held and (ip.reserved_until or 0) > now


@dataclass(frozen=True, slots=True)
class ReservationBook:
    """The reservations of an account, by id.

    :param losing_revisions: the conflicting revisions that the next write drops
    """

    account_id: str
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    revision: str | None = None
    losing_revisions: tuple[str, ...] = ()

    @property
    def addresses(self) -> set[str]:
        """All addresses of its reservations, also of those that have ended."""
        return {address for each in self.reservations.values() for address in each.addresses}

    def with_reservation(self, reservation: Reservation, now: int) -> "ReservationBook":
        """Return the book with a further reservation, or with a changed one.

        The book loses the reservations that ended more than a day ago.

        :param now: the time in Gregorian seconds
        """
        kept = {i: r for i, r in self.reservations.items() if r.until > now - MAX_SECONDS}
        return replace(self, reservations={**kept, reservation.id: reservation})

    def without(self, ids: frozenset[str]) -> "ReservationBook":
        """Return the book without the reservations of some ids."""
        kept = {i: r for i, r in self.reservations.items() if i not in ids}
        return replace(self, reservations=kept)

    def open_at(self, now: int) -> list[Reservation]:
        """Return the reservations that may be open, the earliest first.

        :param now: the time in Gregorian seconds
        """
        found = [r for r in self.reservations.values() if r.until > now and not r.cancelled_by]
        return sorted(found, key=lambda reservation: reservation.order)
