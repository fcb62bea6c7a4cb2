"""A lease, so that one process of all workers of all instances does a piece of work."""

from collections.abc import Callable
from dataclasses import replace

from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints

LEASE = 30
"""Seconds after which another process takes over, unless the holder has renewed the lease. A
process that knows the holder to be dead takes over at once."""
RENEW = 15
"""Seconds before the end of the lease at which the holder renews it."""
CHECK = 5
"""Seconds between two reads of the lease by a process that does not hold it."""


class OtherHolder:
    """Determines whether another process holds a lease, even if the clocks differ.

    The end of a lease is a time of the holder's clock, which may be hours ahead. So this process
    also measures by its own clock how long the lease has not changed.

    :param lasts: seconds after which a lease has ended that was not renewed
    """

    def __init__(self, lasts: int) -> None:
        self._lasts = lasts
        self._seen: tuple[str, int, int] = "", 0, 0
        """The holder and the end of the lease as this process has read them last, and when it has
        read the same for the first time."""

    def holds(self, stored: Checkpoint | None, now: int) -> bool:
        """Return whether another process holds the lease, and may still renew it.

        :param stored: the lease as this process has just read it; None if there is none
        :param now: in Gregorian seconds
        """
        if stored is None or not stored.is_held_by_another(now):
            return False
        holder, until, since = self._seen
        if (holder, until) != (stored.holder, stored.until) or now < since:
            self._seen = stored.holder, stored.until, now
            return True
        return now - since <= self._lasts


class Lease:
    """The lease of one piece of work.

    :param name: names the work; the same in all processes
    :param now: returns the time in Gregorian seconds
    """

    def __init__(self, name: str, checkpoints: Checkpoints, now: Callable[[], int]) -> None:
        self._name = name
        self._checkpoints = checkpoints
        self._now = now
        self._held: Checkpoint | None = None
        self._next_check = 0
        self._other = OtherHolder(LEASE + CHECK)

    def hold(self) -> bool:
        """Take or renew the lease if it is time, and return whether this process holds it.

        :raises DatastoreError: CouchDB failed; the lease may be lost
        """
        now = self._now()
        held = self._held
        if held:
            if RENEW < held.until - now <= LEASE:
                return True
            return self._write(held, now)
        if 0 < self._next_check - now <= CHECK:
            return False
        self._next_check = now + CHECK
        stored = self._checkpoints.find(self._name)
        if self._other.holds(stored, now):
            return False
        return self._write(stored or Checkpoint(self._name, "", 0, "", ""), now)

    def _write(self, stored: Checkpoint, now: int) -> bool:
        self._held = None  # the lease is not held if the write raises an error
        self._held = self._checkpoints.put(
            replace(stored, holder=liveness.identity(), until=now + LEASE)
        )
        return self._held is not None
