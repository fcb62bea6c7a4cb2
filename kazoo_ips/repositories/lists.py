"""What the views know of the pool: lists, counts and names.

One function a question, its key ranges spelled here and nowhere else. A view may lag behind a
write by a moment.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from kazoo_ips.couch.client import Couch, Key, Row
from kazoo_ips.model import Listing, ListIPs, addresses
from kazoo_ips.repositories.documents import POOL, status_of

_NAMES_KEPT = 2.0
"""Seconds."""
_CHUNK = 5000
"""Rows of a view read at a time where all are wanted."""


class ListRepository:
    """Lists of dedicated IPs."""

    def __init__(self, couch: Couch) -> None:
        self._pool = couch.database(POOL)
        self._grouped: dict[str, _Groups] = {}

    def available(self, page: ListIPs, skip: int | None = None) -> list[Listing]:
        """Available addresses by zone and address, of a zone or host if asked."""
        if page.host:
            return self._listings("by_host", [page.host, "available"], page, skip)
        return self._listings("by_zone", ["available"], page, skip)

    def assigned(self, page: ListIPs) -> list[Listing]:
        """What all accounts have, by zone and address, of a zone or host if asked."""
        if page.host:
            return self._listings("by_host", [page.host, "assigned"], page)
        return self._listings("by_zone", ["assigned"], page)

    def assigned_to(self, account_id: str, page: ListIPs) -> list[Listing]:
        """What one account has, by zone and address, of a zone or host if asked."""
        if not page.host:
            return self._listings("by_assignee", [account_id], page)
        # An account's own are few enough to be looked through.
        own = self._listings("by_assignee", [account_id], replace(page, limit=None))
        return [listing for listing in own if listing.host == page.host][: page.limit]

    def by_host(self, host: str | None) -> list[tuple[Listing, str]]:
        """The whole pool or one host's part of it, by host, with its status: for the summary."""
        prefix = [host] if host else []
        rows = self._pool.rows("ips/by_host", startkey=prefix, endkey=[*prefix, {}], reduce=False)
        return [(_listing("by_host", row), status_of(row.key[1])) for row in rows]

    def available_window(
        self, zone: str | None, host: str | None, skip: int, limit: int
    ) -> list[Listing]:
        """Some available addresses: `limit` of them behind the first `skip`."""
        return self.available(ListIPs(zone, host, limit), skip=skip)

    def hosts_available(self, zone: str | None) -> list[str]:
        """The hosts that have available addresses, in a zone or at all."""
        keys = [row.key for row in self._pool.rows("ips/by_host", group_level=3)]
        return sorted({h for h, status, z in keys if status == "available" and zone in (None, z)})

    def zones_available(self) -> list[str]:
        """The zones that have available addresses."""
        rows = self._pool.rows(
            "ips/by_zone", startkey=["available"], endkey=["available", {}], group_level=2
        )
        return [row.key[1] for row in rows]

    def count_available(self, zone: str | None, host: str | None) -> int:
        """How many addresses are available, in a zone or on a host or at all."""
        view = "ips/by_host" if host else "ips/by_zone"
        prefix: Key = [host, "available"] if host else ["available"]
        prefix = [*prefix, zone] if zone else prefix
        rows = self._pool.rows(view, startkey=prefix, endkey=[*prefix, {}], reduce=True)
        return int(rows[0].value) if rows else 0

    def counts(self) -> dict[tuple[str, str], int]:
        """How many addresses the pool has, by zone and status."""
        rows = self._pool.rows("ips/by_zone", group_level=2)
        return {(str(row.key[1] or ""), str(row.key[0] or "")): int(row.value) for row in rows}

    def zones(self) -> list[str]:
        """The names of the zones in use, over the whole pool."""
        return self._groups("ips/by_zone", 2).names

    def hosts(self) -> list[str]:
        """The names of the hosts in use, over the whole pool."""
        return self._groups("ips/by_host", 1).names

    def _groups(self, view: str, level: int) -> "_Groups":
        """The different beginnings of a view's keys.

        CouchDB takes half a millisecond to find each, so they are kept for as long as it says that
        nothing was written since; and no longer than `_NAMES_KEPT`, as on a cluster the index they
        were read from may have been behind.
        """
        sequence = self._pool.info()["update_seq"]
        known = self._grouped.get(view)
        if known is None or known.sequence != sequence or known.until < time.monotonic():
            keys = [row.key for row in self._pool.rows(view, group_level=level)]
            names = sorted({key[-1] for key in keys if isinstance(key[-1], str)})
            known = _Groups(keys, names, sequence, time.monotonic() + _NAMES_KEPT)
            self._grouped[view] = known
        return known

    def _listings(
        self, view: str, prefix: Key, page: ListIPs, skip: int | None = None
    ) -> list[Listing]:
        if page.zone:
            prefix = [*prefix, page.zone]
        start, last_id = prefix, None
        if page.after:
            zone, order, last_id = page.after
            start = [*prefix, order] if page.zone else [*prefix, zone or None, order]
        rows = self._pool.rows(
            f"ips/{view}",
            startkey=start,
            startkey_docid=last_id,
            endkey=[*prefix, {}],
            # The row where the last page ended comes again and is left out.
            limit=page.limit + bool(last_id) if page.limit is not None else None,
            skip=skip,
            reduce=False,
            # In one piece: by and by, each part would wake this process up by itself.
            buffer_response=True,
        )
        if last_id and rows and rows[0].id == last_id:
            rows = rows[1:]
        return [_listing(view, row) for row in rows[: page.limit]]

    def respelled(self, first: str | None = None, last: str | None = None) -> dict[str, str]:
        """The ids of IPv6 addresses that are not canonical, by the canonical address.

        They are Kazoo's, who takes any spelling. For many addresses this is much cheaper than to
        ask for each.

        :param first: the canonical address to start at
        :param last: the canonical address to end at
        """
        start = addresses.sort_key(first) if first else "6"
        end = addresses.sort_key(last) if last else {}
        ids = (
            row.id
            for place in self._groups("ips/by_zone", 2).keys
            for row in self._walk([*place, start], [*place, end])
        )
        spelled = ((addresses.canonical(i), i) for i in ids)
        return {canonical: i for canonical, i in spelled if canonical and canonical != i}

    def _walk(self, start: Key, end: Key) -> Iterable[Row]:
        last_id = None
        while True:
            rows = self._pool.rows(
                "ips/by_zone", startkey=start, startkey_docid=last_id, endkey=end, limit=_CHUNK,
                skip=1 if last_id else None, reduce=False,
            )  # fmt: skip
            yield from rows
            if len(rows) < _CHUNK:
                return
            start, last_id = rows[-1].key, rows[-1].id

    def spelled(self, canonical: Iterable[str]) -> dict[str, str]:
        """The ids that the pool has these addresses under, by address."""
        order = {addresses.sort_key(address): address for address in canonical}
        places = self._groups("ips/by_zone", 2).keys if order else []
        keys = [[*place, key] for place in places for key in order]
        rows = self._pool.rows("ips/by_zone", keys=keys, reduce=False) if keys else []
        return {order[row.key[2]]: row.id for row in rows}


@dataclass(frozen=True, slots=True)
class _Groups:
    """The beginnings of a view's keys, one of each.

    :param names: the different last parts of them, sorted
    :param sequence: of the pool, when they were read
    :param until: when they are to be read again, by the monotonic clock
    """

    keys: list[Key]
    names: list[str]
    sequence: object
    until: float


def _listing(view: str, row: Row) -> Listing:
    """One line from one row; each view keeps its part of it in key and value."""
    key, value = row.key, row.value
    if view == "by_zone":
        return Listing(row.id, key[1] or "", value[0] or "", value[1] if value[1:] else None)
    if view == "by_host":
        return Listing(row.id, key[2] or "", key[0] or "", value)
    return Listing(row.id, key[1] or "", value or "", key[0])
