"""Which addresses to take when the caller leaves that to us.

If everybody took the first free one, they would fight for it: a model of 32 callers at once needs
16 attempts for each address that way, and 1.1 when each takes a random one of 128. So the choice
is random within a window of the list, which begins at a random place near its start. A view may
lag: what is chosen here is a proposal, and the pool's documents decide.
"""

import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from kazoo_ips.errors import DatastoreUnreachable, InsufficientIPs
from kazoo_ips.model import AllocateIPs, Attempt, DedicatedIP, Listing, Status
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.transaction_log import Action, Transaction
from kazoo_ips.services.assigning.pool_writes import Fate, Result
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption
from kazoo_ips.services.assigning.transactions import TransactionService

WINDOW = 256
"""Addresses to choose from: four times as many as callers are expected at once."""

_ROUNDS = 6
"""Attempts at an allocation while there seem to be enough addresses for it."""


class AllocationService:
    """Picks available addresses and assigns them: so many or none.

    :param now: the time in Gregorian seconds
    :param pause: waits so many seconds
    """

    def __init__(  # noqa: PLR0913 - one for each thing it brings together
        self,
        ips: IPRepository,
        views: ListRepository,
        transactions: TransactionService,
        recovery: RecoveryService,
        resumption: Resumption,
        *,
        now: Callable[[], int],
        pause: Callable[[float], None],
    ) -> None:
        self._ips = ips
        self._views = views
        self._transactions = transactions
        self._recovery = recovery
        self._resumption = resumption
        self._now = now
        self._pause = pause

    def allocate(
        self,
        command: AllocateIPs,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Pick available addresses and assign them to an account.

        :param attempt: of a request with an Idempotency-Key: if an earlier one has allocated some
            these are returned, and what it may still do is kept from happening
        :param dry_run: say which it could be, and write nothing
        :raises InsufficientIPs: there are not as many
        :raises DatastoreUnreachable: it is not certain what became of it
        """
        done = self._recovery.settle_attempts(
            attempt, Action.ASSIGN, command.account_id, request_id
        )
        if done:
            return self._resumption.of_transaction(done)
        alone = command.quantity == 1 and attempt is None
        allocation = _Allocation(command, request_id, self._now(), attempt, alone, dry_run)
        for round_ in range(_ROUNDS):
            if self._try(allocation):
                return self._acknowledge(allocation)
            # Two who want most of the same few take each other's; whoever waits longer yields.
            available = self._count(command)
            if available < command.quantity:
                break
            self._pause(random.uniform(0, 0.05 * 2**round_))
        if allocation.transaction:
            self._transactions.abandon(allocation.transaction)
        raise InsufficientIPs(command.quantity, min(available, command.quantity - 1))

    def _try(self, allocation: "_Allocation") -> bool:
        """One round; False when there were too few to be had, and then nothing is kept."""
        command = allocation.command
        allocation.results = []
        tried: set[str] = set()
        while len(allocation.taken) < command.quantity:
            proposed = propose(self._views, command, allocation.taken, tried)
            if not proposed or (not tried and len(proposed) < command.quantity):
                self._put_back(allocation)
                return False
            tried.update(proposed)
            found = self._ips.find(proposed).values()
            before = [ip for ip in found if ip.status is Status.AVAILABLE and not ip.conflicted]
            if before:
                self._take(allocation, before)
        return True

    def _take(self, allocation: "_Allocation", before: Sequence[DedicatedIP]) -> None:
        """Assign what was proposed.

        :raises DatastoreUnreachable: what became of one is not known; nothing is kept
        """
        account_id = allocation.command.account_id
        at, request_id = allocation.at, allocation.request_id
        after = [ip.assign(account_id, at=at, request_id=request_id) for ip in before]
        if allocation.dry_run:
            allocation.results += [Result(Fate.DONE, ip) for ip in after]
        elif allocation.alone:
            allocation.results += self._transactions.write(before, after)
        else:
            transaction = allocation.transaction
            allocation.transaction = transaction = (
                self._transactions.extend(transaction, after)
                if transaction
                else self._transactions.begin(Action.ASSIGN, account_id, after, allocation.attempt)
            )
            allocation.results += self._transactions.prepare(transaction, before, after)
        if any(result.fate is Fate.UNKNOWN for result in allocation.results):
            if allocation.transaction:
                self._transactions.roll_back(allocation.transaction, allocation.results)
            raise DatastoreUnreachable("not known which addresses are taken")

    def _put_back(self, allocation: "_Allocation") -> None:
        """Put back what one round has taken.

        :raises DatastoreUnreachable: it is for lack of an answer that there is not enough
        """
        if allocation.transaction:
            self._transactions.put_back(allocation.transaction, allocation.results)
        if any(result.fate is Fate.UNDONE for result in allocation.results):
            if allocation.transaction:
                self._transactions.abandon(allocation.transaction)
            raise DatastoreUnreachable("a majority of the nodes does not answer")

    def _acknowledge(self, allocation: "_Allocation") -> list[DedicatedIP]:
        if allocation.dry_run:
            return allocation.taken
        if allocation.transaction:
            return self._transactions.commit_assignment(allocation.transaction, allocation.results)
        return [self._transactions.acknowledge(allocation.results)]

    def _count(self, command: AllocateIPs) -> int:
        """How many there are to choose from, or how many places with some."""
        if command.distinct_hosts:
            hosts = self._views.hosts_available(command.zone)
            return sum(command.host in (None, host) for host in hosts)
        if command.distinct_zones:
            return sum(command.zone in (None, zone) for zone in self._views.zones_available())
        return self._views.count_available(command.zone, command.host)


@dataclass
class _Allocation:
    """One allocation while it is made.

    :param alone: it takes one address, whose document decides; which one it was is not asked for
        again
    :param transaction: from its first address on, where it is not alone
    :param results: of the writes of this round
    """

    command: AllocateIPs
    request_id: str
    at: int
    attempt: Attempt | None
    alone: bool
    dry_run: bool
    transaction: Transaction | None = None
    results: list[Result] = field(default_factory=list)

    @property
    def taken(self) -> list[DedicatedIP]:
        """What this round has got so far."""
        return [result.ip for result in self.results if result.fate is Fate.DONE]


def propose(
    views: ListRepository,
    command: AllocateIPs,
    taken: list[DedicatedIP],
    tried: AbstractSet[str],
) -> list[str]:
    """Addresses that would complete the allocation, fewer when there are not enough.

    :param taken: what it has already
    :param tried: what it need not try again
    """
    wanted = command.quantity - len(taken)
    if command.distinct_hosts or command.distinct_zones:
        return _one_each(views, command, taken, tried)[:wanted]
    return _any(views, command, wanted, tried)[:wanted]


def _any(
    views: ListRepository, command: AllocateIPs, wanted: int, tried: AbstractSet[str]
) -> list[str]:
    size = max(WINDOW, 4 * wanted) + len(tried)
    skip = random.randrange(WINDOW)
    rows = views.available_window(command.zone, command.host, skip, size)
    if len(rows) < size:  # the end is near: then everything is worth a look
        rows = views.available_window(command.zone, command.host, 0, size + skip)
    return _shuffled(rows, tried)


def _one_each(
    views: ListRepository, command: AllocateIPs, taken: list[DedicatedIP], tried: AbstractSet[str]
) -> list[str]:
    """One address of each host, or zone, that has none of the allocation yet."""
    places: list[tuple[str | None, str | None]]
    if command.distinct_hosts:
        hosts = set(views.hosts_available(command.zone)) - {ip.host for ip in taken}
        places = [(command.zone, host) for host in hosts if command.host in (None, host)]
    else:
        zones = set(views.zones_available()) - {ip.zone for ip in taken}
        places = [(zone, command.host) for zone in zones if command.zone in (None, zone)]
    random.shuffle(places)
    proposed: list[str] = []
    for zone, host in places:
        if len(proposed) + len(taken) == command.quantity:
            break
        rows = views.available_window(zone, host, 0, WINDOW)
        proposed += _shuffled(rows, tried)[:1]
    return proposed


def _shuffled(rows: list[Listing], tried: AbstractSet[str]) -> list[str]:
    fresh = [row.address for row in rows if row.address not in tried]
    random.shuffle(fresh)
    return fresh
