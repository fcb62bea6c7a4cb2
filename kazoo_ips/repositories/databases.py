"""The databases and design documents that the service needs."""

import time
from collections.abc import Callable

from kazoo_ips.couch import design_docs
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import (
    DatastoreError,
    DatastoreForbidden,
    DatastoreLoginRefused,
    DatastoreMissing,
    DatastoreUnreachable,
)
from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.repositories.accounts import ACCOUNTS
from kazoo_ips.repositories.documents import POOL
from kazoo_ips.repositories.history_years import DESIGN_DOCS as HISTORY_DESIGN_DOCS
from kazoo_ips.repositories.history_years import HistoryYears, database_name
from kazoo_ips.repositories.records import RECORDS
from kazoo_ips.repositories.signing_keys import SYSTEM_AUTH, SYSTEM_CONFIG

DATABASES = (ACCOUNTS, POOL, SYSTEM_AUTH, SYSTEM_CONFIG, RECORDS)
_DESIGN_DOCS = {"ips": POOL, "logins": ACCOUNTS, "account_tree": ACCOUNTS}
_TIME_LIMIT = 1.5
"""Seconds after which the search for problems ends. A slow CouchDB is reported as a problem."""
_FAILURES = {
    DatastoreLoginRefused: "CouchDB refuses the service's user or password",
    DatastoreForbidden: "CouchDB refuses the service access to a database",
    DatastoreError: "CouchDB does not answer",
}
_GUARD = "guard"
"""The design document that refuses invalid documents. Optional."""


def _now() -> int:
    return int(time.time()) + GREGORIAN_EPOCH


class Databases:
    """The databases and design documents that must exist before the first request.

    :param now: returns the time in Gregorian seconds
    """

    def __init__(self, couch: Couch, now: Callable[[], int] = _now) -> None:
        self._couch = couch
        self._years = HistoryYears(couch, now)

    def create(self) -> list[str]:
        """Create missing databases, and install or update design documents.

        The history's database of the next year is created too. So an administrator has to run
        this only once a year.

        :returns: the databases and design documents that were created or changed
        """
        changed = [name for name in DATABASES if self._couch.database(name).create()]
        wanted = dict(_DESIGN_DOCS)
        if design_docs.exists(self._couch.database(POOL), _GUARD):
            wanted[_GUARD] = POOL
        for design_doc, name in wanted.items():
            if design_docs.deploy(self._couch.database(name), design_doc):
                changed.append(f"{name}/_design/{design_doc}")
        current = self._years.current
        for year in sorted({*self._years.existing(), current, current + 1}):
            changed += self._years.create(year)
        return changed

    def problems(self) -> list[str]:
        """Return the reasons why requests cannot be served, one sentence each.

        The checks are cheap. Whether an index is built is checked by reading one row of a view.
        """
        end = time.monotonic() + _TIME_LIMIT
        found: list[str] = []
        missing = set()
        try:
            for name in DATABASES:
                try:
                    self._couch.database(name).info()
                except DatastoreMissing:
                    missing.add(name)
                    found.append(f"the database {name} is missing")
                if time.monotonic() > end:
                    return [*found, "CouchDB is slow"]
            for design_doc, name in _DESIGN_DOCS.items():
                if name not in missing:
                    found += self._problems_of(design_doc, name)
            found += self._problems_of_history()
        except DatastoreError as error:
            found.append(next(text for kind, text in _FAILURES.items() if isinstance(error, kind)))
        return found

    def _problems_of_history(self) -> list[str]:
        """Return the problems of the newest database that is in use.

        If only the database of a new year is missing, requests can be served: events wait in the
        documents of the pool. The same holds while an index of the history is being built.
        """
        existing = self._years.existing()
        if not existing:
            return [f"the database {database_name(self._years.current)} is missing"]
        newest = max((y for y in existing if y <= self._years.current), default=existing[0])
        name = database_name(newest)
        return [
            f"the design document {design_doc} of {name} is not current"
            for design_doc in HISTORY_DESIGN_DOCS
            if not design_docs.is_current(self._couch.database(name), design_doc)
        ]

    def _problems_of(self, design_doc: str, name: str) -> list[str]:
        database = self._couch.database(name)
        if not design_docs.is_current(database, design_doc):
            return [f"the design document {design_doc} of {name} is not current"]
        try:
            design_docs.wait_for_index(database, design_doc)
        except DatastoreUnreachable:
            return [f"the index {design_doc} of {name} is not built yet"]
        return []

    def guard(self, wanted: bool) -> bool:
        """Install the design document with which CouchDB refuses invalid documents, or remove it.

        :param wanted: True to install it, False to remove it
        :returns: whether the database was changed
        """
        act = design_docs.deploy if wanted else design_docs.remove
        return act(self._couch.database(POOL), _GUARD)

    def version(self) -> str:
        """Return the version of CouchDB.

        :raises DatastoreUnreachable: CouchDB does not answer
        """
        return self._couch.version()

    def delete(self) -> None:
        """Delete every database with the prefix of the settings. Only for tests."""
        for name in self._couch.databases():
            self._couch.database(name).delete()
