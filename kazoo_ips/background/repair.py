"""Every address is looked at once more half a minute after it changed, and put in order.

By then whoever wrote it has ended, one way or another. What was killed half way is finished or
taken back, conflicts and withdrawals are settled, and the copies follow the pool: of the owner,
and of everybody who had the address in the last day.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from cachetools import TTLCache

from kazoo_ips.errors import (
    DatastoreError,
    DatastoreForbidden,
    DatastoreMissing,
    IPNotFound,
    KazooIPsError,
)
from kazoo_ips.model import Changed, DedicatedIP
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.services.assigning.conflicts import GRACE, ConflictResolver, is_copy
from kazoo_ips.services.assigning.recovery import RecoveryService

log = logging.getLogger(__name__)

DELAY = GRACE
"""Seconds after a change that its address is looked at."""
_TIMES = 5
"""Times in an hour that one copy is mended. Each may write the pool's document, which is a change
again: what does not stay mended would be mended for ever."""


class _Copy(NamedTuple):
    """A copy that may be there or not."""

    account_id: str
    address: str


class RepairService:
    """Puts in order what was written a while ago.

    :param now: the time in Gregorian seconds
    :param metrics: where what is mended is counted
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        conflicts: ConflictResolver,
        recovery: RecoveryService,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._conflicts = conflicts
        self._recovery = recovery
        self._now = now
        self._metrics = metrics
        self._mended: TTLCache[_Copy, int] = TTLCache(10_000, 3600)

    def look(self, changes: Collection[Changed]) -> set[Changed]:
        """Put these addresses in order.

        :returns: those that have to be looked at once more
        :raises DatastoreUnreachable: nothing is known of them
        """
        found, _ = self._ips.by_id({change.address for change in changes})
        if any(ip.transaction for ip in found.values()):
            self._recovery.recover()
        again: set[str] = set()
        wanted: dict[str, set[str]] = {}
        for change in changes:
            ip = found.get(change.address)
            accounts = {*change.accounts, *(ip.accounts if ip else ())}
            try:
                if change.withdrawn or (ip and ip.conflicted):
                    accounts |= self._settle(change.address)
            except KazooIPsError as error:
                log.warning("%s: not settled yet: %s", change.address, error)
                again.add(change.address)
                continue
            for account_id in accounts:
                wanted.setdefault(account_id, set()).add(change.address)
        again |= self._mend(wanted)
        return {change for change in changes if change.address in again}

    def _settle(self, address: str) -> set[str]:
        """Settle one address; the accounts that any of its revisions speaks of.

        :raises Conflict: it is too fresh to tell
        """
        leaves = self._ips.leaves(address).live
        with suppress(IPNotFound):  # somebody deleted it
            self._conflicts.resolve(address)
        return {account_id for leaf in leaves for account_id in leaf.accounts}

    def _mend(self, wanted: Mapping[str, Iterable[str]]) -> set[str]:
        """Mend the accounts' copies of these addresses; those to be looked at once more."""
        copies: dict[_Copy, DedicatedIP | None] = {}
        again: set[str] = set()
        for account_id, addresses in wanted.items():
            try:
                there = self._copies.find(account_id, addresses)
            except (DatastoreMissing, DatastoreForbidden):
                continue  # the account is gone, or the doctor names it
            except DatastoreError as error:
                log.warning("account %s: not looked at yet: %s", account_id, error)
                again |= set(addresses)
                continue
            copies |= {_Copy(account_id, a): there.get(a) for a in addresses}
        wrong, early = self._wrong(copies)
        for account_id in sorted({copy.account_id for copy in wrong}):
            again |= self._mend_account([c for c in wrong if c.account_id == account_id])
        return again | early

    def _wrong(self, copies: Mapping[_Copy, DedicatedIP | None]) -> tuple[list[_Copy], set[str]]:
        """Those that are not as the pool has them, and addresses that somebody may be at now.

        The pool is read after the copies: one that is written after that is not among them.
        """
        pool, _ = self._ips.by_id({copy.address for copy in copies})
        wrong = [copy for copy, there in copies.items() if not _is_right(copy, there, pool)]
        if not wrong:
            return [], set()
        busy = self._recovery.under_way()
        busy |= {address for address, ip in pool.items() if self._now() - ip.modified < GRACE}
        early = {copy.address for copy in wrong} & busy
        return [copy for copy in wrong if copy.address not in early], early

    def _mend_account(self, wrong: Sequence[_Copy]) -> set[str]:
        """Mend copies of one account; what is written is looked at once more."""
        for copy in wrong:
            self._mended[copy] = self._mended.get(copy, 0) + 1
        for copy in (c for c in wrong if self._mended[c] > _TIMES):
            log.error("account %s: its copy of %s does not stay mended", *copy)
        due = [copy.address for copy in wrong if self._mended[copy] <= _TIMES]
        if due:
            account_id = wrong[0].account_id
            log.warning("account %s: mending the copies of %d addresses", account_id, len(due))
            self._metrics.copies_mended.inc(len(due))
            try:
                self._conflicts.repair_copies(account_id, due)
            except KazooIPsError as error:
                log.warning("account %s: not mended yet: %s", account_id, error)
        return set(due)


def _is_right(copy: _Copy, there: DedicatedIP | None, pool: Mapping[str, DedicatedIP]) -> bool:
    ip = pool.get(copy.address)
    if ip and not ip.has_known_status:
        return True  # a newer release judges it
    if ip is None or ip.assigned_to != copy.account_id:
        return there is None
    return there is not None and not there.conflicted and is_copy(there, ip)
