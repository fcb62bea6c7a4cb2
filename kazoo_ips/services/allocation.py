"""Which addresses to take when the caller leaves that to us.

If everybody took the first free one, they would fight for it: a model of 32 callers at once needs
16 attempts for each address that way, and 1.1 when each takes a random one of 128. So the choice
is random within a window of the list, which begins at a random place near its start. A view may
lag: what is chosen here is a proposal, and the pool's documents decide.
"""

import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from kazoo_ips.errors import InsufficientIPs
from kazoo_ips.model import AllocateIPs, Attempt, DedicatedIP, Listing, Status
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.transaction_log import Action, Transaction
from kazoo_ips.services.recovery import RecoveryService
from kazoo_ips.services.resumption import Resumption
from kazoo_ips.services.transactions import TransactionService
from kazoo_ips.services.writes import Fate, Result

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
        self, command: AllocateIPs, request_id: str, attempt: Attempt | None = None
    ) -> list[DedicatedIP]:
        """Pick available addresses and assign them to an account.

        :param attempt: of a request with an Idempotency-Key: if an earlier one has allocated some
            these are returned, and what it may still do is kept from happening
        :raises InsufficientIPs: there are not as many
        :raises DatastoreUnreachable: it is not certain what became of it
        """
        done = self._recovery.settle_attempts(
            attempt, Action.ASSIGN, command.account_id, request_id
        )
        if done:
            return self._resumption.of_transaction(done)
        for round_ in range(_ROUNDS):
            allocated = self._attempt(command, request_id, attempt)
            if allocated:
                return allocated
            # Two who want most of the same few take each other's; whoever waits longer yields.
            available = self._count(command)
            if available < command.quantity:
                break
            self._pause(random.uniform(0, 0.05 * 2**round_))
        raise InsufficientIPs(command.quantity, min(available, command.quantity - 1))

    def _attempt(
        self, command: AllocateIPs, request_id: str, attempt: Attempt | None
    ) -> list[DedicatedIP]:
        """One round; empty when there were too few to be had, and then nothing is kept."""
        # Which one it was is known from the record, when it is asked for again.
        alone = command.quantity == 1 and attempt is None
        transaction: Transaction | None = None
        results: list[Result] = []
        taken: list[DedicatedIP] = []
        tried: set[str] = set()
        at = self._now()
        while len(taken) < command.quantity:
            proposed = propose(self._views, command, taken, tried)
            if not proposed or (not tried and len(proposed) < command.quantity):
                self._give_up(transaction, results)
                return []
            tried.update(proposed)
            found = self._ips.find(proposed).values()
            before = [ip for ip in found if ip.status is Status.AVAILABLE and not ip.conflicted]
            if not before:
                continue
            after = [ip.assign(command.account_id, at=at, request_id=request_id) for ip in before]
            if alone:
                results += self._transactions.write(before, after)
            else:
                transaction = self._recorded(transaction, after, attempt)
                results += self._transactions.prepare(transaction, before, after)
            if any(result.fate is Fate.UNKNOWN for result in results):
                self._give_up(transaction, results)
            taken = [result.ip for result in results if result.fate is Fate.DONE]
        if transaction:
            return self._transactions.commit_assignment(transaction, results)
        return [self._transactions.acknowledge(results)]

    def _recorded(
        self,
        transaction: Transaction | None,
        after: Sequence[DedicatedIP],
        attempt: Attempt | None,
    ) -> Transaction:
        if transaction:
            return self._transactions.extend(transaction, after)
        account_id = after[0].assigned_to or ""
        return self._transactions.begin(Action.ASSIGN, account_id, after, attempt)

    def _give_up(self, transaction: Transaction | None, results: Sequence[Result]) -> None:
        """Put back what is taken.

        :raises DatastoreUnreachable: it is for lack of an answer that there is not enough
        """
        if transaction:
            self._transactions.roll_back(transaction, results)
        if any(result.fate in (Fate.UNKNOWN, Fate.UNDONE) for result in results):
            self._transactions.require([r for r in results if r.fate is not Fate.LOST])

    def _count(self, command: AllocateIPs) -> int:
        """How many there are to choose from, or how many places with some."""
        if command.distinct_hosts:
            hosts = self._views.hosts_available(command.zone)
            return sum(command.host in (None, host) for host in hosts)
        if command.distinct_zones:
            return sum(command.zone in (None, zone) for zone in self._views.zones_available())
        return self._views.count_available(command.zone, command.host)


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
