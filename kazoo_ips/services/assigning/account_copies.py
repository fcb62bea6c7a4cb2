"""The copies of dedicated IPs in account databases, which Kazoo's billing counts.

The service writes a copy after the pool document, as the last write of an assignment. So the copy
is also the evidence that an assignment was acknowledged.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial

from kazoo_ips.errors import DatastoreForbidden, DatastoreMissing, DatastoreUnreachable
from kazoo_ips.model import DedicatedIP, Listing, Outcome
from kazoo_ips.observability import audit
from kazoo_ips.processes.recent_writes import RecentWrites
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.conflicts import ConflictResolver
from kazoo_ips.services.pool.lists import CHUNK, ListService

log = logging.getLogger(__name__)

Find = Callable[[], Mapping[str, DedicatedIP]]

_PARALLEL_READ = 200
"""Minimum number of addresses for which a thread reads the copies while the pool is written. For
fewer addresses the thread takes longer than the read."""


_PARALLEL_ACCOUNTS, _THREADS = 8, 4
"""From this number of accounts on, this number of threads writes the copies of a change."""


class AccountCopyService:
    """Writes and removes copies, and brings all copies up to date.

    :param recent: where the assignments of this instance are recorded, for `AccountHoldings`
    :param schedule_check: schedules a later check of an address, and of an account's copy of it
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        lists: ListService,
        conflicts: ConflictResolver,
        recent: RecentWrites,
        schedule_check: Callable[[str, str], None],
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._lists = lists
        self._conflicts = conflicts
        self._recent = recent
        self.schedule_check = schedule_check

    def expect_change(self, account_id: str) -> None:
        """Announce that a copy of an account is going to be written or removed soon."""
        self._copies.expect_change(account_id)

    def write(self, ips: Sequence[DedicatedIP]) -> None:
        """Write the copies of addresses whose assignment has a quorum.

        :raises DatastoreUnreachable: it is unknown whether all copies are written
        """
        try:
            written = self._copies.save(ips)
            outcomes = zip(ips, written, strict=True)
            uncertain = (ip for ip, w in outcomes if w.outcome is not Outcome.DONE)
            if all(map(self._conflicts.is_acknowledged, uncertain)):
                self._record(ips)
                return
        except DatastoreForbidden:
            raise  # CouchDB refused it, so a retry would be refused too
        except (DatastoreMissing, DatastoreUnreachable) as error:
            log.warning("the copies could not be written: %s", error)
        raise DatastoreUnreachable("the copies are not written to the account's database")

    def _record(self, ips: Iterable[DedicatedIP]) -> None:
        """Record assignments that are about to be acknowledged, if views may lag behind them."""
        if self._ips.replicas > 1:
            for account_id, owned in by_owner(ips).items():
                self._recent.add(account_id, [ip.address for ip in owned])

    def follow(self, ips: Sequence[DedicatedIP]) -> set[str]:
        """Write the copies of assigned addresses that were changed, and return the addresses.

        A copy that cannot be written now is written later. An account without a database has no
        copies.

        :param ips: the dedicated IPs as they are now; those that are not assigned have no copy
        :returns: the addresses without those whose copies may not be written
        """
        self._record(ips)
        batches = list(by_owner(ips).items())
        if len(batches) < _PARALLEL_ACCOUNTS:
            late = [self._follow(*batch) for batch in batches]
        else:
            with ThreadPoolExecutor(_THREADS) as executor:
                follow = [partial(self._follow, *batch) for batch in batches]
                calls = [executor.submit(copy_context().run, each) for each in follow]
                late = [call.result() for call in calls]
        return {ip.address for ip in ips}.difference(*late)

    def _follow(self, owner_id: str, ips: Sequence[DedicatedIP]) -> set[str]:
        """Write copies of one account; return the addresses whose copies may not be written."""
        try:
            written = self._copies.overwrite(owner_id, ips)
            outcomes = zip(ips, written, strict=True)
            late = [ip for ip, w in outcomes if w.outcome is not Outcome.DONE]
            late = [ip for ip in late if not self._conflicts.is_acknowledged(ip)]
        except DatastoreMissing:
            return set()
        except DatastoreUnreachable as error:
            log.warning("account %s: copies are not written yet: %s", owner_id, error)
            late = list(ips)
        for ip in late:
            self.schedule_check(ip.address, owner_id)
        return {ip.address for ip in late}

    def remove(self, ips: Sequence[DedicatedIP], release: DedicatedIP | None = None) -> None:
        """Remove the copies of released addresses.

        The pool document has decided already. So a copy that cannot be removed now is checked
        later, and the release succeeds.

        :param ips: the dedicated IPs as they were before the release
        :param release: a single address after its release, if a majority has the release. The
            tombstone of the copy records it, so that this release is kept if another release of
            the same assignment appears later
        """
        owned = by_owner(ips).items()
        self._remove_all(
            {owner: (released, self._copy_reader(released)) for owner, released in owned}, release
        )

    def repair(self, account_id: str, addresses: Iterable[str]) -> None:
        """Write the copies that an account lacks and remove those that it should not have."""
        self._conflicts.repair_copies(account_id, addresses)

    @contextmanager
    def removal(self, ips: Sequence[DedicatedIP]) -> Iterator[Callable[[], None]]:
        """Yield a function that removes the copies of released addresses, as `remove` does.

        The copies of many addresses are read in a thread while the body of the `with` statement
        runs. A copy that is written after this read has another revision and is not removed.
        """
        if len(ips) < _PARALLEL_READ:
            yield lambda: self.remove(ips)
            return
        with ThreadPoolExecutor(1) as executor:
            reads = {}
            for owner, released in by_owner(ips).items():
                read = executor.submit(copy_context().run, self._copy_reader(released))
                reads[owner] = (released, read.result)
            yield lambda: self._remove_all(reads)

    def _copy_reader(self, ips: Sequence[DedicatedIP]) -> Find:
        return lambda: self._copies.find(ips[0].assigned_to or "", [ip.address for ip in ips])

    def _remove_all(
        self,
        owned: Mapping[str, tuple[Sequence[DedicatedIP], Find]],
        release: DedicatedIP | None = None,
    ) -> None:
        for owner_id, (released, find_copies) in owned.items():
            try:
                incomplete = self._remove(owner_id, released, find_copies(), release)
            except DatastoreMissing:
                continue
            except DatastoreUnreachable:
                incomplete = True
            if incomplete:
                log.warning("account %s: copies of released addresses remain", owner_id)
                for ip in released:
                    self.schedule_check(ip.address, owner_id)

    def _remove(
        self,
        owner_id: str,
        released: Sequence[DedicatedIP],
        copies: Mapping[str, DedicatedIP],
        release: DedicatedIP | None,
    ) -> bool:
        """Remove an account's copies of exactly these assignments; return whether some may remain.

        If an address was assigned to the account again, its new copy stays. A copy may also arrive
        later: an address can be released before the request that assigned it has written its copy.
        """
        outdated = [
            copies[ip.address]
            for ip in released
            if ip.address in copies and copies[ip.address].is_copy_of(ip)
        ]
        written = self._copies.drop(owner_id, outdated, release)
        if len(outdated) < len(released):
            self._conflicts.repair_copies(owner_id, [ip.address for ip in released])
            return True
        return any(w.outcome is not Outcome.DONE for w in written)

    def refresh(self) -> tuple[int, Iterator[int]]:
        """Write the copies that are missing or differ from the pool.

        :returns: how many addresses are assigned, and an iterator that does the work; it yields
            how many addresses it has checked since the last step
        """
        assigned = self._lists.all_assigned()
        return len(assigned), self._refresh(assigned)

    def _refresh(self, assigned: Sequence[Listing]) -> Iterator[int]:
        for start in range(0, len(assigned), CHUNK):
            chunk = assigned[start : start + CHUNK]
            pool = self._ips.by_id([row.address for row in chunk])[0].values()
            supported = (ip for ip in pool if ip.has_known_status)
            for owner_id, ips in by_owner(supported).items():
                self._refresh_account(owner_id, ips)
            yield len(chunk)

    def _refresh_account(self, owner_id: str, ips: Sequence[DedicatedIP]) -> None:
        try:
            copies = self._copies.find(owner_id, [ip.address for ip in ips])
            stale = [ip for ip in ips if not _is_current(copies.get(ip.address), ip)]
            written = self._copies.save(stale)
            outcomes = zip(stale, written, strict=True)
            audit.copies_written(ip for ip, w in outcomes if w.outcome is Outcome.DONE)
        except DatastoreMissing:
            log.warning("account %s has no database, but %d addresses", owner_id, len(ips))
        except DatastoreForbidden as error:
            log.warning("account %s: %s", owner_id, error)


def by_owner(ips: Iterable[DedicatedIP]) -> dict[str, list[DedicatedIP]]:
    """Return those of these dedicated IPs that are assigned, grouped by account."""
    owned: dict[str, list[DedicatedIP]] = {}
    for ip in ips:
        if ip.assigned_to:
            owned.setdefault(ip.assigned_to, []).append(ip)
    return owned


def _is_current(copy: DedicatedIP | None, ip: DedicatedIP) -> bool:
    """Return whether a copy equals the pool document, field for field."""
    return copy is not None and copy.assignment == ip.assignment
