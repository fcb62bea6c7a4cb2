"""Lines and pages of lists, and the order of a list: by zone, then by address as a number."""

from dataclasses import dataclass
from typing import NamedTuple

from kazoo_ips.model import addresses

Position = tuple[str, str, str]
"""Where a line is in a list: its zone, the sort key of its address, and the address."""


class Listing(NamedTuple):
    """One line of a list, as the views hold it. A list can have 100,000 of them.

    :param assigned_to: the account that has the address, if it is assigned
    :param status: a `Status`, or the name of one that only a newer release knows
    """

    address: str
    zone: str
    host: str
    assigned_to: str | None = None
    status: str = ""

    @property
    def position(self) -> Position:
        """The position of the line."""
        canonical = addresses.canonical(self.address) or self.address
        return self.zone, addresses.sort_key(canonical), self.address


ALL_OF_ACCOUNT: Position = ("", "", "")
"""The position after all addresses of an account, in a list of several accounts."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and the position after which the next part starts; None at the end.

    :param after_account: the account that the position belongs to, in a list of several accounts
    """

    items: tuple[Listing, ...]
    after: Position | None = None
    after_account: str | None = None

    @property
    def key(self) -> tuple[str, ...] | None:
        """The position with its account; None at the end."""
        if self.after is None or self.after_account is None:
            return self.after
        return *self.after, self.after_account


def collated(zone: str) -> tuple[str, str]:
    """Return a sort key that orders zone names as CouchDB does: `a` before `A` before `b`."""
    return zone.casefold(), zone.swapcase()


def order(position: Position) -> tuple[tuple[str, str], str, str]:
    """Return the sort key of a position, for lines that are sorted here and not by a view."""
    zone, sort_key, address = position
    return collated(zone), sort_key, address
