"""The settings of zones and hosts, and what they say about an address.

Every assignment and every release needs them, so each process keeps them in memory. Its background
thread reads them every second. A change by another process is known here about a second later.
What that process writes meanwhile by the old settings, the background work corrects.
"""

import time
from collections.abc import Callable

from kazoo_ips.model import DedicatedIP, PlaceRules, Scope
from kazoo_ips.model.changes import NO_CHANGES, Changes
from kazoo_ips.model.places import Places, PlaceSettings
from kazoo_ips.repositories.place_settings import PlaceSettingsRepository

_MAX_AGE = 10.0
"""Seconds after which a request reads the settings itself: the background thread does not."""


class PlaceService:
    """Reads, keeps and changes the settings of zones and hosts.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(self, settings: PlaceSettingsRepository, now: Callable[[], int]) -> None:
        self._settings = settings
        self.now = now
        self._kept: tuple[float, Places] | None = None

    def rules(self, ip: DedicatedIP, changes: Changes = NO_CHANGES) -> PlaceRules:
        """Return what the settings say about an address.

        :param changes: a move of the address, after which they are to say it
        :raises DatastoreUnreachable: they are not known, and CouchDB does not answer
        """
        return self.places().rules(changes.zone or ip.zone, changes.host or ip.host)

    def places(self) -> Places:
        """Return all settings, as this process knows them."""
        kept = self._kept
        if kept is None or time.monotonic() - kept[0] > _MAX_AGE:
            return self.refresh()
        return kept[1]

    def refresh(self) -> Places:
        """Read all settings from the database."""
        read_at = time.monotonic()
        places = self._settings.read()
        self._kept = (read_at, places)
        return places

    def change(
        self, scope: Scope, name: str, change: Callable[[PlaceSettings], PlaceSettings]
    ) -> PlaceSettings:
        """Change the settings of a zone or a host, and return them.

        :raises Conflict: other writers were faster each time
        """
        read_at = time.monotonic()
        places = self._settings.change(
            lambda all_: all_.with_settings(scope, name, change(all_.get(scope, name)))
        )
        self._kept = (read_at, places)
        return places.get(scope, name)
