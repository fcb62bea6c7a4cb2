"""Lists: what a client asks for, lines and pages. A list is ordered by zone, then by address."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kazoo_ips.model import addresses
from kazoo_ips.model.lifecycle import Status

Position = tuple[str, str, str]
"""The position of a line in a list: its zone, the sort key of its address, and the address."""


class Listing(NamedTuple):
    """One line of a list, as the views have it. A list can have 100,000 lines.

    :param assigned_to: the account that has the address; None if it is not assigned
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


@dataclass(frozen=True, slots=True)
class ListIPs:
    """List addresses: one page, the first few, or all of them.

    An address is listed if it matches all filters: `zone`, `host`, `status`, `account_id`,
    `between`, `modified_from` and `label`. A filter that is None matches any address.

    :param limit: the maximum number of lines; None is no limit
    :param after: the position where the page before ended; None is the start
    :param paged: whether the reply may say where the next page starts
    :param status: the name of a status
    :param account_id: the account that has the address
    :param between: the lowest and the highest sort key of the address
    :param modified_from: the earliest time of the latest change, in Gregorian seconds
    :param after_account: in a list of several accounts, the account that `after` belongs to
    :param label: a label of the address, as `key:value`
    """

    zone: str | None = None
    host: str | None = None
    limit: int | None = 50
    after: Position | None = None
    paged: bool = True
    status: str | None = None
    account_id: str | None = None
    between: tuple[str, str] | None = None
    modified_from: int | None = None
    after_account: str | None = None
    label: str | None = None

    def covers(self, line: Listing) -> bool:
        """Return whether a line matches all filters but `modified_from` and `label`.

        The line does not have the values for these two.
        """
        wanted = (self.zone, self.host, self.status, self.account_id)
        found = (line.zone, line.host, line.status, line.assigned_to)
        if any(w not in (None, f) for w, f in zip(wanted, found, strict=True)):
            return False
        if self.between is None:
            return True
        first, last = self.between
        return first <= line.position[1] <= last

    @property
    def is_empty(self) -> bool:
        """Whether no line can match the filters, because they contradict each other."""
        if self.between and self.between[0] > self.between[1]:
            return True
        return bool(self.account_id) and self.status not in (None, Status.ASSIGNED)

    @property
    def is_ordered(self) -> bool:
        """Whether one range of one view has exactly the lines of the list, in its order."""
        if self.status is None or self.modified_from is not None or self.label:
            return False
        return not (self.account_id and self.host) and bool(self.zone or self.between is None)

    def is_before(self, line: Listing) -> bool:
        """Return whether a line comes after the position where the page before ended."""
        return self.after is None or order(line.position) > order(self.after)


ALL_OF_ACCOUNT: Position = ("", "", "")
"""The position after all addresses of an account, in a list of several accounts."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list.

    :param after: the position after which the next part starts; None at the end
    :param after_account: in a list of several accounts, the account that the position belongs to
    :param rest: reads all further lines, in parts. It may fail after some of them; then they can
        be read in pages. None if they can be read in pages only
    """

    items: tuple[Listing, ...]
    after: Position | None = None
    after_account: str | None = None
    rest: Callable[[], Iterator[Sequence[Listing]]] | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, ...] | None:
        """The position after which the next part starts, with its account; None at the end."""
        if self.after is None or self.after_account is None:
            return self.after
        return *self.after, self.after_account


def collated(zone: str) -> tuple[str, str]:
    """Return a sort key that orders zone names as CouchDB does: `a` before `A` before `b`."""
    return zone.casefold(), zone.swapcase()


def order(position: Position) -> tuple[tuple[str, str], str, str]:
    """Return the sort key of a position, for lines that this service sorts instead of a view."""
    zone, sort_key, address = position
    return collated(zone), sort_key, address
