"""Commands: what a client asks for. Their form is valid; services check them against the pool."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a request that carries an Idempotency-Key.

    :param key: identifies the request: the key, its owner, and the time of the first attempt
    :param number: counts from 1; a later attempt takes over from those that ended without an
        outcome
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
    """Choose available addresses and assign them to an account: as many as asked for, or none.

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
    """List addresses: one page, the first few, or all of them.

    :param limit: the maximum number of lines; None is no limit
    :param after: the position where the last page ended: zone, sort key and address of its last
        line
    :param paged: whether the reply may say where the next page starts
    """

    zone: str | None = None
    host: str | None = None
    limit: int | None = 50
    after: tuple[str, str, str] | None = None
    paged: bool = True


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for a token: the hash of `user:password`, and the account's name or realm."""

    credentials: str = field(repr=False)
    method: str = "md5"
    name: str | None = None
    realm: str | None = None
