"""CouchDB's users, and the members of each database: `_users` and `_security`.

Does not read the contents of the databases.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.model import Outcome
from kazoo_ips.repositories.databases import DATABASES
from kazoo_ips.repositories.history_years import is_history

ROLE = "kazoo_ips"
"""The role of the service's user. Databases list the role as a member, not the user. So the user
can be replaced."""

_USER = "org.couchdb.user:"
_ACCOUNT = re.compile(r"account/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}")
"""An account's database. The service does not use its monthly databases, which have a suffix."""


class AccessChange(Enum):
    """How `add_member` changes the members of a database."""

    NONE = "already a member"
    OPEN = "open to every user, not changed"
    ADDED = "member added"


@dataclass(frozen=True, slots=True)
class CouchSession:
    """The user and the roles that CouchDB has authenticated."""

    name: str | None
    roles: tuple[str, ...]

    @property
    def is_administrator(self) -> bool:
        """Whether the user is a server administrator."""
        return "_admin" in self.roles


class AccessRepository:
    """Reads and changes users and members, with the permissions of one CouchDB user."""

    def __init__(self, couch: Couch) -> None:
        self._couch = couch

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The name and password of this connection."""
        return self._couch.credentials

    def session(self) -> CouchSession:
        """Return the user and the roles that CouchDB has authenticated.

        :raises DatastoreLoginRefused: name or password are wrong
        """
        context = self._couch.session()
        return CouchSession(context["name"], tuple(context["roles"]))

    def roles(self, name: str) -> list[str] | None:
        """Return the roles of a user, or None if the user does not exist.

        :raises DatastoreMissing: CouchDB has no `_users` database
        """
        document = self._couch.users().find(_USER + name)
        return None if document is None else list(document.get("roles", []))

    def save_user(self, name: str, roles: list[str], password: str | None) -> bool:
        """Create a user, or change its roles and password if it exists.

        :param password: the new password; None keeps the old one
        :returns: whether it was written; False if another client changed the user meanwhile
        """
        users = self._couch.users()
        document: Document = users.find(_USER + name) or {
            "_id": _USER + name,
            "type": "user",
            "name": name,
        }
        document["roles"] = roles
        if password is not None:
            document["password"] = password
        return users.put(document).outcome is Outcome.DONE

    def databases(self) -> list[str]:
        """Return the databases that the service uses.

        There are five, one for each account, and one for each year of the history.
        """
        names = self._couch.databases()
        return [
            name
            for name in names
            if name in DATABASES or _ACCOUNT.fullmatch(name) or is_history(name)
        ]

    def add_member(self, database: str, *, dry_run: bool = False) -> AccessChange:
        """Add the role to the members of a database. Existing members stay.

        A database without members is open to every user. Adding the first member would lock all
        others out, so such a database is not changed.

        :raises DatastoreMissing: the database does not exist any more
        """
        handle = self._couch.database(database)
        security = handle.security()
        change, merged = merge(security)
        if change is AccessChange.ADDED and not dry_run:
            handle.secure(merged)
        return change


def merge(security: Mapping[str, Any]) -> tuple[AccessChange, Document]:
    """Return the change, and the `_security` object with the role among its members."""
    members = security.get("members") or {}
    roles, names = members.get("roles") or [], members.get("names") or []
    if not roles and not names:
        return AccessChange.OPEN, dict(security)
    if ROLE in roles:
        return AccessChange.NONE, dict(security)
    return AccessChange.ADDED, {**security, "members": {**members, "roles": [*roles, ROLE]}}
