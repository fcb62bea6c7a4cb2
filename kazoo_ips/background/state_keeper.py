"""Changes of states that follow from the time, and from the settings of zones and hosts.

Every process reads the settings each second. One process of all makes the addresses available
whose rest or reservation is over, and finishes drains whose process has ended.
"""

from kazoo_ips.background.lease import Lease
from kazoo_ips.services.states.draining import DrainService
from kazoo_ips.services.states.expiry import ExpiryService
from kazoo_ips.services.states.places import PlaceService

ROUND = 20.0
"""Seconds between two rounds. The lease outlives a round."""


class StateKeeper:
    """Changes the states of addresses as the time and the settings demand."""

    def __init__(
        self, lease: Lease, places: PlaceService, expiry: ExpiryService, drains: DrainService
    ) -> None:
        self._lease = lease
        self._places = places
        self._expiry = expiry
        self._drains = drains

    def read_settings(self) -> None:
        """Read the settings of zones and hosts, for the requests of this process."""
        self._places.refresh()

    def keep(self) -> int:
        """Do one round if this process holds the lease; return how many addresses it changed."""
        if not self._lease.hold():
            return 0
        return self._expiry.end_due() + self._drains.carry_out_all()
