"""Counts of addresses by zone, host, account and status, from the reduces of the pool's views.

The cost of a count depends on the number of groups, and not on the number of addresses. A view may
lag behind a write for a moment.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import groupby, islice

from kazoo_ips.couch.client import Couch, Key, Row
from kazoo_ips.model import Status
from kazoo_ips.model.summaries import Summary, SummaryPage
from kazoo_ips.repositories.documents import POOL, name_of

_READERS = 4
"""Number of parallel requests for the counts of several accounts."""
_ROWS_OF_A_HOST = 2
"""The number of rows of most hosts: one for each status that occurs. In a pool of a million
addresses, each row takes a millisecond. If hosts have more rows, a page takes more requests."""


class CountRepository:
    """Counts the addresses of the pool."""

    def __init__(self, couch: Couch) -> None:
        self._pool = couch.database(POOL)

    @property
    def may_lag(self) -> bool:
        """Whether counts may lag behind acknowledged writes: on a cluster."""
        return self._pool.replicas > 1

    def by_zone(self) -> list[Summary]:
        """Return the counts of all zones, by name."""
        zones: dict[str, Counter[str]] = {}
        for row in self._pool.rows("ips/by_zone", group_level=2):
            status, zone = row.key
            zones.setdefault(name_of(zone), Counter())[name_of(status)] += int(row.value)
        return [Summary(zones[name], name) for name in sorted(zones)]

    def by_host(self, after: str | None, limit: int, zone: str | None = None) -> SummaryPage:
        """Return the counts of the next hosts, by name.

        :param after: the name after which they start; None for the first ones
        :param zone: count only the addresses of this zone; hosts without any are left out
        """
        # The last row shows that those of the host before it are complete.
        chunk = (limit + 1) * _ROWS_OF_A_HOST + 1
        hosts = groupby(self._hosts(after, chunk, 2 if zone is None else 3), _first)
        found = (_of_host(name, list(rows), zone) for name, rows in hosts)
        return _page(list(islice(filter(None, found), limit + 1)), limit)

    def of_host(self, name: str) -> Summary:
        """Return the counts of one host; no counts if no address is on it."""
        rows = self._pool.rows("ips/by_host", startkey=[name], endkey=[name, {}], group_level=2)
        return _of_host(name, rows, None) or Summary({}, name)

    def _hosts(self, after: str | None, chunk: int, level: int) -> Iterator[Row]:
        """Yield the rows of all hosts after one, read in chunks."""
        start: Key | None = None if after is None else [after or None, {}]
        while True:
            rows = self._pool.rows("ips/by_host", startkey=start, group_level=level, limit=chunk)
            yield from rows
            if len(rows) < chunk:
                return
            start = [*rows[-1].key, {}]

    def by_account(self, after: str | None, limit: int) -> SummaryPage:
        """Return the counts of the next accounts that have addresses, by id.

        :param after: the id after which they start; None for the first ones
        """
        start = None if after is None else [after, {}]
        rows = self._pool.rows("ips/by_assignee", startkey=start, group_level=1, limit=limit + 1)
        return _page([_of_account(name_of(row.key[0]), int(row.value)) for row in rows], limit)

    def of_accounts(self, account_ids: Sequence[str]) -> list[Summary]:
        """Return the counts of these accounts, in their order."""
        with ThreadPoolExecutor(_READERS) as readers:
            counting = [
                readers.submit(copy_context().run, self._assigned_to, account_id)
                for account_id in account_ids
            ]
            counts = [each.result() for each in counting]
        return [_of_account(i, count) for i, count in zip(account_ids, counts, strict=True)]

    def _assigned_to(self, account_id: str) -> int:
        key = [account_id]
        rows = self._pool.rows("ips/by_assignee", startkey=key, endkey=[*key, {}], reduce=True)
        return int(rows[0].value) if rows else 0


def _first(row: Row) -> str:
    return name_of(row.key[0])


def _of_host(name: str, rows: Sequence[Row], zone: str | None) -> Summary | None:
    counts: Counter[str] = Counter()
    for row in rows:
        if zone is None or name_of(row.key[2]) == zone:
            counts[name_of(row.key[1])] += int(row.value)
    return Summary(counts, name) if counts else None


def _of_account(account_id: str, assigned: int) -> Summary:
    return Summary({str(Status.ASSIGNED): assigned} if assigned else {}, account_id)


def _page(found: list[Summary], limit: int) -> SummaryPage:
    items = tuple(found[:limit])
    return SummaryPage(items, items[-1].name if len(found) > limit else None)
