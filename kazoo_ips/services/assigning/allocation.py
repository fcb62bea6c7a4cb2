"""Allocation: available addresses for a request that names only a quantity: all of them, or none.

`supply.py` proposes addresses. The pool documents decide.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from kazoo_ips.errors import DatastoreUnreachable, InsufficientIPs, LimitReached, RuleBroken
from kazoo_ips.model import AllocateIPs, Attempt, DedicatedIP, Status
from kazoo_ips.observability import audit
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.transaction_log import Action, Transaction
from kazoo_ips.services.assigning.pool_writes import FinalOutcome, WriteResult
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.assigning.resumption import Resumption
from kazoo_ips.services.assigning.supply import SupplyService
from kazoo_ips.services.assigning.transactions import Record, TransactionService
from kazoo_ips.services.states.places import PlaceService

Take = Callable[..., DedicatedIP]

_ATTEMPTS = 6
"""Maximum number of attempts at an allocation while the views show enough addresses, and other
requests may change these."""


class AllocationService:
    """Chooses available addresses and assigns them: the requested quantity, or none.

    :param now: returns the time in Gregorian seconds
    :param pause: sleeps for a number of seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        supply: SupplyService,
        transactions: TransactionService,
        recovery: RecoveryService,
        resumption: Resumption,
        places: PlaceService,
        *,
        now: Callable[[], int],
        pause: Callable[[float], None],
    ) -> None:
        self._ips = ips
        self._supply = supply
        self._transactions = transactions
        self._recovery = recovery
        self._resumption = resumption
        self._places = places
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
        :raises LimitReached: a limit of the account permits fewer addresses
        :raises DatastoreUnreachable: the outcome is unknown, or CouchDB refuses the writes
        """
        done, _ = self._recovery.end_attempts(
            attempt, Action.ASSIGN, command.account_id, request_id
        )
        if done:
            return self._resumption.of_transaction(done)
        is_single = (
            command.quantity == 1
            and attempt is None
            and not self._transactions.is_needed(command.account_id)
        )
        take = partial(
            DedicatedIP.assign,
            account_id=command.account_id,
            **audit.stamp(self._now(), request_id, attempt),
        )
        return self._run(_Allocation(command, take, attempt, is_single, dry_run))

    def reserve(
        self,
        command: AllocateIPs,
        take: Take,
        record: Record,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        """Choose available addresses and reserve them; errors are those of `allocate`.

        :param take: returns a dedicated IP as it is reserved
        :param record: writes the reservation, before it is committed
        """
        return self._run(_Allocation(command, take, attempt, False, dry_run, record))

    def _run(self, allocation: "_Allocation") -> list[DedicatedIP]:
        command = allocation.command
        for number in range(_ATTEMPTS):
            if number:
                self._pause(random.uniform(0, 0.025 * 2**number))
            if self._try(allocation):
                return self._acknowledge(allocation)
            # Two requests for the same addresses can block each other: each has assigned some that
            # the other one needs. Both make them available again, and retry after random waits.
            available = self._supply.count(command)
            if available < command.quantity:
                break
            if not allocation.may_change:
                available = len(allocation.taken)
                break
        if allocation.transaction:
            self._transactions.abandon(allocation.transaction)
        resting, next_at = self._supply.resting(command)
        raise InsufficientIPs(
            command.quantity, min(available, command.quantity - 1), resting, next_at
        )

    def _try(self, allocation: "_Allocation") -> bool:
        """Try once to take the quantity.

        If too few addresses are available, make those that were taken available again, and return
        False.
        """
        command = allocation.command
        allocation.results, allocation.may_change = [], False
        tried: set[str] = set()
        while len(allocation.taken) < command.quantity:
            proposed = self._supply.propose(command, allocation.taken, tried, allocation.rooms)
            if not proposed or (not tried and len(proposed) < command.quantity):
                allocation.may_change |= not tried
                self._put_back(allocation)
                if allocation.reached:
                    if allocation.transaction:
                        self._transactions.abandon(allocation.transaction)
                    raise allocation.reached
                return False
            tried.update(proposed)
            found = self._ips.by_id(proposed)[0].values()
            candidates = [ip for ip in found if not ip.conflicted]
            allocation.may_change |= len(candidates) < len(proposed)
            try:
                if candidates:
                    self._take(allocation, candidates)
            except LimitReached as error:
                self._limit_zone(allocation, error)
                tried.difference_update(proposed)
        return True

    def _limit_zone(self, allocation: "_Allocation", reached: LimitReached) -> None:
        """Record how many addresses of a zone the limit of that zone still permits.

        The next proposal contains no more of them.

        :raises LimitReached: addresses of other zones would exceed the limit too, or the client
            has chosen the zone, or wants different hosts or zones; nothing is kept
        """
        command = allocation.command
        chosen = command.zone or command.distinct_hosts or command.distinct_zones
        if reached.zone is None or chosen or allocation.rooms.get(reached.zone) == 0:
            if allocation.transaction:
                self._transactions.roll_back(allocation.transaction, allocation.results)
            raise reached
        kept = sum(ip.zone == reached.zone for ip in allocation.taken)
        allocation.rooms[reached.zone] = max(reached.limit - reached.used, 0) + kept
        allocation.reached = reached

    def _take(self, allocation: "_Allocation", candidates: Sequence[DedicatedIP]) -> None:
        """Assign those of the proposed addresses that can be assigned.

        :raises DatastoreUnreachable: the outcome of a write is unknown; nothing is kept
        """
        account_id = allocation.command.account_id
        changes = self._assigned(allocation, candidates)
        if not changes:
            return
        before, after = zip(*changes, strict=True)
        if allocation.dry_run:
            allocation.results += [WriteResult(FinalOutcome.DONE, ip) for ip in after]
        elif allocation.is_single:
            allocation.results += self._transactions.write(before, after)
        else:
            transaction = allocation.transaction
            allocation.transaction = transaction = (
                self._transactions.extend(transaction, after, allocation.taken)
                if transaction
                else self._transactions.begin(
                    allocation.action, account_id, after, allocation.attempt
                )
            )
            allocation.results += self._transactions.prepare(transaction, before, after)
        outcomes = {result.outcome for result in allocation.results}
        allocation.may_change |= bool(outcomes - {FinalOutcome.DONE})
        if FinalOutcome.UNKNOWN in outcomes:
            if allocation.transaction:
                self._transactions.roll_back(allocation.transaction, allocation.results)
            raise DatastoreUnreachable("not known which addresses are taken")

    def _assigned(
        self, allocation: "_Allocation", candidates: Sequence[DedicatedIP]
    ) -> list[tuple[DedicatedIP, DedicatedIP]]:
        """Return these dedicated IPs before and after, without those that must not be assigned."""
        others, places = self._ips.others_by_view(candidates), self._places.places()
        changes = []
        for ip in candidates:
            same = others[ip.address]
            try:
                place = places.rules(ip.zone, ip.host)
                after = allocation.take(ip, others=same, place=place, early=True)
            except RuleBroken:
                allocation.may_change |= self._may_change(ip, same)
            else:
                changes.append((ip, after))
        return changes

    def _may_change(self, ip: DedicatedIP, others: Sequence[DedicatedIP]) -> bool:
        """Return whether a proposed address that cannot be assigned may be assignable soon.

        It may if it is no longer as it was proposed, or if a pending request may have assigned it
        in another spelling. It may not if it is unusable, or if its host is drained.
        """
        names = (other.transaction for other in others)
        pending = any(name and not self._recovery.is_ended(name) for name in names)
        return pending or ip.status is not Status.AVAILABLE

    def _put_back(self, allocation: "_Allocation") -> None:
        """Make the addresses available again that this attempt has taken.

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
            self._transactions.check(allocation.taken)
            return allocation.taken
        if allocation.transaction and allocation.record:
            return self._transactions.commit_reservation(
                allocation.transaction, allocation.results, allocation.record
            )
        if allocation.transaction:
            return self._transactions.commit_assignment(allocation.transaction, allocation.results)
        return [self._transactions.acknowledge(allocation.results)]


@dataclass
class _Allocation:
    """The state of one allocation.

    :param take: returns a dedicated IP as it is assigned, or reserved
    :param is_single: whether it is for one address without an Idempotency-Key and without limits,
        so that the document decides without a transaction
    :param record: writes a reservation, before it is committed; None for an assignment
    :param transaction: the transaction, from the first address on; None if `is_single`
    :param results: the results of the last attempt's writes
    :param may_change: whether another attempt may succeed: in the last one, other requests had
        changed addresses, or could still change them
    :param rooms: the number of addresses that the account's limits permit in zones that have
        reached theirs
    :param reached: the last of these limits
    """

    command: AllocateIPs
    take: Take
    attempt: Attempt | None
    is_single: bool
    dry_run: bool
    record: Record | None = None
    transaction: Transaction | None = None
    results: list[WriteResult] = field(default_factory=list)
    may_change: bool = False
    rooms: dict[str, int] = field(default_factory=dict)
    reached: LimitReached | None = None

    @property
    def action(self) -> Action:
        """What the transaction does."""
        return Action.RESERVE if self.record else Action.ASSIGN

    @property
    def taken(self) -> list[DedicatedIP]:
        """The dedicated IPs that this attempt has taken so far."""
        return [result.ip for result in self.results if result.outcome is FinalOutcome.DONE]
