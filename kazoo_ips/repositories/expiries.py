"""The addresses that rest or are reserved, by the time at which that ends.

All functions read the view `by_expiry`, which may lag behind a write for a moment.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kazoo_ips.couch.client import Couch, Key
from kazoo_ips.model import Status
from kazoo_ips.repositories.documents import POOL, name_of

_VIEW = "ips/by_expiry"


class Expiry(NamedTuple):
    """An address that rests or is reserved, and when that ends, in Gregorian seconds."""

    address: str
    zone: str
    host: str
    at: int


class ExpiryRepository:
    """Reads when rests and reservations end."""

    def __init__(self, couch: Couch) -> None:
        self._pool = couch.database(POOL)

    def ended(self, status: Status, now: int, limit: int) -> list[str]:
        """Return addresses whose time is over, the earliest first."""
        return [each.address for each in self.next(status, None, None, limit, until=now)]

    def next(  # noqa: PLR0913, PLR0917 - one for each filter
        self,
        status: Status,
        zone: str | None,
        host: str | None,
        limit: int,
        until: int | None = None,
        since: int | None = None,
    ) -> list[Expiry]:
        """Return the addresses of a status whose time ends next, the earliest first.

        :param zone: only of this zone
        :param host: only of this host; a few of its addresses may be in other zones
        :param until: only those that end at this time or before
        :param since: only those that end after this time
        """
        prefix = self._prefix(status, zone, host)
        rows = self._pool.rows(
            _VIEW,
            startkey=[*prefix, 0 if since is None else since + 1],
            endkey=[*prefix, {} if until is None else until],
            limit=limit,
            reduce=False,
        )
        found = [
            Expiry(row.id, name_of(row.value[0]), name_of(row.value[1]), int(row.key[-1]))
            for row in rows
        ]
        return [each for each in found if zone in (None, each.zone)]

    def count(
        self, statuses: Sequence[Status], zone: str | None, host: str | None, until: int | None
    ) -> int:
        """Return how many addresses of these statuses there are.

        :param until: only those that end at this time or before
        """
        total = 0
        for status in statuses:
            prefix = self._prefix(status, zone, host)
            end: Key = [*prefix, {} if until is None else until]
            rows = self._pool.rows(_VIEW, startkey=[*prefix, 0], endkey=end, reduce=True)
            total += int(rows[0].value) if rows else 0
        return total

    @staticmethod
    def _prefix(status: Status, zone: str | None, host: str | None) -> Key:
        if host:
            return [str(status), "host", host]
        return [str(status), "zone", zone] if zone else [str(status), "all"]
