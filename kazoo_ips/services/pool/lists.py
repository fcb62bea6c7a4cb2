"""Lists of available and assigned addresses, zones and hosts, read from views.

A view may lag behind a write, so no write depends on a list. On a cluster the list of an account
is verified by reading the documents, unless it is too long.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from time import monotonic

from kazoo_ips.errors import DatastoreError
from kazoo_ips.model import Listing, ListIPs, Page, Status
from kazoo_ips.repositories.filtered_lists import FilteredListRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.assigning.account_holdings import AccountHoldings

CHUNK, LARGE_CHUNK = 1000, 4000
"""Number of addresses that are read in the first and in each later request for a long list. The
first is small, so that the reply starts soon."""
STREAM = 30.0
"""Maximum number of seconds that one stream is read. So a slow client does not occupy a connection
of CouchDB for long, and no line is older than that."""

ListPage = Callable[[ListIPs], Page]


class ListService:
    """Returns lists of addresses and of names."""

    def __init__(
        self,
        lists: ListRepository,
        filtered: FilteredListRepository,
        holdings: AccountHoldings,
    ) -> None:
        self._lists = lists
        self._filtered = filtered
        self._holdings = holdings

    def pool(self, query: ListIPs) -> Page:
        """Return a page of the addresses of the pool that match the filters, by zone and address.

        A page can have fewer lines than `limit`, or none, although more pages follow.
        """
        if query.is_empty:
            return Page(())
        if query.is_ordered:
            return self._ordered(query)
        if query.limit is None:
            return Page(tuple(walk(self.pool, query)))
        return self._filtered.page(query, query.limit)

    def _ordered(self, query: ListIPs) -> Page:
        read: Callable[[ListIPs], list[Listing]] = self._lists.of_status
        if query.account_id:
            read = partial(self._lists.assigned_to, query.account_id)
        if query.limit is None:
            return Page(tuple(read(query)))
        rows = read(replace(query, limit=query.limit + 1))
        items = tuple(rows[: query.limit])
        if len(rows) <= query.limit:
            return Page(items)
        after = items[-1].position
        return Page(items, after, rest=lambda: self._lists.stream(replace(query, after=after)))

    def available(self, query: ListIPs) -> Page:
        """Return a page of the available addresses, by zone and address."""
        return self.pool(replace(query, status=Status.AVAILABLE))

    def assigned(self, query: ListIPs, account_id: str | None = None) -> Page:
        """Return a page of the assigned addresses of one account, or of all accounts."""
        query = replace(query, status=Status.ASSIGNED, account_id=account_id or query.account_id)
        if account_id and self._lists.may_lag and not query.is_empty:
            return self._holdings.page(account_id, query) or self.pool(query)
        return self.pool(query)

    def all_assigned(self) -> list[Listing]:
        """Return the assigned addresses of all accounts."""
        return list(walk(self.assigned, ListIPs(limit=None)))

    def lines(self, query: ListIPs) -> Iterator[Listing]:
        """Yield all lines that match the filters, by zone and address, read in chunks."""
        return walk(self.pool, replace(query, limit=None))

    def zones(self) -> list[str]:
        """Return the names of all zones in the pool."""
        return self._lists.zones()

    def hosts(self) -> list[str]:
        """Return the names of all hosts in the pool."""
        return self._lists.hosts()

    def summary(self, host: str | None = None) -> Iterator[tuple[Listing, str]]:
        """Yield all addresses, or those of one host, by host, each with its status."""
        return self._lists.by_host(host)

    def unknown_statuses(self) -> dict[str, int]:
        """Return the number of addresses of each status that this release does not know."""
        counts: Counter[str] = Counter()
        for (_, status), count in self._lists.counts().items():
            if status and status not in {*Status}:
                counts[status] += count
        return dict(counts)


def walk(list_page: ListPage, query: ListIPs) -> Iterator[Listing]:
    """Yield the lines of a list of any length, read in chunks, as `walk_chunks` does."""
    for chunk in walk_chunks(list_page, query):
        yield from chunk


def walk_chunks(list_page: ListPage, query: ListIPs) -> Iterator[Sequence[Listing]]:
    """Yield a list of any length in chunks, some of which may be empty.

    After the first page, all lines are read as one stream if the list permits it. What the stream
    does not have, because it breaks or takes longer than `STREAM`, is read in pages.

    :param query: its `limit` is the number of lines to yield; None yields all
    """
    remaining = query.limit
    first = replace(query, limit=CHUNK if remaining is None else min(remaining, CHUNK))
    if not first.limit:
        return
    page = list_page(first)
    if page.rest and remaining is None:
        yield page.items
        after, until = page.after, monotonic() + STREAM
        try:
            for items in page.rest():
                yield items
                after = items[-1].position if items else after
                if monotonic() > until:
                    break
            else:
                return
        except DatastoreError:
            pass  # if it lasts, the next page raises it
        page = Page((), after)
    yield from _pages(list_page, query, page)


def _pages(list_page: ListPage, query: ListIPs, page: Page) -> Iterator[Sequence[Listing]]:
    """Yield the lines of a page, and of the pages after it.

    While the caller uses one page, another thread reads the next one. So the time for the whole
    list is that of the slower of the two, not the sum.
    """
    remaining = query.limit
    with ThreadPoolExecutor(1) as executor:
        while True:
            remaining = remaining and remaining - len(page.items)
            if page.after is None or remaining == 0:
                yield page.items
                return
            limit = LARGE_CHUNK if remaining is None else min(remaining, LARGE_CHUNK)
            following = replace(
                query, limit=limit, after=page.after, after_account=page.after_account
            )
            ahead = executor.submit(copy_context().run, list_page, following)
            yield page.items
            page = ahead.result()
