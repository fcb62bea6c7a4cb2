"""What an account has, looked for in more than one place: on a cluster one view is not enough.

A view, like every question for documents that are not known by name, reads one copy of each part
of a database, and most often the one that has the latest write yet to come, as that has nothing to
index. So the addresses to look at come from several places, a moment apart; what each of them is
decides its document, which is read from a majority.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from kazoo_ips.errors import DatastoreForbidden, DatastoreMissing
from kazoo_ips.model import DedicatedIP, Listing, ListIPs, Page, Status, addresses
from kazoo_ips.processes.recent_writes import RecentWrites
from kazoo_ips.repositories.account_copies import AccountCopyRepository
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.recovery import RecoveryService

_MOMENT = 0.04
"""Seconds in which the last copy of a healthy cluster takes a write that a majority has."""
_FEW = 1000
"""Addresses of an account whose list is put right; longer lists are the view's."""


class AccountHoldings:
    """Finds what accounts have on a cluster; asks nothing where there is none.

    :param written: what the workers of this instance have assigned
    :param pause: waits so many seconds
    """

    def __init__(  # noqa: PLR0913, PLR0917 - one for each place to look
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

    @property
    def lag(self) -> bool:
        """Whether views may lag behind what was acknowledged."""
        return self._ips.replicas > 1

    def note(self, ips: Iterable[DedicatedIP]) -> None:
        """Remember assignments that are about to be acknowledged."""
        if self.lag:
            for account_id, owned in by_owner(ips).items():
                self._written.note(account_id, [ip.address for ip in owned])

    def candidates(self, account_id: str) -> list[str]:
        """All addresses that may be an account's: those that were before this began are there."""
        everything = ListIPs(limit=None)
        rows = self._views.assigned_to(account_id, everything)
        elsewhere: set[str] = set()
        if self.lag:
            elsewhere = self._elsewhere(account_id)
            self._pause(_MOMENT)
            elsewhere |= self._elsewhere(account_id)
            rows = rows + self._views.assigned_to(account_id, everything)
        return list(dict.fromkeys([*(row.address for row in rows), *sorted(elsewhere)]))

    def _elsewhere(self, account_id: str, limit: int = 1_000_000) -> set[str]:
        """What the copies and the memory of this instance say, each so many at the most."""
        try:
            copies = self._copies.addresses(account_id, limit)
        except (DatastoreMissing, DatastoreForbidden):
            copies = []
        return {*copies, *self._written.recent(account_id)}

    def page(self, account_id: str, query: ListIPs) -> Page | None:
        """A part of the list of what an account has, right at some moment since this began.

        None when the account has so much that it would take too long.
        """
        elsewhere = self._elsewhere(account_id, _FEW + 1)
        if len(elsewhere) > _FEW:
            return None
        self._pause(_MOMENT)
        elsewhere |= self._elsewhere(account_id, _FEW + 1)
        rows = self._views.assigned_to(account_id, replace(query, limit=_FEW + 1))
        if len(rows) > _FEW:
            return None
        missed = self._missed(account_id, elsewhere - {row.address for row in rows}, query)
        lines = sorted([*rows, *missed], key=_order) if missed else rows
        limit = len(lines) if query.limit is None else query.limit
        items: list[Listing] = []
        for start in range(0, len(lines), limit + 1):
            chunk = lines[start : start + limit + 1]
            owned = self._owned(account_id, [line.address for line in chunk])
            items += [line for line in chunk if line.address in owned]
            if len(items) > limit:
                return Page(tuple(items[:limit]), position(items[limit - 1]))
        return Page(tuple(items))

    def _missed(self, account_id: str, ids: Iterable[str], query: ListIPs) -> list[Listing]:
        """Lines of a list for those of these addresses that belong there."""
        owned = self._owned(account_id, sorted(ids)).values()
        lines = (Listing(ip.address, ip.zone, ip.host, account_id) for ip in owned)
        return [line for line in lines if _belongs(line, query)]

    def _owned(self, account_id: str, ids: Sequence[str]) -> dict[str, DedicatedIP]:
        """Those of these addresses that are the account's."""
        found = self._ips.by_id(ids)[0] if ids else {}
        return {
            i: ip
            for i, ip in found.items()
            if (ip.assigned_to, ip.status) == (account_id, Status.ASSIGNED)
            and not self._recovery.is_released(ip)
        }


def by_owner(ips: Iterable[DedicatedIP]) -> dict[str, list[DedicatedIP]]:
    """Those that are assigned, by the account that has them."""
    owned: dict[str, list[DedicatedIP]] = {}
    for ip in ips:
        if ip.assigned_to:
            owned.setdefault(ip.assigned_to, []).append(ip)
    return owned


def position(line: Listing) -> tuple[str, str, str]:
    """Where a line stands in a list: zone, order and address."""
    canonical = addresses.canonical(line.address) or line.address
    return (line.zone, addresses.sort_key(canonical), line.address)


def _order(line: Listing) -> tuple[tuple[str, str], str, str]:
    zone, order, address = position(line)
    return _collated(zone), order, address


def _collated(zone: str) -> tuple[str, str]:
    """CouchDB's order of strings, as far as names of zones go: `a` before `A` before `b`."""
    return zone.casefold(), zone.swapcase()


def _belongs(line: Listing, query: ListIPs) -> bool:
    if (query.zone or line.zone, query.host or line.host) != (line.zone, line.host):
        return False
    if query.after is None:
        return True
    zone, order, address = query.after
    return _order(line) > (_collated(zone), order, address)
