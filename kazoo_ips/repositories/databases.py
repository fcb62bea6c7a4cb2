"""The databases and design documents that the service needs."""

import time

from kazoo_ips.couch import design_docs
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import (
    DatastoreError,
    DatastoreForbidden,
    DatastoreLoginRefused,
    DatastoreMissing,
    DatastoreUnreachable,
)
from kazoo_ips.repositories.accounts import ACCOUNTS
from kazoo_ips.repositories.documents import POOL
from kazoo_ips.repositories.records import RECORDS
from kazoo_ips.repositories.signing_keys import SYSTEM_AUTH, SYSTEM_CONFIG

DATABASES = (ACCOUNTS, POOL, SYSTEM_AUTH, SYSTEM_CONFIG, RECORDS)
_DESIGN_DOCS = {"ips": POOL, "logins": ACCOUNTS}
_TIME_LIMIT = 1.5
"""Seconds after which the search for problems ends. A slow CouchDB is reported as a problem."""
_FAILURES = {
    DatastoreLoginRefused: "CouchDB refuses the service's user or password",
    DatastoreForbidden: "CouchDB refuses the service access to a database",
    DatastoreError: "CouchDB does not answer",
}
_GUARD = "guard"
"""The design document that refuses invalid documents. Optional."""


class Databases:
    """The databases and design documents that must exist before the first request."""

    def __init__(self, couch: Couch) -> None:
        self._couch = couch

    def create(self) -> list[str]:
        """Create missing databases, and install or update design documents.

        :returns: the databases and design documents that were created or changed
        """
        changed = [name for name in DATABASES if self._couch.database(name).create()]
        wanted = dict(_DESIGN_DOCS)
        if design_docs.exists(self._couch.database(POOL), _GUARD):
            wanted[_GUARD] = POOL
        for design_doc, name in wanted.items():
            if design_docs.deploy(self._couch.database(name), design_doc):
                changed.append(f"{name}/_design/{design_doc}")
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
        except DatastoreError as error:
            found.append(next(text for kind, text in _FAILURES.items() if isinstance(error, kind)))
        return found

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
