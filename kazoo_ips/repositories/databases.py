"""The databases and design documents that the service needs. Knows nothing of what is in them."""

from kazoo_ips.couch import design_docs
from kazoo_ips.couch.client import Couch
from kazoo_ips.repositories.accounts import ACCOUNTS
from kazoo_ips.repositories.ips import POOL
from kazoo_ips.repositories.journal import JOURNAL
from kazoo_ips.repositories.keys import SYSTEM_AUTH, SYSTEM_CONFIG

_DATABASES = (ACCOUNTS, POOL, SYSTEM_AUTH, SYSTEM_CONFIG, JOURNAL)
_DESIGN_DOCS = {"ips": POOL, "logins": ACCOUNTS}


class Databases:
    """What must be there before the first request."""

    def __init__(self, couch: Couch) -> None:
        self._couch = couch

    def create(self) -> list[str]:
        """Make the databases that are missing and bring the design documents up to date.

        :returns: what was made or changed; empty when there was nothing to do
        """
        made = [name for name in _DATABASES if self._couch.database(name).create()]
        for design_doc, name in _DESIGN_DOCS.items():
            if design_docs.deploy(self._couch.database(name), design_doc):
                made.append(f"{name}/_design/{design_doc}")
        return made

    def version(self) -> str:
        """The version of the CouchDB.

        :raises DatastoreUnreachable: it does not answer
        """
        return self._couch.version()

    def delete(self) -> None:
        """Delete every database with the prefix of the settings: for tests."""
        for name in self._couch.databases():
            self._couch.database(name).delete()
