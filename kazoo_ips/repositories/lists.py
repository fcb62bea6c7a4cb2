"""Lists, counts and names, read from the views of the pool.

There is one function for each query. No other module contains key ranges. A view may lag behind
a write for a moment.
"""

import random
import re
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from kazoo_ips.couch.client import Couch, Key, Row
from kazoo_ips.model import Listing, ListIPs, Status, addresses
from kazoo_ips.repositories.documents import POOL, name_of, status_of

_NAMES_TTL = 2.0
"""Maximum number of seconds that the names of zones and hosts are cached."""
_CHUNK = 5000
"""Rows of a view that are read at a time when all are needed."""
_OTHERS = "ips/other_spellings"
_ACCOUNT_ID = re.compile("[0-9a-f]{32}")
_ALL = ListIPs(limit=None)
_AVAILABLE = "ips/available_by_host"
_HOST_NUMBERS = 65_536
"""The numbers by which the view `available_by_host` orders the hosts are smaller."""
_MAX_KEYS = 16
"""Up to this many addresses are looked up by key. For more, a key range is read."""


class ListRepository:
    """Reads lists of dedicated IPs."""

    def __init__(self, couch: Couch) -> None:
        self._pool = couch.database(POOL)
        self._grouped: dict[str, _Groups] = {}

    @property
    def may_lag(self) -> bool:
        """Whether views may lag behind acknowledged writes: on a cluster."""
        return self._pool.replicas > 1

    def of_status(self, page: ListIPs, skip: int | None = None) -> list[Listing]:
        """Return addresses of one status, by zone and address.

        :param page: its filters are the status, the zone, the host and, if it has a zone, the
            range of addresses
        """
        return self._listings(page, skip)

    def assigned_to(self, account_id: str, page: ListIPs) -> list[Listing]:
        """Return one account's addresses, by zone and address.

        :param page: its filters are the zone, the host and the range of addresses
        """
        page = replace(page, account_id=account_id)
        if not page.host and (page.zone or page.between is None):
            return self._listings(page)
        # An account has few addresses, so they are filtered here.
        listings = self._listings(replace(page, limit=None))
        return [listing for listing in listings if page.covers(listing)][: page.limit]

    def stream(self, query: ListIPs) -> Iterator[list[Listing]]:
        """Yield all lines of a list in parts, while CouchDB sends them.

        :param query: `is_ordered`; its `limit` is not used
        :raises DatastoreError: also after some of the lines. The rest may be read in pages
        """
        view, prefix = _place(query)
        range_ = _range(prefix, query)
        if range_ is None:
            return
        for rows in self._pool.stream(f"ips/{view}", **range_, reduce=False):
            yield [listing(view, row) for row in rows if row.id != range_["startkey_docid"]]

    def by_host(self, host: str | None) -> Iterator[tuple[Listing, str]]:
        """Yield the addresses of all hosts or of one, with statuses, by host: for the summary."""
        rows = self._walk("ips/by_host", *(([host], [host, {}]) if host else ([], [{}])))
        return ((listing("by_host", row), status_of(row.key[1])) for row in rows)

    def of_host(
        self, host: str, status: str | None, after: tuple[object, ...], limit: int
    ) -> tuple[list[Listing], tuple[object, ...] | None]:
        """Return a part of the addresses of a host, and the position after it; None at the end.

        :param status: only addresses of this status
        :param after: the position after the part before; empty for the first part
        """
        prefix: Key = [host] if status is None else [host, status]
        *key, last_id = after or (*prefix[1:], None)
        rows = self._pool.rows(
            "ips/by_host",
            startkey=[host, *key],
            startkey_docid=last_id,
            endkey=[*prefix, {}],
            skip=1 if after else None,
            limit=limit + 1,
            reduce=False,
            buffer_response=True,
        )
        more = (*rows[limit - 1].key[1:], rows[limit - 1].id) if len(rows) > limit else None
        return [listing("by_host", row) for row in rows[:limit]], more

    def count_of_host(self, host: str) -> dict[tuple[str, str], int]:
        """Return the number of a host's addresses by status and zone."""
        rows = self._pool.rows(
            "ips/by_host", startkey=[host], endkey=[host, {}], group_level=3, reduce=True
        )
        return {(status_of(row.key[1]), name_of(row.key[2])): int(row.value) for row in rows}

    def available_by_host(self, zone: str) -> dict[str, int]:
        """Return the number of available addresses of a zone by host."""
        rows = self._pool.rows(_AVAILABLE, startkey=[zone], endkey=[zone, {}], group_level=3)
        return {name_of(row.key[2]): int(row.value) for row in rows}

    def available_window(
        self, zone: str | None, host: str | None, skip: int, limit: int
    ) -> list[Listing]:
        """Return `limit` available addresses after the first `skip`."""
        return self.of_status(ListIPs(zone, host, limit, status=Status.AVAILABLE), skip)

    def by_hosts_in_turn(self, zone: str | None, limit: int) -> Iterator[tuple[str, list[str]]]:
        """Yield each host of a zone that has available addresses, with the first of these.

        The hosts follow each other in an order that is not that of their names, from a random one
        on. The next host is read when it is needed: no cost depends on the number of hosts.

        :param zone: None for addresses whose zone has no name
        :param limit: the maximum number of addresses of a host
        """
        middle: Key = [zone, random.randrange(_HOST_NUMBERS)]
        yield from self._hosts_between(middle, [zone, {}], limit)
        yield from self._hosts_between([zone], middle, limit)

    def _hosts_between(self, start: Key, end: Key, limit: int) -> Iterator[tuple[str, list[str]]]:
        while rows := self._pool.rows(
            _AVAILABLE, startkey=start, endkey=end, limit=limit, reduce=False,
            buffer_response=True,
        ):  # fmt: skip
            hosts = [(key, list(each)) for key, each in groupby(rows, _host_key)]
            if len(rows) == limit and len(hosts) > 1:
                del hosts[-1]  # not all of its addresses
            for key, each in hosts:
                if isinstance(key[2], str):
                    yield key[2], [row.id for row in each]
            start = [*hosts[-1][0], {}]

    def hosts_available(self, zone: str | None, enough: int) -> set[str]:
        """Return hosts that have available addresses, in one zone or in all.

        :param enough: no more hosts are read than are needed to return so many
        """
        start: Key = [zone] if zone else []
        end: Key = [*start, {}]
        names: set[str] = set()
        while len(names) < enough:
            rows = self._pool.rows(
                _AVAILABLE, startkey=start, endkey=end, group_level=3, limit=enough
            )
            names |= {row.key[2] for row in rows if isinstance(row.key[2], str)}
            if len(rows) < enough:
                break
            start = [*rows[-1].key, {}]
        return names

    def zones_available(self, host: str | None = None) -> list[str]:
        """Return the zones that have available addresses, in all or on a host."""
        view = "ips/by_host" if host else "ips/by_zone"
        prefix: Key = [host, "available"] if host else ["available"]
        rows = self._pool.rows(
            view, startkey=prefix, endkey=[*prefix, {}], group_level=len(prefix) + 1
        )
        return [row.key[-1] for row in rows if isinstance(row.key[-1], str)]

    def count_available(self, zone: str | None, host: str | None) -> int:
        """Return how many addresses are available: in all, in a zone or on a host."""
        return self.count_of_status(Status.AVAILABLE, zone, host)

    def count_of_status(self, status: str, zone: str | None, host: str | None) -> int:
        """Return how many addresses have a status: in all, in a zone or on a host."""
        view = "ips/by_host" if host else "ips/by_zone"
        prefix: Key = [host, str(status)] if host else [str(status)]
        prefix = [*prefix, zone] if zone else prefix
        rows = self._pool.rows(view, startkey=prefix, endkey=[*prefix, {}], reduce=True)
        return int(rows[0].value) if rows else 0

    def assigned(self) -> Iterator[tuple[str, str]]:
        """Yield all assigned addresses, each with the id of its account, by account."""
        for row in self._walk("ips/by_assignee", [], [{}]):
            yield row.id, str(row.key[0])

    def assigned_to_several(self, account_ids: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the addresses of these accounts, each with the id of its account.

        The view is read from the first to the last of them. So there should be few other accounts
        between them.
        """
        # CouchDB and Python sort ids in the same order, but not every text.
        ids = sorted(filter(_ACCOUNT_ID.fullmatch, account_ids))
        for row in self._walk("ips/by_assignee", ids[:1], [*ids[-1:], {}]) if ids else ():
            if row.key[0] in account_ids:
                yield row.id, row.key[0]
        for other in {*account_ids} - {*ids}:
            yield from ((each.address, other) for each in self.assigned_to(other, _ALL))

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many addresses the pool has, by zone and status."""
        rows = self._pool.rows("ips/by_zone", group_level=2)
        return {(name_of(row.key[1]), name_of(row.key[0])): int(row.value) for row in rows}

    def zones(self) -> list[str]:
        """Return the names of all zones in the pool."""
        return self._groups("ips/by_zone", 2).names

    def hosts(self) -> list[str]:
        """Return the names of all hosts in the pool."""
        return self._groups("ips/by_host", 1).names

    def statuses_and_zones(self) -> list[Key]:
        """Return each pair of a status and a zone that addresses of the pool have."""
        return self._groups("ips/by_zone", 2).keys

    def _groups(self, view: str, level: int) -> "_Groups":
        """Return the distinct key prefixes of a view.

        CouchDB takes half a millisecond for each prefix, so they are cached until the database's
        update sequence changes. On a cluster the index may have lagged when it was read, so they
        are cached for at most `_NAMES_TTL` seconds.
        """
        sequence = self._pool.info()["update_seq"]
        groups = self._grouped.get(view)
        if groups is None or groups.sequence != sequence or groups.until < time.monotonic():
            keys = [row.key for row in self._pool.rows(view, group_level=level)]
            names = sorted({key[-1] for key in keys if isinstance(key[-1], str)})
            groups = _Groups(keys, names, sequence, time.monotonic() + _NAMES_TTL)
            self._grouped[view] = groups
        return groups

    def _listings(self, page: ListIPs, skip: int | None = None) -> list[Listing]:
        view, prefix = _place(page)
        range_ = _range(prefix, page)
        if range_ is None:
            return []
        last_id = range_["startkey_docid"]
        rows = self._pool.rows(
            f"ips/{view}",
            **range_,
            # The range includes the last row of the previous page, which is dropped below.
            limit=page.limit + bool(last_id) if page.limit is not None else None,
            skip=skip,
            reduce=False,
            # CouchDB sends the response in one piece. Otherwise each part wakes this process up.
            buffer_response=True,
        )
        if last_id and rows and rows[0].id == last_id:
            rows = rows[1:]
        return [listing(view, row) for row in rows[: page.limit]]

    def other_spellings(self, wanted: Collection[str] | None = None) -> dict[str, list[str]]:
        """Return the ids that are not the canonical spelling of their address.

        Kazoo creates such ids, because it accepts any spelling.

        :param wanted: the canonical addresses to look for; None is all of the pool. The result
            may contain other addresses as well
        :returns: the ids by canonical address; an address can have several
        """
        keys = sorted([[addresses.sort_key(address)] for address in wanted or ()])
        rows: Iterable[Row]
        if wanted is None:
            rows = self._walk(_OTHERS, [], [{}])
        elif len(keys) > _MAX_KEYS:
            rows = self._walk(_OTHERS, keys[0], keys[-1])
        else:
            rows = self._pool.rows(_OTHERS, keys=keys, reduce=False) if keys else []
        found: dict[str, list[str]] = {}
        for row in rows:
            canonical = addresses.canonical(row.id)
            if canonical:
                found.setdefault(canonical, []).append(row.id)
        return found

    def _walk(self, view: str, start: Key, end: Key) -> Iterator[Row]:
        """Yield the rows of a range of a view, read in chunks."""
        last_id = None
        while True:
            rows = self._pool.rows(
                view, startkey=start, startkey_docid=last_id, endkey=end, limit=_CHUNK,
                skip=1 if last_id else None, reduce=False,
            )  # fmt: skip
            yield from rows
            if len(rows) < _CHUNK:
                return
            start, last_id = rows[-1].key, rows[-1].id


@dataclass(frozen=True, slots=True)
class _Groups:
    """The distinct key prefixes of a view, as cached.

    :param names: the distinct last parts of the prefixes, sorted
    :param sequence: the update sequence of the pool before they were read
    :param until: when the cache entry expires, by the monotonic clock
    """

    keys: list[Key]
    names: list[str]
    sequence: object
    until: float


def _place(query: ListIPs) -> tuple[str, Key]:
    """Return the view that has the lines of a list, and the prefix of their keys."""
    if query.account_id:
        return "by_assignee", [query.account_id]
    if query.host:
        return "by_host", [query.host, query.status]
    return "by_zone", [query.status]


def _range(prefix: Key, page: ListIPs) -> dict[str, Any] | None:
    """Return the range of a view's keys that a list has after its position.

    It includes the row at the position, whose id is `startkey_docid`.

    :returns: CouchDB's parameters; None if the range is empty
    """
    if page.zone:
        prefix = [*prefix, page.zone]
    start, end, last_id = prefix, [*prefix, {}], None
    if page.zone and page.between:
        first, last = page.between
        start, end = [*prefix, first], [*prefix, last]
    if page.after:
        zone, order, last_id = page.after
        start = [*prefix, order] if page.zone else [*prefix, zone or None, order]
        if page.zone and page.between and not first <= order <= last:
            if order > last:
                return None
            start, last_id = [*prefix, first], None
    return {"startkey": start, "startkey_docid": last_id, "endkey": end}


def _host_key(row: Row) -> Key:
    """Return the key of a host in the view `available_by_host`."""
    return list(row.key[:3])


def listing(view: str, row: Row) -> Listing:
    """Return the listing of a row. Each view has its own layout of key and value."""
    key, value = row.key, row.value
    if view == "by_zone":
        status, zone, _ = key
        host, owner = value if len(value) > 1 else (value[0], None)
    elif view == "by_host":
        status, zone, host, owner = key[1], key[2], key[0], value
    elif view == "by_label":
        zone, (status, host, owner) = key[1], value
    elif view == "by_assignee":
        status, zone, host, owner = Status.ASSIGNED, key[1], value, key[0]
    else:
        status, zone, host, owner, _ = value
    if not (status and isinstance(status, str)):
        status = status_of(status)
    if not (isinstance(zone, str) and isinstance(host, str)):
        zone, host = name_of(zone), name_of(host)
    return Listing(row.id, zone, host, owner if isinstance(owner, str) else None, status)
