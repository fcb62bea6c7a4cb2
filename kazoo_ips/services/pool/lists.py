"""Lists of the pool: what is available, what is assigned, and the names in use.

What the views say; a list may lag behind a write by a moment, and decides nothing. What an account
has is put right on a cluster, unless it is too much.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from kazoo_ips.model import Listing, ListIPs, Page, Status
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.account_holdings import AccountHoldings, position

CHUNK = 1000
"""Addresses read at a time where the number is not the caller's."""


class ListService:
    """The lists there are."""

    def __init__(self, lists: ListRepository, holdings: AccountHoldings) -> None:
        self._lists = lists
        self._holdings = holdings

    def available(self, query: ListIPs) -> Page:
        """Available addresses, by zone and address."""
        return _page(self._lists.available, query)

    def assigned(self, query: ListIPs, account_id: str | None = None) -> Page:
        """What an account has, or all accounts, by zone and address."""
        if account_id is None:
            return _page(self._lists.assigned, query)
        page = self._holdings.page(account_id, query) if self._lists.may_lag else None
        return page or _page(lambda q: self._lists.assigned_to(account_id, q), query)

    def all_assigned(self) -> list[Listing]:
        """All that all accounts have."""
        return list(walk(self.assigned, ListIPs(limit=None)))

    def zones(self) -> list[str]:
        """The names of the zones in use, over the whole pool."""
        return self._lists.zones()

    def hosts(self) -> list[str]:
        """The names of the hosts in use, over the whole pool."""
        return self._lists.hosts()

    def summary(self, host: str | None = None) -> list[tuple[Listing, str]]:
        """The whole pool or one host's part of it, by host, each address with its status."""
        return self._lists.by_host(host)

    def unknown_statuses(self) -> dict[str, int]:
        """How many addresses have which status that this release does not know."""
        counts: Counter[str] = Counter()
        for (_, status), count in self._lists.counts().items():
            if status and status not in {*Status}:
                counts[status] += count
        return dict(counts)


def walk(list_page: Callable[[ListIPs], Page], query: ListIPs) -> Iterator[Listing]:
    """A list of any length, read in chunks: `query.limit` items of it, None being all."""
    left, after = query.limit, query.after
    while left is None or left > 0:
        limit = CHUNK if left is None else min(left, CHUNK)
        page = list_page(replace(query, limit=limit, after=after))
        yield from page.items
        after = page.after
        if after is None:
            return
        left = left and left - len(page.items)


def _page(read: Callable[[ListIPs], list[Listing]], query: ListIPs) -> Page:
    """One page, and where the next one starts if there is more."""
    if query.limit is None:
        return Page(tuple(read(query)))
    rows = read(replace(query, limit=query.limit + 1))
    items = rows[: query.limit]
    return Page(tuple(items), position(items[-1]) if len(rows) > query.limit else None)
