"""Commands: requests of clients in valid form. The services check them against the pool."""

from dataclasses import dataclass, field

from kazoo_ips.model.dedicated_ip import Status
from kazoo_ips.model.listings import Listing, Position, order


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a request that carries an Idempotency-Key.

    :param key: identifies the request: the key, its caller, and the time of the first attempt
    :param number: counts from 1; a later attempt takes over from earlier ones that ended without
        an outcome
    """

    key: str
    number: int

    @property
    def earlier(self) -> tuple["Attempt", ...]:
        """The attempts that this one takes over from."""
        return tuple(Attempt(self.key, number) for number in range(1, self.number))


@dataclass(frozen=True, slots=True)
class CreateIP:
    """Add an address to the pool."""

    address: str
    zone: str
    host: str


@dataclass(frozen=True, slots=True)
class AssignIP:
    """Assign one address to an account.

    :param if_match: the revisions that the address may have; empty allows any
    """

    account_id: str
    address: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AssignIPs:
    """Assign these addresses to an account: all or none."""

    account_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AllocateIPs:
    """Choose available addresses and assign them to an account: the whole quantity, or none.

    :param zone: the zone that the addresses have to be in; None allows any
    :param host: the host that the addresses have to be on; None allows any
    :param distinct_hosts: whether each address has to be on another host
    :param distinct_zones: whether each address has to be in another zone
    """

    account_id: str
    quantity: int
    zone: str | None = None
    host: str | None = None
    distinct_hosts: bool = False
    distinct_zones: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseIP:
    """Release one address of an account.

    :param account_id: the account; None releases the address whichever account has it
    :param if_match: the revisions that the address may have; empty allows any
    """

    account_id: str | None
    address: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseIPs:
    """Release these addresses of an account, all or none.

    :param addresses: the addresses; None releases all that the account has
    """

    account_id: str
    addresses: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DeleteIP:
    """Delete an address from the pool.

    :param force: whether to delete it whatever its status; an assigned address is released first
    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    force: bool = False
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListIPs:
    """List addresses: one page, the first few, or all of them. A filter that is None allows any.

    :param limit: the maximum number of lines; None is no limit
    :param after: the position where the last page ended
    :param paged: whether the reply may say where the next page starts
    :param status: the name of a status
    :param account_id: the account that has the address
    :param between: the sort key of the address is one of these two or between them
    :param modified_from: the time of the address's last change is this or later, in Gregorian
        seconds
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

    def covers(self, line: Listing) -> bool:
        """Return whether a line matches all filters except `modified_from`."""
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
        """Whether one range of one view has exactly the lines that match the filters, in order."""
        if self.status is None or self.modified_from is not None:
            return False
        return not (self.account_id and self.host) and bool(self.zone or self.between is None)

    def is_before(self, line: Listing) -> bool:
        """Return whether a line comes after the position where the last page ended."""
        return self.after is None or order(line.position) > order(self.after)


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for a token: the hash of `user:password`, and the account's name or realm."""

    credentials: str = field(repr=False)
    method: str = "md5"
    name: str | None = None
    realm: str | None = None
