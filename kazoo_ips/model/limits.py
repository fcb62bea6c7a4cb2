"""How many addresses an account may have, and the ledger that counts them. Standard library only.

A ledger names the addresses that count against the limits of an account. The service adds an
address to the ledger before it writes the document of the address. So the ledger may name too many
addresses, but never too few. An address that was released, or that a request did not get, stays in
the ledger until the ledger is counted again: then the documents of the pool decide. Other
programs, such as Kazoo, assign addresses that no ledger names. The service adds them when it finds
them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kazoo_ips.errors import LimitReached
from kazoo_ips.model.dedicated_ip import DedicatedIP
from kazoo_ips.model.lifecycle import Status


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an account. None is no limit.

    :param max: the maximum number of addresses of the account itself
    :param zones: the maximum number of these addresses in a zone, by the name of the zone
    :param descendants_max: the maximum number of addresses of the account and all accounts below
        it
    """

    max: int | None = None
    zones: Mapping[str, int] = field(default_factory=dict)
    descendants_max: int | None = None

    @property
    def has_own(self) -> bool:
        """Whether there is a limit for the account's own addresses."""
        return self.max is not None or bool(self.zones)

    @property
    def has_any(self) -> bool:
        """Whether there is any limit."""
        return self.has_own or self.descendants_max is not None


class Usage(NamedTuple):
    """How much of one limit is used.

    :param which: the limit: `max`, `zones` or `descendants_max`
    :param zone: the zone of the limit; None if it is not a limit of a zone
    :param limit: the maximum number of addresses
    :param used: the number of addresses that count against it
    """

    which: str
    zone: str | None
    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """The limits of an account, and the addresses that count against them.

    All times are Gregorian seconds.

    :param since: when the limits were set
    :param settles: the time from which on every process knows that the account has limits. All
        addresses have to be counted once after it
    :param counted: when all addresses of the account were last counted; 0 if they never were
    :param own: the zone of each address of the account
    :param below: the addresses of the accounts below it, if `descendants_max` is set
    :param claims: for each transaction, the addresses that it may be assigning or reserving. They
        are in `own` or `below` as well
    :param writes: the number of writes of the ledger. Of conflicting revisions, the one with the
        latest limits counts, and of several such, the one with the most writes
    :param attempt: the key of the attempt that set the limits; None if the request had no
        Idempotency-Key
    :param losing_revisions: the conflicting revisions that the next write drops
    """

    account_id: str
    limits: Limits = field(default_factory=Limits)
    since: int = 0
    settles: int = 0
    counted: int = 0
    own: Mapping[str, str] = field(default_factory=dict)
    below: frozenset[str] = frozenset()
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    writes: int = 0
    attempt: str | None = None
    revision: str | None = None
    losing_revisions: tuple[str, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether it names all addresses that the service has assigned."""
        return self.counted >= self.settles

    def with_limits(self, limits: Limits, at: int, settles: int) -> "Ledger":
        """Return the ledger with other limits.

        :param at: the time in Gregorian seconds
        :param settles: the time from which on every process knows that the account has limits
        """
        # If there were limits for the same addresses before, every process counts them already.
        covered = self.limits.has_any and (
            limits.descendants_max is None or self.limits.descendants_max is not None
        )
        settles = self.settles if covered else settles
        return replace(self, limits=limits, since=at, settles=settles)

    @property
    def addresses(self) -> set[str]:
        """All addresses that it names."""
        return {*self.own, *self.below}

    @property
    def used_in_zones(self) -> dict[str, int]:
        """The number of the account's own addresses, by zone, for each zone that has some."""
        counts: dict[str, int] = {}
        for zone in self.own.values():
            counts[zone] = counts.get(zone, 0) + 1
        return dict(sorted(counts.items()))

    @property
    def usage(self) -> list[Usage]:
        """How much of each limit is used."""
        limits, in_zones = self.limits, self.used_in_zones
        found = [
            Usage("zones", zone, limit, in_zones.get(zone, 0))
            for zone, limit in limits.zones.items()
        ]
        if limits.max is not None:
            found.append(Usage("max", None, limits.max, len(self.own)))
        if limits.descendants_max is not None:
            used = len(self.addresses)
            found.append(Usage("descendants_max", None, limits.descendants_max, used))
        return found

    @property
    def exceeded_by(self) -> int:
        """The largest number of addresses by which a limit is exceeded; 0 if none is."""
        return max([0, *(each.used - each.limit for each in self.usage)])

    def with_claim(
        self, transaction: str, account_id: str, ips: Iterable[DedicatedIP]
    ) -> "Ledger":
        """Return the ledger with the addresses that a transaction may assign or reserve.

        :param transaction: the id of the transaction
        :param account_id: the account that gets the addresses
        :param ips: all addresses of the transaction, also those of its earlier claim
        :raises LimitReached: a limit permits fewer addresses
        """
        named = {ip.address: ip.zone for ip in ips}
        claimed = replace(
            self.with_addresses(account_id, named),
            claims={**self.claims, transaction: tuple(named)},
        )
        for before, after in zip(self.usage, claimed.usage, strict=True):
            # If a limit is exceeded already, it still permits a claim that uses no more of it,
            # such as the assignment of reserved addresses.
            if after.used > after.limit and after.used > before.used:
                raise LimitReached(
                    before.which,
                    before.limit,
                    before.used,
                    after.used - before.used,
                    account_id=self.account_id,
                    zone=before.zone,
                )
        return claimed

    def with_addresses(self, account_id: str, zones: Mapping[str, str]) -> "Ledger":
        """Return the ledger with more addresses.

        :param account_id: the account that has them: that of the ledger, or one below it
        :param zones: the zone of each address
        """
        if account_id == self.account_id:
            return replace(self, own={**self.own, **zones})
        return replace(self, below=self.below | zones.keys())


def counted_for(ip: DedicatedIP, now: int) -> str | None:
    """Return the account against whose limits an address counts; None if it counts for none.

    :param now: the time in Gregorian seconds
    """
    if ip.status is Status.ASSIGNED or not ip.has_known_status:
        return ip.assigned_to
    is_reserved = ip.reservation is not None and (ip.reserved_until or 0) > now
    return ip.reserved_for if is_reserved and not ip.disabled else None
