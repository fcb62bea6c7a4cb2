"""The doctor: checks all documents once, and repairs problems on request.

It may run while the service is busy. It skips documents written within the last half minute,
because a request may still be working on them. Every repair reads the documents again before and
after it writes. A second run changes nothing more. The doctor also skips addresses with a status
that only a newer release knows, and their copies.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kazoo_ips.errors import Conflict, DatastoreForbidden, DatastoreMissing, IPNotFound
from kazoo_ips.model import DedicatedIP, Outcome, Status, addresses
from kazoo_ips.observability import audit
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.assigning.account_holdings import by_owner
from kazoo_ips.services.assigning.conflicts import GRACE, ConflictResolver, is_copy
from kazoo_ips.services.assigning.recovery import RecoveryService

_CHUNK = 1000

PROBLEMS = {
    "orphaned_transaction": "a worker died during a transaction; it is committed or rolled back",
    "conflict": "conflicting revisions; the acknowledged one is kept",
    "withdrawn": "all writers withdrew their writes, so the address is missing; it is restored",
    "copy_missing": "the account has no copy of its address; the copy is written",
    "copy_stale": "the account's copy differs from the pool; the copy is written again",
    "copy_extra": "the account has a copy of an address not assigned to it; the copy is deleted",
    "no_owner": "assigned, but to no account; it is made available",
    "unknown_owner": "assigned to an account that does not exist; see `release --account`",
    "no_access": "CouchDB refuses access to this account; see `kazoo-ips secure`",
    "duplicate": "one address has two documents; only one can be assigned; delete one by hand",
    "unusable": "no proxy can have this address; it is never assigned, and can be deleted",
    "not_an_address": "the id is not an address; delete the document by hand",
}
"""The problems that are found, each with its meaning and its repair."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, and whether it was repaired."""

    problem: str
    address: str
    account_id: str | None = None
    repaired: bool = False


class DoctorService:
    """Checks all documents of the pool and of the accounts.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
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

    def size(self) -> int:
        """Return the number of addresses and accounts to check, for a progress bar."""
        return self._ips.count() + len(self._accounts.list())

    def examine(
        self, *, repair: bool = False, seen: Callable[[int], object] = lambda count: None
    ) -> Iterator[Finding]:
        """Yield all problems.

        :param repair: whether to repair them
        :param seen: called with the number of addresses and accounts checked since the last call
        """
        yield from self._orphaned_transactions(repair)
        ids: dict[str, str] = {}
        since, more = "0", True
        while more:
            since, withdrawn, ips, more = self._ips.changes(since, _CHUNK)
            yield from self._withdrawn(withdrawn, repair)
            for ip in ips:
                yield from self._document(ip, ids, repair)
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
            if self._ips.leaves(address).restorable:
                yield Finding("withdrawn", address, repaired=repair and self._restore(address))

    def _restore(self, address: str) -> bool:
        try:
            self._conflicts.resolve(address)
        except (Conflict, IPNotFound):  # another client is writing to it
            return False
        return True

    def _document(self, ip: DedicatedIP, ids: dict[str, str], repair: bool) -> Iterator[Finding]:
        """Yield the problems that one document shows by itself.

        :param ids: the document id of each canonical address so far; extended by this call
        """
        canonical = addresses.canonical(ip.address)
        if canonical is None:
            yield Finding("not_an_address", ip.address)
            return
        if addresses.unusable(canonical):
            yield Finding("unusable", ip.address, ip.assigned_to)
        if ids.setdefault(canonical, ip.address) != ip.address:
            yield Finding("duplicate", ip.address, ip.assigned_to)
        if ip.conflicted:
            yield from self._conflict(ip, repair)
        elif ip.status is Status.ASSIGNED and not self._is_fresh(ip):
            if not ip.assigned_to:
                yield Finding("no_owner", ip.address, repaired=repair and self._release(ip))
            elif not self._has_owner(ip.assigned_to):
                yield Finding("unknown_owner", ip.address, ip.assigned_to)

    def _has_owner(self, account_id: str) -> bool:
        try:
            return self._accounts.exists(account_id)
        except DatastoreForbidden:
            return True  # the database exists; the missing permission is reported elsewhere

    def _conflict(self, ip: DedicatedIP, repair: bool) -> Iterator[Finding]:
        try:
            kept = self._conflicts.resolve(ip.address) if repair else ip
            yield Finding("conflict", ip.address, kept.assigned_to, repaired=repair)
        except (Conflict, IPNotFound):  # another client is writing to it
            yield Finding("conflict", ip.address, ip.assigned_to)

    def _release(self, ip: DedicatedIP) -> bool:
        available = replace(ip, status=Status.AVAILABLE, assigned_to=None, modified=self._now())
        written = self._ips.save(available)
        if written.outcome is Outcome.DONE:
            audit.released([ip.address], None, ip.request_id)
        return written.revision is not None

    def _examine_copies(self, ips: Sequence[DedicatedIP], repair: bool) -> Iterator[Finding]:
        """Yield the assigned addresses whose account has no copy, or a copy that differs."""
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
                    yield Finding(problem, ip.address, owner_id, repair and self._write_copy(ip))

    def _write_copy(self, ip: DedicatedIP) -> bool:
        """Write the copy; return whether the account has it."""
        self._conflicts.drop_copy(ip.assigned_to or "", ip.address)
        return self._conflicts.is_acknowledged(ip)

    def _extra_copies(self, account_id: str, repair: bool) -> Iterator[Finding]:
        try:
            copies = self._copies.of_account(account_id)
        except DatastoreMissing:
            return
        except DatastoreForbidden:
            yield Finding("no_access", "", account_id)
            return
        pool = self._ips.by_id([copy.address for copy in copies])[0]
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
