"""Draining a host or a zone: no address there is assigned any more. Assigned ones stay assigned.

The settings of the place say that it is drained, and every assignment reads them. The service also
disables the addresses that no account has, for Kazoo's nodes and for older releases. Any process
may repeat that at any time, and continues where another one has stopped. An address that is
released or added there later is disabled too. When the place is enabled again, the service enables
exactly the addresses that were disabled because of the drain.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

from kazoo_ips.model import DedicatedIP, ListIPs, Position, Scope, Status
from kazoo_ips.model.places import Places, PlaceSettings
from kazoo_ips.observability import audit
from kazoo_ips.observability.audit import Change
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.services.states.batches import BATCH, BatchWriter
from kazoo_ips.services.states.places import PlaceService

_SETTLED = 120
"""Seconds after which a place that was enabled has no address left that is disabled for it. Other
processes may release addresses by the earlier settings for a few seconds, and views may lag."""
_TAKEN_OUT = (Status.AVAILABLE, Status.AGING, Status.RESERVED)
"""The statuses of the addresses that a drain disables."""


@dataclass(frozen=True, slots=True)
class Place:
    """A host or a zone."""

    scope: Scope
    name: str

    def has(self, ip: DedicatedIP) -> bool:
        """Return whether an address is there. A view may lag behind its move."""
        return self.name == (ip.host if self.scope is Scope.HOST else ip.zone)


class DrainService:
    """Disables the addresses of drained hosts and zones, and enables them again.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        places: PlaceService,
        lists: ListRepository,
        batches: BatchWriter,
        now: Callable[[], int],
    ) -> None:
        self._places = places
        self._lists = lists
        self._batches = batches
        self._now = now

    def carry_out(
        self, place: Place, request_id: str | None = None, seconds: float | None = None
    ) -> Iterator[int]:
        """Change the addresses of a place as its settings say.

        :param seconds: the time after which it stops; the background work does the rest
        :returns: an iterator that does the work; it yields how many addresses it has changed since
            the last step
        """
        until = None if seconds is None else time.monotonic() + seconds
        settings = self._places.places().get(place.scope, place.name)
        request_id = request_id or f"drain-{uuid4().hex[:16]}"
        if settings.drained is None and settings.enabled_at is None:
            return
        for status in _TAKEN_OUT if settings.drained else (Status.DISABLED,):
            for addresses in self._batches_of(place, status):
                yield len(self._change(addresses, settings, request_id, place))
                if until is not None and time.monotonic() > until:
                    return

    def preview(self, place: Place, settings: PlaceSettings) -> Counter[str]:
        """Return by how much the count of each status changes when these settings are carried out.

        :param settings: the settings that the place would have
        """
        change: Counter[str] = Counter()
        zone, host = _filters(place)
        if settings.drained:
            for status in _TAKEN_OUT:
                count = self._lists.count_of_status(status, zone, host)
                change[status] -= count
                change[Status.DISABLED] += count
        elif settings.enabled_at is not None:
            places = self._places.places().with_settings(place.scope, place.name, settings)
            for addresses in self._batches_of(place, Status.DISABLED):
                for ip in self._change(addresses, settings, "", place, places, dry_run=True):
                    change[Status.DISABLED] -= 1
                    change[str(ip.status)] += 1
        return change

    def carry_out_all(self) -> int:
        """Change the addresses of all places as their settings say; return how many changed."""
        count, places = 0, self._places.refresh()
        for scope in (Scope.HOST, Scope.ZONE):
            for name, settings in places.of(scope).items():
                place = Place(scope, name)
                count += sum(self.carry_out(place))
                enabled = settings.enabled_at
                if enabled is not None and self._now() - enabled > _SETTLED:
                    self._places.change(scope, name, _settled)
        return count

    def _batches_of(self, place: Place, status: Status) -> Iterator[list[str]]:
        zone, host = _filters(place)
        after: Position | None = None
        while True:
            query = ListIPs(zone, host, BATCH, after, status=status)
            rows = self._lists.of_status(query)
            if rows:
                yield [row.address for row in rows]
                after = rows[-1].position
            if len(rows) < BATCH:
                return

    def _change(  # noqa: PLR0913 - what a batch consists of
        self,
        addresses: list[str],
        settings: PlaceSettings,
        request_id: str,
        place: Place,
        places: Places | None = None,
        *,
        dry_run: bool = False,
    ) -> list[DedicatedIP]:
        stamp = audit.stamp(self._now(), request_id)
        mark = settings.drained

        def disable(ip: DedicatedIP) -> DedicatedIP | None:
            is_due = mark and ip.status in _TAKEN_OUT and place.has(ip)
            return ip.disable(mark, **stamp) if mark and is_due else None

        def enable(ip: DedicatedIP) -> DedicatedIP | None:
            if ip.disabled is None or ip.disabled.scope is not place.scope:
                return None
            rules = (places or self._places.places()).rules(ip.zone, ip.host)
            return ip.enable(place=rules, **stamp)

        kind = Change.DISABLED if mark else Change.ENABLED
        return self._batches.change(addresses, kind, disable if mark else enable, dry_run=dry_run)


def _filters(place: Place) -> tuple[str | None, str | None]:
    """Return the zone and the host that a list of the place's addresses is filtered by."""
    return (None, place.name) if place.scope is Scope.HOST else (place.name, None)


def _settled(settings: PlaceSettings) -> PlaceSettings:
    return replace(settings, enabled_at=None)
