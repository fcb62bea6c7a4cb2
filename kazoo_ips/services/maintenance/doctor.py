"""The doctor: checks all documents once, and repairs problems on request.

It may run while the service is busy. It skips documents written within the last half minute,
because a request may still be working on them. Every repair reads the documents again before and
after it writes. A second run changes nothing more. The doctor also skips addresses with a status
that only a newer release knows, and their copies.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from kazoo_ips.errors import Conflict, DatastoreForbidden, IPNotFound
from kazoo_ips.model import DedicatedIP, Outcome, Status, addresses
from kazoo_ips.observability import audit
from kazoo_ips.observability.audit import Change
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.counts import CountRepository
from kazoo_ips.repositories.doctor_reports import Examined, Position
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.assigning.conflicts import GRACE, ConflictResolver
from kazoo_ips.services.assigning.limits import LimitService
from kazoo_ips.services.assigning.recovery import RecoveryService
from kazoo_ips.services.maintenance.copy_examination import CHUNK, READERS, CopyExaminer
from kazoo_ips.services.maintenance.findings import Finding
from kazoo_ips.services.pool.summaries import walk
from kazoo_ips.services.states.places import PlaceService


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
        limits: LimitService,
        lists: ListRepository,
        counts: CountRepository,
        places: PlaceService,
        now: Callable[[], int],
    ) -> None:
        self._ips = ips
        self._accounts = accounts
        self._recovery = recovery
        self._conflicts = conflicts
        self._examiner = CopyExaminer(ips, copies, lists, conflicts, recovery, self._is_fresh)
        self._limits = limits
        self._lists = lists
        self._counts = counts
        self._places = places
        self._now = now
        self.examined: Examined | None = None
        """How far the last examination of this object has come."""

    def size(self) -> int:
        """Return the number of addresses and accounts to check, for a progress bar."""
        return self._ips.count() + len(self._accounts.ids_of_all())

    def pool(self) -> str:
        """Return the id of the pool's database, which changes if it is created again."""
        return self._ips.history()

    def examine(
        self,
        *,
        repair: bool = False,
        seen: Callable[[int], object] = lambda count: None,
        after: Examined | None = None,
        resume: Position | None = None,
        reached: Callable[[Position], object] = lambda position: None,
    ) -> Iterator[Finding]:
        """Yield all problems. Afterwards, `examined` says how far the documents were examined.

        :param repair: whether to repair them
        :param seen: called with the number of addresses and accounts checked since the last call
        :param after: where an earlier examination ended: only addresses that have changed since
            are examined, and the copies of the accounts that had them lately
        :param resume: where an examination of all documents was interrupted; the problems that it
            found before are not found again
        :param reached: called with the position, when all problems before it were yielded
        """
        pool = self.pool()
        since = after.since if after and after.pool == pool else "0"
        is_partial, accounts = since != "0", set[str]()
        end, account = since, None
        if resume:
            _, since, end, account = resume
        yield from self._orphaned_transactions(repair)
        duplicates, owners = self._duplicates(), dict[str, bool]()
        more, is_settled = account is None, end == since
        while more:
            since, withdrawn, ips, more = self._ips.changes(since, CHUNK)
            yield from self._withdrawn(withdrawn, repair)
            self._look_up_owners(ips, owners)
            for ip in ips:
                yield from self._document(ip, duplicates, owners, repair)
                accounts |= ip.accounts if is_partial else set()
            # Addresses that are too recent to be examined are examined again the next time.
            is_settled = is_settled and not any(map(self._is_fresh, ips))
            end = since if is_settled else end
            reached(Position(pool, since, end, None if more else ""))
            seen(len(ips))
        sizes = dict.fromkeys(accounts) if is_partial else self._all_accounts()
        left = {each: sizes[each] for each in sorted(sizes) if each > (account or "")}
        for account_id, findings in self._examiner.examine(left, repair):
            yield from findings
            reached(Position(pool, since, end, account_id))
            seen(1)
        if not is_partial:
            yield from self._miscounted(repair)
        self.examined = Examined(pool, end)

    def _miscounted(self, repair: bool) -> Iterator[Finding]:
        for miscount in self._limits.examine(repair=repair):
            for address in miscount.missing:
                yield Finding("not_counted", address, miscount.account_id, miscount.repaired)
            if miscount.exceeded_by:
                yield Finding("limit_exceeded", "", miscount.account_id)

    def _duplicates(self) -> set[str]:
        """Return the ids of documents whose address has another document, which is the one to use.

        Such an address has an id in another spelling, of which there are few.
        """
        spelled = self._lists.other_spellings()
        canonical = self._ips.by_id(list(spelled))[0] if spelled else {}
        return {
            document_id
            for address, ids in spelled.items()
            for document_id in sorted(ids)[address not in canonical :]
        }

    def _all_accounts(self) -> dict[str, int | None]:
        """Return all accounts, also those that have addresses and do not exist.

        Each has the number of its addresses.
        """
        sizes: dict[str, int | None] = dict.fromkeys(self._accounts.ids_of_all(), 0)
        return sizes | {each.name: each.total for each in walk(self._counts.by_account)}

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

    def _document(
        self, ip: DedicatedIP, duplicates: set[str], owners: dict[str, bool], repair: bool
    ) -> Iterator[Finding]:
        """Yield the problems that one document shows by itself.

        :param duplicates: the ids of documents whose address has a better one
        :param owners: whether each account exists
        """
        canonical = addresses.canonical(ip.address)
        if canonical is None:
            yield Finding("not_an_address", ip.address)
            return
        if addresses.unusable(canonical):
            yield Finding("unusable", ip.address, ip.assigned_to)
        if ip.address in duplicates:
            yield Finding("duplicate", ip.address, ip.assigned_to)
        if ip.conflicted:
            yield from self._conflict(ip, repair)
        elif not self._is_fresh(ip):
            if ip.status is Status.ASSIGNED:
                yield from self._wrong_owner(ip, owners, repair)
            else:
                yield from self._wrong_state(ip, repair)

    def _wrong_owner(
        self, ip: DedicatedIP, owners: dict[str, bool], repair: bool
    ) -> Iterator[Finding]:
        """Yield whether an assigned address has no account, or one that does not exist."""
        if not ip.assigned_to:
            yield Finding("no_owner", ip.address, repaired=repair and self._release(ip))
        elif not owners[ip.assigned_to]:
            yield Finding("unknown_owner", ip.address, ip.assigned_to)

    def _wrong_state(self, ip: DedicatedIP, repair: bool) -> Iterator[Finding]:
        """Yield whether an address is available although it must not be assigned."""
        at, by = self._now(), audit.author()
        corrected = ip.corrected(
            place=self._places.rules(ip), at=at, request_id=ip.request_id or "doctor", by=by
        )
        if corrected is None:
            return
        done = repair and self._ips.save(corrected).outcome is Outcome.DONE
        if done:
            audit.changed(Change(str(corrected.trail[-1].kind)), [ip], [corrected])
        yield Finding("held_back", ip.address, repaired=done)

    def _look_up_owners(self, ips: Sequence[DedicatedIP], owners: dict[str, bool]) -> None:
        """Extend `owners` by whether the accounts of these addresses exist. Several are read at
        a time.
        """
        unknown = sorted({ip.assigned_to for ip in ips if ip.assigned_to} - owners.keys())
        with ThreadPoolExecutor(READERS) as readers:
            reading = [readers.submit(copy_context().run, self._exists, each) for each in unknown]
            owners.update(zip(unknown, (each.result() for each in reading), strict=True))

    def _exists(self, account_id: str) -> bool:
        try:
            return self._accounts.exists(account_id)
        except DatastoreForbidden:
            # The database exists. The missing permission is reported elsewhere.
            return True

    def _conflict(self, ip: DedicatedIP, repair: bool) -> Iterator[Finding]:
        try:
            kept = self._conflicts.resolve(ip.address) if repair else ip
            yield Finding("conflict", ip.address, kept.assigned_to, repaired=repair)
        except (Conflict, IPNotFound):  # another client is writing to it
            yield Finding("conflict", ip.address, ip.assigned_to)

    def _release(self, ip: DedicatedIP) -> bool:
        request_id = ip.request_id or "doctor"
        at, by, place = self._now(), audit.author(), self._places.rules(ip)
        released = ip.release(None, at=at, request_id=request_id, by=by, place=place)
        written = self._ips.save(released)
        if written.outcome is Outcome.DONE:
            to = {ip.address: released.status}
            audit.released([ip.address], None, ip.request_id, to=to)
        return written.revision is not None

    def _is_fresh(self, ip: DedicatedIP) -> bool:
        return self._now() - ip.modified < GRACE
