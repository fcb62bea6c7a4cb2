"""Limits: how many addresses an account may have, exactly, however many requests are sent at once.

Where an account has a limit, a transaction decides about every assignment, also about that of one
address. After the transaction's record is written and before its first document, its addresses are
added to the account's ledger by a compare-and-swap (`model/limits.py`). If they do not fit, the
ledger is counted again from the documents, and then the request is refused.

A release writes no ledger. Released addresses, and those of transactions that a dead worker has
left, no longer count when the ledger is next counted.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from threading import Lock
from zlib import crc32

from kazoo_ips.errors import AccountNotFound, Conflict, DatastoreUnreachable, LimitReached
from kazoo_ips.model import Attempt, DedicatedIP
from kazoo_ips.model.limits import Ledger, Limits, counted_for
from kazoo_ips.observability import audit
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.limits import LimitIndex, LimitRepository
from kazoo_ips.repositories.reservations import ReservationRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.assigning.account_holdings import AccountHoldings
from kazoo_ips.services.assigning.recovery import LEASE, RecoveryService
from kazoo_ips.services.pool.lists import CHUNK

REFRESH = 2.0
"""Seconds between two reads of the index by the background work."""
MAX_AGE = 10
"""Seconds after which a request reads the index itself, because the background work has not."""
SETTLE = MAX_AGE + LEASE
"""Seconds after which no process assigns addresses without the limits that were set."""

_MAX_CLAIMS = 32
"""Number of claims in a ledger from which on it is counted again, to drop those that ended."""
_WAITS = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait for other transactions to end, before a request that does not fit is refused."""
_TRIES = 200
"""Maximum number of tries to write a ledger while other requests write it."""
_LOCKS = 64
_MAX_QUEUE = 0.5
"""Seconds that a thread waits for its turn to write a ledger. Then it goes on without it: while
CouchDB does not answer one thread, the others go on. The compare-and-swap decides anyway."""


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """The limits of an account, and what counts against them.

    :param used: the number of addresses that the account has
    :param zones: the number of these in each zone
    :param descendants: the number of addresses of the account and those below it; None unless that
        is limited
    :param exceeded_by: the number of addresses above the limit that is exceeded most
    """

    limits: Limits
    used: int
    zones: dict[str, int]
    descendants: int | None
    exceeded_by: int


@dataclass(frozen=True, slots=True)
class Miscount:
    """A ledger that lacks addresses, or whose limits are exceeded.

    :param missing: addresses that count and that the ledger lacks
    """

    account_id: str
    missing: list[str]
    exceeded_by: int
    repaired: bool


class LimitService:
    """Sets limits, and counts addresses against them.

    :param metrics: counts the requests that are refused, and the addresses above a limit
    :param now: returns the time in Gregorian seconds
    :param pause: sleeps for a number of seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        limits: LimitRepository,
        ips: IPRepository,
        reservations: ReservationRepository,
        accounts: AccountService,
        holdings: AccountHoldings,
        recovery: RecoveryService,
        metrics: Metrics,
        now: Callable[[], int],
        pause: Callable[[float], None],
    ) -> None:
        self._limits = limits
        self._ips = ips
        self._reservations = reservations
        self._accounts = accounts
        self._holdings = holdings
        self._recovery = recovery
        self._metrics = metrics
        self._now = now
        self._pause = pause
        self._index = LimitIndex()
        self._read_at = -MAX_AGE
        self._locks = [Lock() for _ in range(_LOCKS)]

    # Which accounts have limits.

    def refresh(self) -> None:
        """Read which accounts have limits.

        :raises DatastoreUnreachable: CouchDB did not answer
        """
        now = self._now()
        self._index, self._read_at = self._limits.index(), now

    def is_limited(self, account_id: str) -> bool:
        """Return whether a limit applies to an account: its own, or one of an account above it.

        :raises DatastoreUnreachable: that is not known
        """
        return bool(self._limited_by(account_id))

    def _limited_by(self, account_id: str) -> list[str]:
        """Return the accounts whose limits apply to an account."""
        if not 0 <= self._now() - self._read_at <= MAX_AGE:
            self.refresh()
        index = self._index
        above: Sequence[str] = ()
        if index.descendants:
            with suppress(AccountNotFound):
                above = self._accounts.fetch(account_id).tree
        shared = [each for each in above if each in index.descendants]
        return [*([account_id] if account_id in index.own | index.descendants else []), *shared]

    # The addresses of a transaction.

    def check(self, account_id: str, ips: Sequence[DedicatedIP]) -> list[Ledger]:
        """Check that an account may have these addresses besides those that it has.

        :returns: the ledgers of the limits that apply, for `claim`
        :raises LimitReached: a limit permits fewer addresses
        :raises DatastoreUnreachable: CouchDB did not answer
        """
        return [
            self._checked(owner_id, account_id, ips) for owner_id in self._limited_by(account_id)
        ]

    def claim(
        self,
        transaction: str,
        account_id: str,
        ips: Sequence[DedicatedIP],
        checked: Sequence[Ledger] = (),
    ) -> None:
        """Count addresses that a transaction may assign to an account or reserve for it.

        The record of the transaction exists, and the documents are not written yet.

        :param ips: all of them. A later claim of the transaction replaces its earlier one
        :param checked: what `check` has returned a moment ago
        :raises LimitReached: a limit permits fewer addresses
        :raises DatastoreUnreachable: it is unknown whether they are counted
        """
        known = {ledger.account_id: ledger for ledger in checked}
        for owner_id in self._limited_by(account_id):
            self._claim(owner_id, transaction, account_id, ips, known.get(owner_id))

    def _claim(
        self,
        owner_id: str,
        transaction: str,
        account_id: str,
        ips: Sequence[DedicatedIP],
        checked: Ledger | None,
    ) -> None:
        waits = iter(_WAITS)
        for _ in range(_TRIES):
            with self._turn(owner_id):
                ledger = checked or self._limits.find(owner_id) or Ledger(owner_id)
                counted, claimed = self._with_claim(ledger, transaction, account_id, ips)
                # A ledger without limits is left over from earlier limits.
                if isinstance(claimed, Ledger) and (
                    not claimed.limits.has_any or self._limits.put(claimed)
                ):
                    return
            checked = None
            if isinstance(claimed, LimitReached):
                self._wait(counted, claimed, waits)
            else:
                self._pause(random.uniform(0, 0.01))
        raise DatastoreUnreachable(f"the ledger of {owner_id} changes all the time")

    @contextmanager
    def _turn(self, owner_id: str) -> Iterator[None]:
        """Wait for the threads of this process that write the same ledger, but only briefly.

        Without this, many threads would read the same revision, and only one of them could write.
        """
        lock = self._locks[crc32(owner_id.encode()) % _LOCKS]
        is_mine = lock.acquire(timeout=_MAX_QUEUE)
        try:
            yield
        finally:
            if is_mine:
                lock.release()

    def _checked(self, owner_id: str, account_id: str, ips: Sequence[DedicatedIP]) -> Ledger:
        """Return the ledger of an account, in which there is room for addresses.

        :raises LimitReached: a limit permits fewer addresses, also after waiting for others
        """
        waits = iter(_WAITS)
        while True:
            ledger = self._limits.find(owner_id) or Ledger(owner_id)
            counted, claimed = self._with_claim(ledger, "", account_id, ips)
            if isinstance(claimed, Ledger):
                return counted
            self._wait(counted, claimed, waits)

    def _with_claim(
        self, ledger: Ledger, transaction: str, account_id: str, ips: Sequence[DedicatedIP]
    ) -> tuple[Ledger, Ledger | LimitReached]:
        """Return a ledger, counted again if that is necessary, and the same with addresses.

        Instead of the latter, it returns the limit that permits fewer addresses.
        """
        if ledger.is_settled and len(ledger.claims) < _MAX_CLAIMS:
            with suppress(LimitReached):
                claimed = ledger.with_claim(transaction, account_id, ips)
                # Above a limit the ledger may name a released address, which would be assigned as
                # if the account still had it.
                if not claimed.exceeded_by:
                    return ledger, claimed
        counted = self._counted(ledger, fully=not ledger.is_settled, without=transaction)
        try:
            return counted, counted.with_claim(transaction, account_id, ips)
        except LimitReached as reached:
            return counted, reached

    def _wait(self, counted: Ledger, reached: LimitReached, waits: Iterator[float]) -> None:
        """Wait for transactions under way, which may end without assigning their addresses.

        :param waits: the times that are left to wait
        :raises LimitReached: no transaction is under way, or it has taken too long
        """
        wait = next(waits, None) if counted.claims else None
        if wait is None:
            self._metrics.limits_reached.inc()
            raise reached
        self._pause(wait)

    # Counting.

    def _counted(self, ledger: Ledger, *, fully: bool, without: str | None = None) -> Ledger:
        """Return a ledger with exactly the addresses that count.

        The transactions are read before the documents. So the documents of a transaction that has
        ended agree with its decision, or still say that an address is assigned.

        :param fully: whether to look for addresses that the ledger lacks
        :param without: a transaction whose claim is dropped
        """
        now = self._now()
        claims = {
            name: addresses
            for name, addresses in ledger.claims.items()
            if name != without and self._recovery.is_under_way(name)
        }
        pending = {address for addresses in claims.values() for address in addresses}
        own = {address: zone for address, zone in ledger.own.items() if address in pending}
        below = {address for address in ledger.below if address in pending}
        accounts_below = self._below(ledger)
        found = self._candidates(ledger, accounts_below) if fully else set()
        candidates = ledger.addresses | found
        for ip in self._documents(sorted(candidates - pending)):
            owner_id = None if self._recovery.is_released(ip) else counted_for(ip, now)
            if owner_id == ledger.account_id:
                own[ip.address] = ip.zone
            elif owner_id and self._is_below(owner_id, ledger, accounts_below):
                below.add(ip.address)
        counted = now if fully else ledger.counted
        return replace(ledger, own=own, below=frozenset(below), claims=claims, counted=counted)

    def _candidates(self, ledger: Ledger, below: AbstractSet[str]) -> set[str]:
        """Return the addresses that the account, and accounts below it, may have or reserve."""
        owners = {ledger.account_id, *below}
        books = (
            self._reservations.books() if below else [self._reservations.book(ledger.account_id)]
        )
        reserved = (book.addresses for book in books if book.account_id in owners)
        return self._holdings.candidates_of(owners).union(*reserved)

    def _documents(self, addresses: Sequence[str]) -> Iterable[DedicatedIP]:
        for start in range(0, len(addresses), CHUNK):
            yield from self._ips.by_id(addresses[start : start + CHUNK])[0].values()

    def _below(self, ledger: Ledger) -> AbstractSet[str]:
        """Return the accounts whose addresses count as those of accounts below the ledger's."""
        if ledger.limits.descendants_max is None:
            return frozenset()
        return self._accounts.ids_below(ledger.account_id)

    def _is_below(self, owner_id: str, ledger: Ledger, below: AbstractSet[str]) -> bool:
        """Return whether the addresses of an account count as those of one below the ledger's.

        :param below: what `_below` has returned; it may lack an account that is new
        """
        if ledger.limits.descendants_max is None or owner_id in below:
            return owner_id in below
        try:
            return self._accounts.fetch(owner_id).is_within(ledger.account_id)
        except AccountNotFound:
            return False

    def count_others(self, ips: Iterable[DedicatedIP]) -> None:
        """Add addresses to the ledgers that lack them: another program has assigned them.

        :param ips: dedicated IPs as they are now
        :raises DatastoreUnreachable: CouchDB did not answer
        """
        now = self._now()
        by_account: dict[str, dict[str, str]] = {}
        for ip in ips:
            account_id = counted_for(ip, now)
            if account_id:
                by_account.setdefault(account_id, {})[ip.address] = ip.zone
        for account_id, zones in by_account.items():
            for owner_id in self._limited_by(account_id):
                self._count_others(owner_id, account_id, zones)

    def _count_others(self, owner_id: str, account_id: str, zones: dict[str, str]) -> None:
        for _ in range(_TRIES):
            ledger = self._limits.find(owner_id)
            if ledger is None:
                return
            named = ledger.own if account_id == owner_id else ledger.below
            missing = {address: zone for address, zone in zones.items() if address not in named}
            if not missing:
                return
            counted = ledger.with_addresses(account_id, missing)
            if counted.exceeded_by:  # it may name released addresses
                counted = self._counted(counted, fully=False)
            if self._limits.put(counted):
                if counted.exceeded_by:
                    self._metrics.limits_exceeded.inc(min(len(missing), counted.exceeded_by))
                return
            self._pause(random.uniform(0, 0.01))

    def examine(self, *, repair: bool) -> Iterable[Miscount]:
        """Count all ledgers again; yield those that lack addresses or whose limits are exceeded.

        :param repair: whether to add the missing addresses
        """
        for ledger in self._limits.all():
            if not ledger.limits.has_any:
                continue
            counted = self._counted(ledger, fully=True)
            missing = sorted(counted.addresses - ledger.addresses)
            if missing or counted.exceeded_by:
                repaired = bool(repair and missing and self._limits.put(counted))
                yield Miscount(ledger.account_id, missing, counted.exceeded_by, repaired)

    # The limits themselves.

    def status(self, account_id: str) -> LimitStatus:
        """Return the limits of an account, and what counts against them now."""
        ledger = self._limits.find(account_id) or Ledger(account_id)
        return _status(self._counted(ledger, fully=True))

    def set(
        self,
        account_id: str,
        limits: Limits,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> LimitStatus:
        """Replace the limits of an account. Limits that it has already are not written again.

        An account that has more addresses than a new limit permits keeps them.

        :raises Conflict: other requests change the ledger all the time
        :raises DatastoreUnreachable: it is unknown whether the limits are set
        """
        key = attempt.key if attempt else None
        ledger = self._limits.find(account_id)
        done = bool(key and ledger and ledger.attempt == key)  # by an earlier attempt
        if done or dry_run:
            ledger = ledger or Ledger(account_id)
            new = ledger if done else replace(ledger, limits=limits)
            return _status(self._counted(new, fully=True))
        if limits == (ledger.limits if ledger else Limits()):
            self._list(account_id)  # a worker that set these limits may have died before
            return _status(self._counted(ledger or Ledger(account_id), fully=True))
        # The index lists the account first, so every process reads the ledger once it exists.
        if limits.has_any:
            self._limits.list_account(account_id, limits)
        before, counted = self._write(account_id, limits, key)
        self._list(account_id)
        self.refresh()
        audit.limits_changed(account_id, before.limits, limits, request_id)
        return _status(counted)

    def _write(self, account_id: str, limits: Limits, key: str | None) -> tuple[Ledger, Ledger]:
        """Write the limits of an account; return its ledger before and after."""
        for _ in range(_TRIES):
            before, now = self._limits.find(account_id) or Ledger(account_id), self._now()
            new = replace(before.with_limits(limits, now, now + SETTLE), attempt=key)
            counted = self._counted(new, fully=True)
            if self._limits.put(counted):
                return before, counted
            self._pause(random.uniform(0, 0.01))
        raise Conflict

    def _list(self, account_id: str) -> None:
        """Make the index agree with the ledger.

        Another request may set the limits at the same time. Each of the two reads the ledger after
        it has written the index, so the last of them corrects it.
        """
        for _ in range(_TRIES):
            ledger = self._limits.find(account_id)
            limits = ledger.limits if ledger else Limits()
            self._limits.list_account(account_id, limits)
            after = self._limits.find(account_id)
            if (after.limits if after else Limits()) == limits:
                return


def _status(ledger: Ledger) -> LimitStatus:
    is_shared = ledger.limits.descendants_max is not None
    return LimitStatus(
        ledger.limits,
        len(ledger.own),
        ledger.used_in_zones,
        len(ledger.addresses) if is_shared else None,
        ledger.exceeded_by,
    )
