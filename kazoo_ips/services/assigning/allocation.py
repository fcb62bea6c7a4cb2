"""Allocation: choosing available addresses for a request that names only a quantity.

If all clients took the first available address, they would compete for it. In a model of 32
concurrent clients, that takes 16 attempts for each address. If each client takes a random one of
128 addresses, it takes 1.1 attempts. So the choice is random within a window of the list, and the
window starts at a random position near the start of the list. A view may lag: it only proposes
addresses, and the pool documents decide.
"""

import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field

from kazoo_ips.errors import DatastoreUnreachable, InsufficientIPs, RuleBroken
from kazoo_ips.model import AllocateIPs, Attempt, DedicatedIP, Listing, Status
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.transaction_log import Action, Transaction
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, WriteResult
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption
from kazoo_ips.services.assigning.transactions import TransactionService

WINDOW = 256
"""Number of addresses to choose from: four times the number of concurrent clients expected."""

_ROUNDS = 6
"""Maximum number of attempts at an allocation while the views show enough addresses."""


class AllocationService:
    """Chooses available addresses and assigns them: the requested quantity, or none.

    :param now: returns the time in Gregorian seconds
    :param pause: sleeps for a number of seconds
    """

    def __init__(  # noqa: PLR0913 - one for each collaborator
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
        """Choose available addresses and assign them to an account.

        :param attempt: the attempt of a request with an Idempotency-Key; if an earlier attempt has
            allocated addresses these are returned; earlier attempts cannot commit any more
        :param dry_run: return addresses that could be assigned, and write nothing
        :raises InsufficientIPs: fewer addresses are available than requested
        :raises DatastoreUnreachable: the outcome is unknown, or CouchDB refuses the writes
        """
        done, _ = self._recovery.end_attempts(
            attempt, Action.ASSIGN, command.account_id, request_id
        )
        if done:
            return self._resumption.of_transaction(done)
        alone = command.quantity == 1 and attempt is None
        allocation = _Allocation(command, request_id, self._now(), attempt, alone, dry_run)
        for round_ in range(_ROUNDS):
            if self._try(allocation):
                return self._acknowledge(allocation)
            # Two requests for the same addresses can block each other: each has taken some that
            # the other needs. Both make theirs available again and retry after random waits.
            available = self._count(command)
            if available < command.quantity:
                break
            self._pause(random.uniform(0, 0.05 * 2**round_))
        if allocation.transaction:
            self._transactions.abandon(allocation.transaction)
        raise InsufficientIPs(command.quantity, min(available, command.quantity - 1))

    def _try(self, allocation: "_Allocation") -> bool:
        """Try once to take the quantity.

        If too few addresses are available, make those that were taken available again, and return
        False.
        """
        command = allocation.command
        allocation.results = []
        tried: set[str] = set()
        while len(allocation.taken) < command.quantity:
            proposed = propose(self._views, command, allocation.taken, tried)
            if not proposed or (not tried and len(proposed) < command.quantity):
                self._put_back(allocation)
                return False
            tried.update(proposed)
            found = self._ips.by_id(proposed)[0].values()
            free = [ip for ip in found if ip.status is Status.AVAILABLE and not ip.conflicted]
            if free:
                self._take(allocation, free)
        return True

    def _take(self, allocation: "_Allocation", free: Sequence[DedicatedIP]) -> None:
        """Assign those of the proposed addresses that can be assigned.

        :raises DatastoreUnreachable: the outcome of a write is unknown; nothing is kept
        """
        account_id = allocation.command.account_id
        changes = self._assigned(allocation, free)
        if not changes:
            return
        before, after = zip(*changes, strict=True)
        if allocation.dry_run:
            allocation.results += [WriteResult(FinalOutcome.DONE, ip) for ip in after]
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
        if any(result.outcome is FinalOutcome.UNKNOWN for result in allocation.results):
            if allocation.transaction:
                self._transactions.roll_back(allocation.transaction, allocation.results)
            raise DatastoreUnreachable("not known which addresses are taken")

    def _assigned(
        self, allocation: "_Allocation", free: Sequence[DedicatedIP]
    ) -> list[tuple[DedicatedIP, DedicatedIP]]:
        """Return these dedicated IPs before and after, without those that must not be assigned."""
        account_id, at = allocation.command.account_id, allocation.at
        others = self._ips.others_by_view(free)
        changes = []
        for ip in free:
            with suppress(RuleBroken):
                after = ip.assign(
                    account_id,
                    at=at,
                    request_id=allocation.request_id,
                    others=others[ip.address],
                )
                changes.append((ip, after))
        return changes

    def _put_back(self, allocation: "_Allocation") -> None:
        """Make the addresses available again that this round has taken.

        :raises DatastoreUnreachable: writes had no quorum, so enough addresses may be available
        """
        if allocation.transaction:
            self._transactions.make_available(allocation.transaction, allocation.results)
        if any(result.outcome is FinalOutcome.UNDONE for result in allocation.results):
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
        """Return how many addresses are available, or how many hosts or zones have available ones.

        Hosts or zones are counted if each address has to be from another host or zone.
        """
        if command.distinct_hosts:
            hosts = self._views.hosts_available(command.zone)
            return sum(command.host in (None, host) for host in hosts)
        if command.distinct_zones:
            return sum(command.zone in (None, zone) for zone in self._views.zones_available())
        return self._views.count_available(command.zone, command.host)


@dataclass
class _Allocation:
    """The state of one allocation.

    :param alone: whether it is for one address without an Idempotency-Key, so that the document
        decides without a transaction
    :param transaction: the transaction, from the first address on; None if `alone`
    :param results: the results of this round's writes
    """

    command: AllocateIPs
    request_id: str
    at: int
    attempt: Attempt | None
    alone: bool
    dry_run: bool
    transaction: Transaction | None = None
    results: list[WriteResult] = field(default_factory=list)

    @property
    def taken(self) -> list[DedicatedIP]:
        """The dedicated IPs that this round has taken so far."""
        return [result.ip for result in self.results if result.outcome is FinalOutcome.DONE]


def propose(
    views: ListRepository,
    command: AllocateIPs,
    taken: list[DedicatedIP],
    tried: AbstractSet[str],
) -> list[str]:
    """Return addresses that would complete the allocation, or fewer if there are not enough.

    :param taken: the dedicated IPs that the allocation has taken already
    :param tried: the addresses that were tried before and are left out
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
    if len(rows) < size:  # the window passes the end of the list, so start at its beginning
        rows = views.available_window(command.zone, command.host, 0, size + skip)
    return _shuffled(rows, tried)


def _one_each(
    views: ListRepository, command: AllocateIPs, taken: list[DedicatedIP], tried: AbstractSet[str]
) -> list[str]:
    """Return one address of each host, or zone, of which the allocation has none yet."""
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
    untried = [row.address for row in rows if row.address not in tried]
    random.shuffle(untried)
    return untried
