"""Repair of every address half a minute after its document changed.

By then the request that wrote the document has ended. If its worker was killed, its transaction is
rolled forward or rolled back here. Conflicts are resolved and withdrawn addresses restored. Then
the copies are made to agree with the pool: those of the owner, and of every account that had the
address lately. Addresses that another program has assigned are counted against the limits.
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
from kazoo_ips.services.assigning.conflicts import GRACE, ConflictResolver
from kazoo_ips.services.assigning.limits import LimitService
from kazoo_ips.services.assigning.recovery import RecoveryService

log = logging.getLogger(__name__)

DELAY = GRACE
"""Seconds between a change and the check of its address."""
_TIMES = 5
"""Maximum number of repairs of one copy in an hour. A repair may write the pool document, and that
write is a change of its own. Without the maximum, a copy that is wrong after each repair would be
repaired for ever."""


class _Copy(NamedTuple):
    """The key of a copy. The copy may be missing."""

    account_id: str
    address: str


class RepairService:
    """Repairs addresses whose documents changed a while ago.

    :param now: returns the time in Gregorian seconds
    :param metrics: counts the copies that are repaired
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        conflicts: ConflictResolver,
        recovery: RecoveryService,
        limits: LimitService,
        now: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._conflicts = conflicts
        self._recovery = recovery
        self._limits = limits
        self._now = now
        self._metrics = metrics
        self._repairs: TTLCache[_Copy, int] = TTLCache(10_000, 3600)

    def check(self, changes: Collection[Changed]) -> set[Changed]:
        """Check these addresses and repair them.

        :returns: the changes whose addresses have to be checked again
        :raises DatastoreUnreachable: the pool documents cannot be read
        """
        found, _ = self._ips.by_id({change.address for change in changes})
        if any(ip.transaction for ip in found.values()):
            self._recovery.recover()
        self._limits.count_others(ip for ip in found.values() if not ip.conflicted)
        recheck: set[str] = set()
        to_check: dict[str, set[str]] = {}
        for change in changes:
            ip = found.get(change.address)
            accounts = {*change.accounts, *(ip.accounts if ip else ())}
            try:
                if change.withdrawn or (ip and ip.conflicted):
                    accounts |= self._resolve(change.address)
            except KazooIPsError as error:
                log.warning("%s: not resolved yet: %s", change.address, error)
                recheck.add(change.address)
                continue
            for account_id in accounts:
                to_check.setdefault(account_id, set()).add(change.address)
        recheck |= self._repair_copies(to_check)
        return {change for change in changes if change.address in recheck}

    def _resolve(self, address: str) -> set[str]:
        """Resolve the conflicts of one address; return the accounts that its revisions name.

        :raises Conflict: the conflict is too recent to resolve
        """
        leaves = self._ips.leaves(address).live
        with suppress(IPNotFound):  # a client deleted the address
            self._conflicts.resolve(address)
        return {account_id for leaf in leaves for account_id in leaf.accounts}

    def _repair_copies(self, to_check: Mapping[str, Iterable[str]]) -> set[str]:
        """Repair the accounts' copies of these addresses; return the addresses to check again."""
        copies: dict[_Copy, DedicatedIP | None] = {}
        recheck: set[str] = set()
        for account_id, addresses in to_check.items():
            try:
                found = self._copies.find(account_id, addresses)
            except (DatastoreMissing, DatastoreForbidden):
                continue  # the account is deleted, or the doctor reports the missing rights
            except DatastoreError as error:
                log.warning("account %s: not checked yet: %s", account_id, error)
                recheck |= set(addresses)
                continue
            copies |= {_Copy(account_id, a): found.get(a) for a in addresses}
        wrong, busy = self._wrong(copies)
        for account_id in sorted({copy.account_id for copy in wrong}):
            recheck |= self._repair_account([c for c in wrong if c.account_id == account_id])
        return recheck | busy

    def _wrong(self, copies: Mapping[_Copy, DedicatedIP | None]) -> tuple[list[_Copy], set[str]]:
        """Return the copies that disagree with the pool, and the addresses that are in use.

        An address is in use if a request may be writing to it now: it is checked again later. The
        copies were read before the pool, so a copy that is written later is not compared with an
        outdated pool document.
        """
        pool, _ = self._ips.by_id({copy.address for copy in copies})
        wrong = [copy for copy, document in copies.items() if not _is_right(copy, document, pool)]
        if not wrong:
            return [], set()
        in_use = self._recovery.under_way()
        in_use |= {address for address, ip in pool.items() if self._now() - ip.modified < GRACE}
        busy = {copy.address for copy in wrong} & in_use
        return [copy for copy in wrong if copy.address not in busy], busy

    def _repair_account(self, wrong: Sequence[_Copy]) -> set[str]:
        """Repair copies of one account; return the addresses of those that were written."""
        for copy in wrong:
            self._repairs[copy] = self._repairs.get(copy, 0) + 1
        for copy in (c for c in wrong if self._repairs[c] > _TIMES):
            log.error("account %s: its copy of %s does not stay repaired", *copy)
        due = [copy.address for copy in wrong if self._repairs[copy] <= _TIMES]
        if due:
            account_id = wrong[0].account_id
            log.warning("account %s: repairing the copies of %d addresses", account_id, len(due))
            self._metrics.copies_repaired.inc(len(due))
            try:
                self._conflicts.repair_copies(account_id, due)
            except KazooIPsError as error:
                log.warning("account %s: not repaired yet: %s", account_id, error)
        return set(due)


def _is_right(copy: _Copy, document: DedicatedIP | None, pool: Mapping[str, DedicatedIP]) -> bool:
    """Return whether a copy agrees with the pool.

    :param document: the copy as it was read, or None if there is none
    """
    ip = pool.get(copy.address)
    if ip and not ip.has_known_status:
        return True  # a newer release wrote the status, and its workers repair the copy
    if ip is None or ip.assigned_to != copy.account_id:
        return document is None
    return document is not None and not document.conflicted and document.is_copy_of(ip)
