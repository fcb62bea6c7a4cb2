"""Commands: what a client asks for, checked in form and not yet in substance."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a request that carries an Idempotency-Key.

    :param key: names the request: the key, whose it is, and when it came first
    :param number: from 1; a later one takes the place of those that came to no end
    """

    key: str
    number: int

    @property
    def earlier(self) -> tuple["Attempt", ...]:
        """Those whose place it takes."""
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

    :param if_match: the revisions it may have; empty is any
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
    """Pick available addresses and assign them to an account: so many or none.

    :param zone: of this zone only
    :param host: on this host only
    :param distinct_hosts: no two on one host
    :param distinct_zones: no two in one zone
    """

    account_id: str
    quantity: int
    zone: str | None = None
    host: str | None = None
    distinct_hosts: bool = False
    distinct_zones: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseIP:
    """Take one address back from an account; None is whichever has it.

    :param if_match: the revisions it may have; empty is any
    """

    account_id: str | None
    address: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseIPs:
    """Take these addresses back from an account, all or none; None is all that it has."""

    account_id: str
    addresses: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DeleteIP:
    """Take an address out of the pool.

    :param force: release it first when it is assigned; take it out whatever its status
    :param if_match: the revisions it may have; empty is any
    """

    address: str
    force: bool = False
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListIPs:
    """One page, the first few, or all of a list of addresses.

    :param limit: how many at the most; None is all
    :param after: where the last page ended: zone, order and address of its last line
    :param paged: whether there is a next page to speak of
    """

    zone: str | None = None
    host: str | None = None
    limit: int | None = 50
    after: tuple[str, str, str] | None = None
    paged: bool = True


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for a token: the hash of `user:password` and where the user belongs."""

    credentials: str = field(repr=False)
    method: str = "md5"
    name: str | None = None
    realm: str | None = None
