"""Ended rests and reservations: their addresses become available.

They can be assigned as soon as their time is over, because each assignment compares the times. But
Kazoo gives an address away only if its status is `available`.
"""

from collections.abc import Callable
from functools import partial
from uuid import uuid4

from kazoo_ips.model import DedicatedIP, Status
from kazoo_ips.observability import audit
from kazoo_ips.observability.audit import Change
from kazoo_ips.repositories.expiries import ExpiryRepository
from kazoo_ips.services.states.batches import BATCH, BatchWriter
from kazoo_ips.services.states.places import PlaceService

_MOST_BATCHES = 20
"""Maximum number of batches of one round. The next round does the rest."""


class ExpiryService:
    """Makes addresses available whose time is over.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(
        self,
        expiries: ExpiryRepository,
        batches: BatchWriter,
        places: PlaceService,
        now: Callable[[], int],
    ) -> None:
        self._expiries = expiries
        self._batches = batches
        self._places = places
        self._now = now

    def end_due(self) -> int:
        """End the rests and reservations whose time is over; return how many were ended."""
        rested = self._end(Status.AGING, Change.AGED, DedicatedIP.end_rest)
        return rested + self._end(Status.RESERVED, Change.RELEASED, self._end_reservation)

    def _end_reservation(self, ip: DedicatedIP, **stamp: object) -> DedicatedIP:
        place = self._places.rules(ip)
        return ip.end_reservation(place=place, **stamp)  # type: ignore[arg-type]

    def _end(self, status: Status, kind: Change, end: Callable[..., DedicatedIP]) -> int:
        count = 0
        for _ in range(_MOST_BATCHES):
            now = self._now()
            due = self._expiries.ended(status, now, limit=BATCH)
            request_id = f"expiry-{uuid4().hex[:16]}"
            ended = self._batches.change(due, kind, partial(end, **audit.stamp(now, request_id)))
            count += len(ended)
            if len(due) < BATCH or not ended:
                break
        return count
