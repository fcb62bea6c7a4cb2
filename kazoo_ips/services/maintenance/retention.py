"""Deletes the years of the history that are not to be kept, by deleting their databases.

Deleting a database needs an administrator of CouchDB. If the service's own user is none, the
command `history-expire` does it.
"""

import logging
from collections.abc import Callable

from kazoo_ips.errors import DatastoreForbidden
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.checkpoints import Checkpoint, Checkpoints
from kazoo_ips.repositories.history_years import HistoryYears

log = logging.getLogger(__name__)

_NAME = "history-retention"
"""The name of the lease."""
_DAY = 86_400
"""Seconds between two searches. The process that finds the lease free takes it for this time."""


class RetentionService:
    """Deletes old years of the history.

    :param kept: the number of past years that are kept; 0 for all
    :param now: returns the time in Gregorian seconds
    :param refused: called when CouchDB does not permit to delete a year
    """

    def __init__(
        self,
        years: HistoryYears,
        checkpoints: Checkpoints,
        kept: int,
        now: Callable[[], int],
        refused: Callable[[], object] = lambda: None,
    ) -> None:
        self._years = years
        self._checkpoints = checkpoints
        self._kept = kept
        self._now = now
        self._refused = refused

    def expired(self) -> list[int]:
        """Return the years that have a database and are not to be kept, in ascending order."""
        if not self._kept:
            return []
        return [y for y in self._years.existing() if y < self._years.current - self._kept]

    def delete(self, year: int) -> None:
        """Delete a year with all its events.

        :raises DatastoreForbidden: the user is no administrator of CouchDB
        """
        self._years.delete(year)
        log.warning("the history of %d is deleted", year)

    def delete_expired(self) -> list[int]:
        """Delete the expired years, once a day in one process of all instances.

        If the clock of this machine may be wrong, nothing is deleted: a year that is over has a
        database, because `setup` and the archive create one.

        :returns: the years that were deleted
        """
        if not self._kept or not self._take_lease():
            return []
        expired = self.expired()
        if expired and self._years.current - 1 not in self._years.existing():
            log.error("the history has no %d: is the clock right?", self._years.current - 1)
            return []
        deleted = []
        for year in expired:
            try:
                self.delete(year)
                deleted.append(year)
            except DatastoreForbidden:
                self._refused()
                log.error("the history of %d is to be deleted: run history-expire", year)
        return deleted

    def _take_lease(self) -> bool:
        stored = self._checkpoints.find(_NAME)
        if stored and self._now() < stored.until <= self._now() + _DAY:
            return False
        revision = stored.revision if stored else None
        lease = Checkpoint(
            _NAME, liveness.identity(), self._now() + _DAY, "", "", revision=revision
        )
        return self._checkpoints.put(lease) is not None
