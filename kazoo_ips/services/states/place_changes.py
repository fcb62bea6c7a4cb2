"""The settings of one zone or host as the operator sees and changes them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from kazoo_ips.errors import BadIdentifier
from kazoo_ips.model import Attempt, Disabled, Scope, Status, Summary
from kazoo_ips.model.places import DEFAULTS, PlaceSettings
from kazoo_ips.observability import audit
from kazoo_ips.repositories.counts import CountRepository
from kazoo_ips.services.states.draining import DrainService, Place
from kazoo_ips.services.states.places import PlaceService

SECONDS = 5.0
"""Seconds for which a request disables or enables the addresses of a place. The background work
does the rest."""
_REPLICATION_TIME = 0.04
"""Seconds in which a write that a majority has reaches the last replica of a healthy cluster."""


@dataclass(frozen=True, slots=True)
class ChangePlace:
    """Change the settings of a zone or a host. Settings that are None do not change.

    :param enabled: False drains it
    :param reason: why it is drained
    :param aging_seconds: how long an address rests after its release
    :param takes_oldest: whether an allocation takes resting addresses, if no others are left
    :param low_percent: the percentage of available addresses at which the zone is low
    """

    place: Place
    enabled: bool | None = None
    reason: str = ""
    aging_seconds: int | None = None
    takes_oldest: bool | None = None
    low_percent: int | None = None


@dataclass(frozen=True, slots=True)
class PlaceState:
    """A zone or a host: its settings, and how many addresses of each status it has.

    :param pending: the number of addresses that are still to be disabled
    """

    place: Place
    settings: PlaceSettings
    summary: Summary
    pending: int


class PlaceChanges:
    """Shows and changes zones and hosts.

    :param pause: sleeps for a number of seconds
    """

    def __init__(
        self,
        places: PlaceService,
        drains: DrainService,
        counts: CountRepository,
        pause: Callable[[float], None],
    ) -> None:
        self._places = places
        self._drains = drains
        self._counts = counts
        self._pause = pause

    def fetch(self, place: Place) -> PlaceState:
        """Return a zone or a host.

        :raises BadIdentifier: no address is there, and it has no settings
        """
        settings = self._places.refresh().get(place.scope, place.name)
        return self._state(place, settings)

    def change(
        self,
        command: ChangePlace,
        request_id: str,
        *,
        attempt: Attempt | None = None,
        dry_run: bool = False,
    ) -> PlaceState:
        """Change the settings of a zone or a host, and its addresses as they say.

        A repeated request changes nothing more, so earlier attempts do not matter.

        :param attempt: the attempt of a request with an Idempotency-Key
        :raises BadIdentifier: no address is there, and it has no settings
        :raises Conflict: other writers have changed the settings each time
        """
        del attempt
        state = self.set(command, dry_run=dry_run)
        if command.enabled is None or dry_run:
            return state
        for _ in self._drains.carry_out(command.place, request_id, SECONDS):
            pass
        return self.fetch(command.place)

    def set(self, command: ChangePlace, *, dry_run: bool = False) -> PlaceState:
        """Change the settings of a zone or a host only; errors are those of `change`."""
        place = command.place
        kept = self.fetch(place).settings
        if dry_run:
            state = self._state(place, self._changed(command, kept))
            counts = Counter(state.summary.counts)
            if command.enabled is not None:
                counts.update(self._drains.preview(place, state.settings))
            left = {status: count for status, count in counts.items() if count}
            return replace(state, summary=Summary(left, place.name), pending=0)

        def change(found: PlaceSettings) -> PlaceSettings:
            nonlocal kept
            kept = found  # another process may have changed them since
            return self._changed(command, found)

        settings = self._places.change(place.scope, place.name, change)
        if settings != kept:
            audit.place_changed(place.scope, place.name, kept, settings)
        return self._state(place, settings)

    def _changed(self, command: ChangePlace, kept: PlaceSettings) -> PlaceSettings:
        settings = kept
        if command.enabled is False and kept.drained is None:
            mark = Disabled(
                command.reason, self._places.now(), audit.author(), command.place.scope
            )
            settings = replace(settings, drained=mark, enabled_at=None)
        elif command.enabled and kept.drained is not None:
            settings = replace(settings, drained=None, enabled_at=self._places.now())
        if command.aging_seconds is not None:
            settings = replace(settings, aging_seconds=command.aging_seconds)
        if command.takes_oldest is not None:
            settings = replace(settings, takes_oldest=command.takes_oldest)
        if command.low_percent is not None:
            settings = replace(settings, low_percent=command.low_percent)
        return settings

    def _state(self, place: Place, settings: PlaceSettings) -> PlaceState:
        summary = self._summary(place)
        if not summary.counts and settings == DEFAULTS and self._counts.may_lag:
            # Perhaps its first address was added a moment ago, and this replica lacks it.
            self._pause(_REPLICATION_TIME)
            summary = self._summary(place)
        if not summary.counts and settings == DEFAULTS:
            raise BadIdentifier(place.name)
        open_ = (Status.AVAILABLE, Status.AGING, Status.RESERVED)
        pending = sum(summary.counts.get(each, 0) for each in open_) if settings.drained else 0
        return PlaceState(place, settings, summary, pending)

    def _summary(self, place: Place) -> Summary:
        if place.scope is Scope.HOST:
            return self._counts.of_host(place.name)
        zones = self._counts.by_zone()
        return next((zone for zone in zones if zone.name == place.name), Summary({}, place.name))
