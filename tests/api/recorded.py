"""Recorded documents and logins of a running Kazoo, restored into databases of their own."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from webtest import TestApp

from kazoo_ips.app import create_app
from kazoo_ips.config import Settings
from tests.api.couchdb import Databases
from tests.openapi_check import CheckedApp

FOLDER = Path(__file__).parents[1] / "recordings"
DATABASES: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "databases.json").read_text())
LOGINS: list[dict[str, Any]] = json.loads((FOLDER / "logins.json").read_text())

THEN = 1795378405 - 3600
"""The time of the first recorded login, in Unix seconds."""

MASTER = "b19b1ba7e48663cf20e276fcf4e0e231"
SUB_ONE = "565064ec863f60e5915d286a62025896"
SUB_TWO = "a8d8ea90d5d1596c02f523f3db9b545b"
SUB_THREE = "b67e9f0548de4ea4005a4aa711561cda"  # disabled
SUB_THREE_A = "ebaa14f56b7c8bf1b61827d7ccaadabb"
ANN = "dc594ea86fe3683e24bed5b5ca7f2b1e"  # of Sub One


def login(name: str) -> dict[str, Any]:
    """A recorded login by its name."""
    return next(each for each in LOGINS if each["name"] == name)


def token(name: str) -> str:
    """The token of a recorded login."""
    return str(login(name)["reply"]["auth_token"])


def decode(part: str) -> dict[str, Any]:
    """The header or the claims of a token."""
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def document(database: str, document_id: str) -> dict[str, Any]:
    """A recorded document."""
    return next(each for each in DATABASES[database] if each["_id"] == document_id)


class Kazoo:
    """The recorded databases, and the application on them at the time of the recording."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.databases = Databases(settings.as_administrator().couchdb_url, settings.prefix)
        self.api = self.at(THEN)

    def restore(self) -> None:
        """Write every recorded document with its revision."""
        for name, documents in DATABASES.items():
            self.databases("PUT", name)
            self.databases("POST", name, "/_bulk_docs", {"docs": documents, "new_edits": False})

    def at(self, now: float, **settings: Any) -> TestApp:
        """The application at another time."""
        return CheckedApp(create_app(replace(self.settings, **settings), clock=lambda: now))

    @contextmanager
    def changed(self, database: str, document_id: str, **fields: Any) -> Iterator[None]:
        """Change fields of a document inside a `with`; None removes a field."""
        before = self.databases.get(database, document_id)
        self.databases.change(database, document_id, **fields)
        try:
            yield
        finally:
            now = self.databases.get(database, document_id)
            self.databases.put(database, {**before, "_rev": now["_rev"]})
