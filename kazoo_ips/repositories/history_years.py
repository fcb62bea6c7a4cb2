"""The databases of the history: `kazoo_ips_history_<year>`, one for each year.

The database of a year has the events of that year. The oldest database also has the events of all
years before it: those that are known from before the service kept a history, and those of a year
that is deleted already.
"""

import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock

from kazoo_ips.couch import design_docs
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.errors import DatastoreForbidden, DatastoreMissing, HistoryMissing
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.repositories.documents import POOL

log = logging.getLogger(__name__)

FIRST_YEAR = 2026
"""The year of the first release with a history. No database is older."""
DESIGN_DOCS = ("append_only", "history")
"""The design documents of each database of the history."""
_NAME = re.compile(r"kazoo_ips_history_\d{4}")
_SHARDS = 1
"""With one shard, CouchDB's changes feed has the events in the order in which they were written.
With several, it mixes the feeds of the shards."""
_CHECK = 10.0
"""Seconds between two searches for databases that another process may have created."""


def database_name(of_year: int) -> str:
    """Return the name of the database for a year."""
    return f"kazoo_ips_history_{of_year}"


def is_history(name: str) -> bool:
    """Whether a database, by its name, is one of the history."""
    return _NAME.fullmatch(name) is not None


def year(at: int) -> int:
    """Return the year of a time in Gregorian seconds, in UTC.

    Other programs may have written any number. A time outside the calendar counts as year 1 or
    9999.
    """
    try:
        return datetime.fromtimestamp(at - GREGORIAN_EPOCH, UTC).year
    except (ValueError, OverflowError, OSError):
        return 1 if at < GREGORIAN_EPOCH else 9999


class HistoryYears:
    """The years that have a database.

    :param now: returns the time in Gregorian seconds
    :param missing: called when a database is missing that this process may not create
    """

    def __init__(
        self,
        couch: Couch,
        now: Callable[[], int],
        missing: Callable[[], object] = lambda: None,
    ) -> None:
        self._couch = couch
        self._now = now
        self._missing = missing
        self._lock = Lock()
        self._existing: set[int] = set()
        self._next_check = 0.0

    @property
    def current(self) -> int:
        """The current year, in UTC."""
        return max(year(self._now()), FIRST_YEAR)

    def database(self, of_year: int) -> Database:
        """Return the database of a year. Nothing is sent."""
        return self._couch.database(database_name(of_year))

    def existing(self) -> list[int]:
        """Return the years that have a database, in ascending order.

        A database that another process has created is found after `_CHECK` seconds at the latest.

        :raises DatastoreForbidden: the service's user is no member of a database
        """
        with self._lock:
            known, is_due = set(self._existing), time.monotonic() >= self._next_check
            if is_due:
                self._next_check = time.monotonic() + _CHECK
        if not is_due and known:
            return sorted(known)
        # Without the lock: other threads go on with the years that are known.
        found = {each for each in self._possible(known) if self._exists(each)}
        with self._lock:
            self._existing |= found
            return sorted(self._existing)

    def _possible(self, known: set[int]) -> list[int]:
        """Return the years that could have a database, and are not known to have one."""
        return [y for y in range(FIRST_YEAR, self.current + 2) if y not in known]

    def _exists(self, of_year: int) -> bool:
        try:
            self.database(of_year).info()
        except DatastoreMissing:
            return False
        return True

    def forget(self, of_year: int) -> None:
        """Record that the database of a year does not exist any more."""
        with self._lock:
            self._existing.discard(of_year)

    def year_for(self, at: int) -> int:
        """Return the year whose database has the events of a time.

        An event from before the oldest database belongs to the oldest one. The clock of a writer
        may be wrong: an event of the far future belongs to the next year.

        :param at: the time in Gregorian seconds
        """
        existing = self.existing()
        oldest = existing[0] if existing else self.current
        return max(min(year(at), self.current + 1), oldest)

    def ensure(self, of_year: int) -> None:
        """Create the database of a year, if it is missing.

        If there is no database at all, that of the current year is created too: it is the oldest.

        :raises HistoryMissing: the service's user may not create it
        """
        wanted = {of_year} if self.existing() else {min(of_year, self.current), of_year}
        for each in sorted(wanted - set(self.existing())):
            try:
                self.create(each)
            except DatastoreForbidden as error:
                self._missing()
                name = database_name(each)
                log.error("%s is missing, and this user may not create it: run setup", name)
                raise HistoryMissing(f"the database {name} is missing") from error

    def create(self, of_year: int) -> list[str]:
        """Create the database of a year, and install or update its design documents.

        A new database gets the members of the pool's database.

        :returns: the database and the design documents that were created or changed
        :raises DatastoreForbidden: the user is no administrator
        """
        name, database = database_name(of_year), self.database(of_year)
        changed = [name] if database.create(_SHARDS) else []
        if changed:
            security = self._couch.database(POOL).security()
            if any(security.get("members", {}).values()):
                database.secure(security)
        changed += [
            f"{name}/_design/{design_doc}"
            for design_doc in DESIGN_DOCS
            if design_docs.deploy(database, design_doc)
        ]
        with self._lock:
            self._existing.add(of_year)
        return changed

    def problems(self) -> list[str]:
        """Return what is wrong with the databases, one sentence each. None stops the service."""
        found, existing = [], self.existing()
        for each in (self.current, self.current + 1):
            if each not in existing:
                found.append(f"the database {database_name(each)} is missing; run setup")
        for each in existing:
            name, database = database_name(each), self.database(each)
            if database.info().get("cluster", {}).get("q", _SHARDS) != _SHARDS:
                found.append(f"{name} has several shards: the feed can mix up its events")
            found += [
                f"the design document {design_doc} of {name} is not current; run setup"
                for design_doc in DESIGN_DOCS
                if not design_docs.is_current(database, design_doc)
            ]
        return found

    def delete(self, of_year: int) -> None:
        """Delete the database of a year with all its events.

        :raises DatastoreForbidden: the user is no administrator
        """
        self.database(of_year).delete()
        self.forget(of_year)
