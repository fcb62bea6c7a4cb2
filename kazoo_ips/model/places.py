"""What the operator has set for zones and hosts. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kazoo_ips.model.lifecycle import OPEN, Disabled, PlaceRules, Scope


@dataclass(frozen=True, slots=True)
class PlaceSettings:
    """The settings of a zone or of a host.

    * `drained` says why it is drained.
    * `enabled_at` is when it was last enabled, in Gregorian seconds, while addresses may still be
      disabled because it was drained.
    * `aging_seconds` is how long an address rests after its release; only zones have it.
    * `takes_oldest` is whether an allocation takes the addresses that have rested longest, if no
      others are left; only zones have it.
    * `low_percent` is the percentage of available addresses at which the zone is low; 0 is never,
      and None is that of all zones. Only zones have it.
    * `others` are the settings that only another release knows.
    """

    drained: Disabled | None = None
    enabled_at: int | None = None
    aging_seconds: int = 0
    takes_oldest: bool = False
    low_percent: int | None = None
    others: Mapping[str, Any] = field(default_factory=dict)


DEFAULTS = PlaceSettings()


@dataclass(frozen=True, slots=True)
class Places:
    """The settings of all zones and hosts that have any."""

    zones: Mapping[str, PlaceSettings] = field(default_factory=dict)
    hosts: Mapping[str, PlaceSettings] = field(default_factory=dict)

    def of(self, scope: Scope) -> Mapping[str, PlaceSettings]:
        """Return the settings of all zones, or of all hosts."""
        return self.hosts if scope is Scope.HOST else self.zones

    def get(self, scope: Scope, name: str) -> PlaceSettings:
        """Return the settings of one zone or host."""
        return self.of(scope).get(name, DEFAULTS)

    def rules(self, zone: str, host: str) -> PlaceRules:
        """Return what the settings say about an address."""
        if zone not in self.zones and host not in self.hosts:
            return OPEN
        settings = self.get(Scope.ZONE, zone)
        drained = self.get(Scope.HOST, host).drained or settings.drained
        return PlaceRules(settings.aging_seconds, settings.takes_oldest, drained)

    def with_settings(self, scope: Scope, name: str, settings: PlaceSettings) -> "Places":
        """Return these settings with others for one zone or host."""
        changed = {**self.of(scope), name: settings}
        if settings == DEFAULTS:
            del changed[name]
        return (
            replace(self, hosts=changed) if scope is Scope.HOST else replace(self, zones=changed)
        )
