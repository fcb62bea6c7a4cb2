"""The addresses that an account holds, read from several places.

On a cluster a view is not enough. CouchDB reads one replica of each shard: the one that answers
first. That is often a replica without the latest write, because it has nothing to index. The same
holds for every query by anything but a document id. So this module collects candidate addresses
from several places, and again a short time later. Then it reads the candidates' documents from a
majority, and the documents decide.
"""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from kazoo_ips.errors import DatastoreForbidden, DatastoreMissing
from kazoo_ips.model import DedicatedIP, Listing, ListIPs, Page, Status
from kazoo_ips.model.listings import order
from kazoo_ips.processes.recent_writes import RecentWrites
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.recovery import RecoveryService

_REPLICATION_TIME = 0.04
"""Seconds in which a write that a majority has reaches the last replica of a healthy cluster."""
_ROWS_OF_A_REQUEST = 30
"""Number of rows of a list that CouchDB returns in the time of one more request."""
_VERIFIED = 1000
"""Maximum number of addresses in an account's list that is verified. A longer list is read from
the view only."""


class AccountHoldings:
    """Finds the addresses that an account holds. On a single node it reads the view only.

    :param written: the recent assignments by the workers of this instance
    :param pause: sleeps for a number of seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each collaborator
        self,
        ips: IPRepository,
        copies: AccountCopyRepository,
        views: ListRepository,
        recovery: RecoveryService,
        written: RecentWrites,
        pause: Callable[[float], None],
    ) -> None:
        self._ips = ips
        self._copies = copies
        self._views = views
        self._recovery = recovery
        self._written = written
        self._pause = pause

    def candidates(self, account_id: str) -> list[str]:
        """Return all addresses that an account may hold.

        All assignments that were acknowledged before the call are included.
        """
        query = ListIPs(limit=None)
        rows = self._views.assigned_to(account_id, query)
        others: set[str] = set()
        if self._views.may_lag:
            others = self._outside_the_view(account_id)
            self._pause(_REPLICATION_TIME)
            others |= self._outside_the_view(account_id)
            rows = rows + self._views.assigned_to(account_id, query)
        return list(dict.fromkeys([*(row.address for row in rows), *sorted(others)]))

    def candidates_of(self, account_ids: AbstractSet[str]) -> set[str]:
        """Return all addresses that any of these accounts may hold.

        If there are many accounts, compared with the assigned addresses of the pool, the list of
        all assigned addresses is read instead of one list for each account. On a cluster that list
        may lack an address that was assigned a moment ago.
        """
        assigned = self._views.count_of_status(Status.ASSIGNED, None, None)
        if assigned > _ROWS_OF_A_REQUEST * len(account_ids):
            return {a for account_id in account_ids for a in self.candidates(account_id)}
        if not self._views.may_lag:
            return self._in_the_view(account_ids)
        found = self._written.recent(*account_ids) | self._in_the_view(account_ids)
        self._pause(_REPLICATION_TIME)
        return found | self._in_the_view(account_ids)

    def _in_the_view(self, account_ids: AbstractSet[str]) -> set[str]:
        return {address for address, owner in self._views.assigned() if owner in account_ids}

    def _outside_the_view(self, account_id: str, limit: int = 1_000_000) -> set[str]:
        """Return the addresses of the account's copies and of recent assignments by this instance.

        :param limit: the maximum number of copies
        """
        try:
            copies = self._copies.addresses(account_id, limit)
        except (DatastoreMissing, DatastoreForbidden):
            copies = []
        return {*copies, *self._written.recent(account_id)}

    def page(self, account_id: str, query: ListIPs) -> Page | None:
        """Return a part of the list of addresses that an account holds.

        It is the list as it was at some moment since the call began.

        :returns: None if the account holds so many addresses that this would take too long
        """
        others = self._outside_the_view(account_id, _VERIFIED + 1)
        if len(others) > _VERIFIED:
            return None
        self._pause(_REPLICATION_TIME)
        others |= self._outside_the_view(account_id, _VERIFIED + 1)
        rows = self._views.assigned_to(account_id, replace(query, limit=_VERIFIED + 1))
        if len(rows) > _VERIFIED:
            return None
        missed = self._missed(account_id, others - {row.address for row in rows}, query)
        lines = sorted([*rows, *missed], key=_order) if missed else rows
        limit = len(lines) if query.limit is None else query.limit
        items: list[Listing] = []
        for start in range(0, len(lines), limit + 1):
            chunk = lines[start : start + limit + 1]
            owned = self._owned(account_id, [line.address for line in chunk], query.modified_from)
            items += [line for line in chunk if line.address in owned]
            if len(items) > limit:
                return Page(tuple(items[:limit]), items[limit - 1].position)
        return Page(tuple(items))

    def _missed(self, account_id: str, ids: Iterable[str], query: ListIPs) -> list[Listing]:
        """Return the lines that the view lacks: the addresses that match the query."""
        owned = self._owned(account_id, sorted(ids)).values()
        lines = (Listing(ip.address, ip.zone, ip.host, account_id, ip.status) for ip in owned)
        return [line for line in lines if query.covers(line) and query.is_before(line)]

    def _owned(
        self, account_id: str, ids: Sequence[str], modified_from: int | None = None
    ) -> dict[str, DedicatedIP]:
        """Return the dedicated IPs among these addresses that are assigned to the account.

        :param modified_from: only those that were changed then or later, in Gregorian seconds
        """
        found = self._ips.by_id(ids)[0] if ids else {}
        return {
            i: ip
            for i, ip in found.items()
            if (ip.assigned_to, ip.status) == (account_id, Status.ASSIGNED)
            and (modified_from is None or ip.modified >= modified_from)
            and not self._recovery.is_released(ip)
        }


def _order(line: Listing) -> tuple[tuple[str, str], str, str]:
    return order(line.position)
