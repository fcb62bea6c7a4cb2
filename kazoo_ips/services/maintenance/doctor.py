"""Looks at everything once and says what is wrong; puts in order what can be, when asked to.

Safe while the service is busy: what was written within the last half minute is somebody's work
under way and left alone, and every repair looks again before and after it writes. Doing it twice
changes nothing more. An address with a status that only a newer release knows is that release's to
judge: it and the copies of it are left alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kazoo_ips.errors import Conflict, DatastoreForbidden, DatastoreMissing, IPNotFound
from kazoo_ips.model import DedicatedIP, Status, addresses
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.assigning.account_holdings import by_owner
from kazoo_ips.services.assigning.conflicts import GRACE, ConflictResolver, is_copy
from kazoo_ips.services.assigning.recovery import RecoveryService

_CHUNK = 1000

PROBLEMS = {
    "orphaned_transaction": "a request died half way; it is finished or taken back, as decided",
    "conflict": "several revisions; the acknowledged one stays",
    "withdrawn": "everybody withdrew and the address is gone; it is brought back",
    "copy_missing": "the owner's account has no copy; it is written",
    "copy_stale": "the copy in the owner's account differs; it is written again",
    "copy_extra": "an account has a copy but not the address; it is removed",
    "no_owner": "assigned to nobody; it is made available",
    "unknown_owner": "assigned to an account that does not exist; see `release --account`",
    "no_access": "CouchDB keeps the service out of this account; see `kazoo-ips secure`",
    "duplicate": "one address under two ids; one of them has to be deleted by hand",
    "not_an_address": "the id is not an address; it has to be deleted by hand",
}
"""What can be found, and what is done about it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and whether it was put in order."""

    problem: str
    address: str
    account_id: str | None = None
    repaired: bool = False


class DoctorService:
    """The examination.

    :param now: the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each thing it examines with
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        accounts: AccountService,
        recovery: RecoveryService,
        conflicts: ConflictResolver,
        now: Callable[[], int],
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._accounts = accounts
        self._recovery = recovery
        self._conflicts = conflicts
        self._now = now

    def extent(self) -> int:
        """How many things there are to look at, for a progress bar: addresses and accounts."""
        return self._ips.count() + len(self._accounts.list())

    def examine(
        self, *, repair: bool = False, seen: Callable[[int], object] = lambda count: None
    ) -> Iterator[Finding]:
        """Everything that is wrong.

        :param repair: whether to put in order what can be
        :param seen: called with how many things were looked at since the last call
        """
        yield from self._orphaned_transactions(repair)
        known: dict[str, str] = {}
        since, more = "0", True
        while more:
            since, withdrawn, ips, more = self._ips.changes(since, _CHUNK)
            yield from self._withdrawn(withdrawn, repair)
            for ip in ips:
                yield from self._one(ip, known, repair)
            yield from self._examine_copies([ip for ip in ips if not ip.conflicted], repair)
            seen(len(ips))
        for account in self._accounts.list():
            yield from self._extra_copies(account.id, repair)
            seen(1)

    def _orphaned_transactions(self, repair: bool) -> Iterator[Finding]:
        for orphan in self._recovery.orphaned():
            for address in orphan.addresses:
                yield Finding("orphaned_transaction", address, orphan.account_id, repair)
        if repair:
            self._recovery.recover()

    def _withdrawn(self, withdrawn: Sequence[str], repair: bool) -> Iterator[Finding]:
        for address in withdrawn:
            if self._ips.leaves(address).lost:
                yield Finding("withdrawn", address, repaired=repair and self._settle(address))

    def _settle(self, address: str) -> bool:
        try:
            self._conflicts.resolve(address)
        except (Conflict, IPNotFound):  # somebody is at it this moment
            return False
        return True

    def _one(self, ip: DedicatedIP, known: dict[str, str], repair: bool) -> Iterator[Finding]:
        """What is wrong with one document by itself."""
        canonical = addresses.canonical(ip.address)
        if canonical is None:
            yield Finding("not_an_address", ip.address)
            return
        if known.setdefault(canonical, ip.address) != ip.address:
            yield Finding("duplicate", ip.address, ip.assigned_to)
        if ip.conflicted:
            yield from self._conflict(ip, repair)
        elif ip.status is Status.ASSIGNED and not self._is_fresh(ip):
            if not ip.assigned_to:
                yield Finding("no_owner", ip.address, repaired=repair and self._free(ip))
            elif not self._has_owner(ip.assigned_to):
                yield Finding("unknown_owner", ip.address, ip.assigned_to)

    def _has_owner(self, account_id: str) -> bool:
        try:
            return self._accounts.exists(account_id)
        except DatastoreForbidden:
            return True  # there is a database, and it is reported that we are kept out

    def _conflict(self, ip: DedicatedIP, repair: bool) -> Iterator[Finding]:
        try:
            kept = self._conflicts.resolve(ip.address) if repair else ip
            yield Finding("conflict", ip.address, kept.assigned_to, repaired=repair)
        except (Conflict, IPNotFound):  # somebody is at it this moment
            yield Finding("conflict", ip.address, ip.assigned_to)

    def _free(self, ip: DedicatedIP) -> bool:
        free = replace(ip, status=Status.AVAILABLE, assigned_to=None, modified=self._now())
        return self._ips.save(free).revision is not None

    def _examine_copies(self, ips: Sequence[DedicatedIP], repair: bool) -> Iterator[Finding]:
        """Assigned addresses whose owner has no copy, or another one."""
        under_way = self._recovery.under_way()
        due = (
            ip
            for ip in ips
            if ip.has_known_status and not self._is_fresh(ip) and ip.address not in under_way
        )
        for owner_id, owned in by_owner(due).items():
            try:
                copies = self._copies.find(owner_id, [ip.address for ip in owned])
            except DatastoreMissing:
                continue  # reported as an unknown owner
            except DatastoreForbidden:
                for ip in owned:
                    yield Finding("no_access", ip.address, owner_id)
                continue
            for ip in owned:
                copy = copies.get(ip.address)
                if copy is None or not is_copy(copy, ip):
                    problem = "copy_stale" if copy else "copy_missing"
                    yield Finding(problem, ip.address, owner_id, repair and self._copy(ip))

    def _copy(self, ip: DedicatedIP) -> bool:
        """Write the copy, unless the address has gone elsewhere meanwhile."""
        now = self._ips.by_id([ip.address])[0].get(ip.address)
        if now is None or now.revision != ip.revision:
            return False
        self._copies.save([ip])
        self._conflicts.drop_copy(ip.assigned_to or "", ip.address)
        return True

    def _extra_copies(self, account_id: str, repair: bool) -> Iterator[Finding]:
        try:
            copies = self._copies.of_account(account_id)
        except DatastoreMissing:
            return
        except DatastoreForbidden:
            yield Finding("no_access", "", account_id)
            return
        pool = self._ips.find([copy.address for copy in copies])
        for copy in copies:
            ip = pool.get(copy.address)
            if ip and (ip.assigned_to == account_id or self._is_fresh(ip) or ip.conflicted):
                continue
            if ip and not ip.has_known_status:
                continue
            if repair:
                self._conflicts.drop_copy(account_id, copy.address)
            yield Finding("copy_extra", copy.address, account_id, repair)

    def _is_fresh(self, ip: DedicatedIP) -> bool:
        return self._now() - ip.modified < GRACE
