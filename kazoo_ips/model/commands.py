"""Commands: requests of clients, as frozen dataclasses.

The form of a command is valid. The services check it against the pool.
"""

from dataclasses import dataclass, field

from kazoo_ips.model.changes import Changes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a request that carries an Idempotency-Key.

    :param key: identifies the request: the key, its caller, and the time of the first attempt
    :param number: the number of the attempt, from 1. A later attempt continues what an earlier one
        left without a final outcome
    """

    key: str
    number: int

    @property
    def earlier(self) -> tuple["Attempt", ...]:
        """The attempts before this one, whose results it looks for."""
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

    :param quantity: the number of addresses, at least 1
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

    :param wanted: the command that would assign them: by name, or a quantity
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
    """Change the end of a reservation.

    :param seconds: the number of seconds from now to the new end
    """

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
    :param replaced: with None as the addresses: release only the addresses of the account that
        have a replacement which it has too
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

    At least one of `to_host` and `to_zone` is given.

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
    """Change the zone, the host or the notes of an address.

    :param reason: the reason of the operator, for the history
    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    changes: Changes
    reason: str = ""
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DisableIP:
    """Disable one address. An assigned one stays assigned until its release.

    :param reason: the reason of the operator, for the history and for who lists the address
    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    reason: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnableIP:
    """Enable one address that is disabled.

    :param reason: the reason of the operator, for the history
    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    reason: str = ""
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndRest:
    """End the rest of one address before its time, so that any account can get it.

    :param reason: the reason of the operator, for the history
    :param if_match: the revisions that the address may have; empty allows any
    """

    address: str
    reason: str
    if_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListAccounts:
    """List accounts: those that match `given`, those with the `ids`, or a page of all.

    :param given: the id, realm or name of an account
    :param ids: ids of accounts
    :param limit: the maximum number of accounts of a page; None is no limit
    :param first: where the page begins: `AccountPage.next` of the page before; None is the start
    """

    given: str | None = None
    ids: tuple[str, ...] | None = None
    limit: int | None = 50
    first: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """Log in to an account.

    :param credentials: the hash of `user:password`, as hex digits
    :param method: the hash function, `md5` or `sha`
    :param name: the name of the account, if it is not given by its realm
    :param realm: the realm of the account
    """

    credentials: str = field(repr=False)
    method: str = "md5"
    name: str | None = None
    realm: str | None = None
