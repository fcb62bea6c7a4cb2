"""Commands: requests of clients in valid form. The services check them against the pool."""

from dataclasses import dataclass, field

from kazoo_ips.model.changes import Changes


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
class ReserveIPs:
    """Set addresses aside for an account: all or none.

    :param wanted: the addresses, or how many the service shall choose
    :param seconds: how long they are set aside
    """

    wanted: AssignIPs | AllocateIPs
    seconds: int


@dataclass(frozen=True, slots=True)
class AssignReserved:
    """Assign all addresses of a reservation to its account."""

    account_id: str
    reservation_id: str


@dataclass(frozen=True, slots=True)
class ExtendReservation:
    """Let a reservation end a number of seconds from now."""

    account_id: str
    reservation_id: str
    seconds: int


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
    :param replaced: whether to release, of all, only those whose replacements the account has
    """

    account_id: str
    addresses: tuple[str, ...] | None
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class TransferIPs:
    """Transfer these addresses from an account to another one: all or none."""

    addresses: tuple[str, ...]
    from_id: str
    to_id: str


@dataclass(frozen=True, slots=True)
class MoveHost:
    """Move all addresses of a host. Each account keeps its addresses.

    :param to_host: the new host; None keeps the host
    :param to_zone: the new zone; None keeps the zone of each address
    """

    host: str
    to_host: str | None = None
    to_zone: str | None = None


@dataclass(frozen=True, slots=True)
class EvacuateHost:
    """Give each account on a host additional addresses on other hosts."""

    host: str


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
class ChangeIP:
    """Change an address without giving it to anybody.

    :param reason: why, for the history
    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    changes: Changes
    reason: str = ""
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DisableIP:
    """Take one address out of service.

    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    reason: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnableIP:
    """Take one address into service again.

    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    reason: str = ""
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndRest:
    """End the rest of one address before its time.

    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    reason: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListAccounts:
    """List accounts: those that a name means, those with some ids, or a page of all.

    :param given: the id, realm or name of an account
    :param ids: ids of accounts
    :param limit: the maximum number of lines of a page; None is no limit
    :param first: where the page begins: `next` of the previous page
    """

    given: str | None = None
    ids: tuple[str, ...] | None = None
    limit: int | None = 50
    first: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for a token: the hash of `user:password`, and the account's name or realm."""

    credentials: str = field(repr=False)
    method: str = "md5"
    name: str | None = None
    realm: str | None = None
