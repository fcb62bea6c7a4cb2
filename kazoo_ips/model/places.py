"""Places: the operator's settings of zones and hosts. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kazoo_ips.model.lifecycle import OPEN, Disabled, PlaceRules, Scope


@dataclass(frozen=True, slots=True)
class PlaceSettings:
    """The settings of a zone or of a host.

    * `drained` is why it is drained; None if it is not.
    * `enabled_at` is the time, in Gregorian seconds, at which its drain ended. It is None once no
      address can be disabled because of that drain.
    * `others` are the settings that only another release knows.

    Only zones have these:

    * `aging_seconds` is how long an address rests after its release; 0 if it does not rest.
    * `takes_oldest` is whether an allocation takes the addresses that have rested longest, if no
      available ones are left.
    * `low_percent` is the percentage of available addresses at which the zone is low. 0 is never;
      None is the percentage of `KAZOO_IPS_LOW_PERCENT`.
    """

    drained: Disabled | None = None
    enabled_at: int | None = None
    aging_seconds: int = 0
    takes_oldest: bool = False
    low_percent: int | None = None
    others: Mapping[str, Any] = field(default_factory=dict)


DEFAULTS = PlaceSettings()
"""The settings of a place that the operator has not set."""


@dataclass(frozen=True, slots=True)
class Places:
    """The settings of all zones and hosts that have settings, by their names."""

    zones: Mapping[str, PlaceSettings] = field(default_factory=dict)
    hosts: Mapping[str, PlaceSettings] = field(default_factory=dict)

    def of(self, scope: Scope) -> Mapping[str, PlaceSettings]:
        """Return the settings of all hosts for `Scope.HOST`, and of all zones otherwise."""
        return self.hosts if scope is Scope.HOST else self.zones

    def get(self, scope: Scope, name: str) -> PlaceSettings:
        """Return the settings of one zone or host; `DEFAULTS` if it has none."""
        return self.of(scope).get(name, DEFAULTS)

    def rules(self, zone: str, host: str) -> PlaceRules:
        """Return the rules for an address in a zone and on a host."""
        if zone not in self.zones and host not in self.hosts:
            return OPEN
        settings = self.get(Scope.ZONE, zone)
        drained = self.get(Scope.HOST, host).drained or settings.drained
        return PlaceRules(settings.aging_seconds, settings.takes_oldest, drained)

    def with_settings(self, scope: Scope, name: str, settings: PlaceSettings) -> "Places":
        """Return a copy in which one zone or host has other settings."""
        changed = {**self.of(scope), name: settings}
        if settings == DEFAULTS:
            del changed[name]
        return (
            replace(self, hosts=changed) if scope is Scope.HOST else replace(self, zones=changed)
        )
