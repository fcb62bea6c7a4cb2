"""The databases and design documents that the service needs. Knows nothing of what is in them."""

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
_PATIENCE = 1.5
"""Seconds after which looking for problems ends: being slow is one as well."""
_FAILURES = {
    DatastoreLoginRefused: "CouchDB refuses the service's user or password",
    DatastoreForbidden: "CouchDB does not let the service in",
    DatastoreError: "CouchDB does not answer",
}
_GUARD = "guard"
"""The design document that refuses what no address may become; only where it is asked for."""


class Databases:
    """What must be there before the first request."""

    def __init__(self, couch: Couch) -> None:
        self._couch = couch

    def create(self) -> list[str]:
        """Make the databases that are missing and bring the design documents up to date.

        :returns: what was made or changed; empty when there was nothing to do
        """
        made = [name for name in DATABASES if self._couch.database(name).create()]
        wanted = dict(_DESIGN_DOCS)
        if design_docs.is_there(self._couch.database(POOL), _GUARD):
            wanted[_GUARD] = POOL
        for design_doc, name in wanted.items():
            if design_docs.deploy(self._couch.database(name), design_doc):
                made.append(f"{name}/_design/{design_doc}")
        return made

    def problems(self) -> list[str]:
        """What keeps requests from being served, a sentence each; empty when nothing does.

        Each question is as cheap as can be; reading one row of a view waits for its index.
        """
        end = time.monotonic() + _PATIENCE
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
        """Let CouchDB refuse what no address may become, whoever writes it, or do so no more.

        :returns: whether that changed anything
        """
        act = design_docs.deploy if wanted else design_docs.remove
        return act(self._couch.database(POOL), _GUARD)

    def version(self) -> str:
        """The version of the CouchDB.

        :raises DatastoreUnreachable: it does not answer
        """
        return self._couch.version()

    def delete(self) -> None:
        """Delete every database with the prefix of the settings: for tests."""
        for name in self._couch.databases():
            self._couch.database(name).delete()
