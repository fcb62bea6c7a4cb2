"""CouchDB's users, and who may use which database: `_users` and `_security`.

Knows nothing of what is in the databases.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.model import Outcome
from kazoo_ips.repositories.databases import DATABASES

ROLE = "kazoo_ips"
"""What the service's user is a member by: databases name the role, so that users can change."""

_USER = "org.couchdb.user:"
_ACCOUNT = re.compile(r"account/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}")
"""An account's own database; its monthly ones have more behind it and are none of ours."""


class Change(Enum):
    """What letting somebody in means for one database."""

    NONE = "let in already"
    OPEN = "open to everybody, left so"
    ADDED = "let in"


@dataclass(frozen=True, slots=True)
class Session:
    """Whom CouchDB takes us for."""

    name: str | None
    roles: tuple[str, ...]

    @property
    def is_administrator(self) -> bool:
        """Whether it may do everything."""
        return "_admin" in self.roles


class AccessRepository:
    """Users and members, as one user of CouchDB sees and sets them."""

    def __init__(self, couch: Couch) -> None:
        self._couch = couch

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The name and password that this connection has."""
        return self._couch.credentials

    def session(self) -> Session:
        """Whom CouchDB takes us for.

        :raises DatastoreLoginRefused: name or password are wrong
        """
        context = self._couch.session()
        return Session(context["name"], tuple(context["roles"]))

    def roles(self, name: str) -> list[str] | None:
        """The roles of a user, or None when there is no such user.

        :raises DatastoreMissing: CouchDB keeps no users
        """
        document = self._couch.users().find(_USER + name)
        return None if document is None else list(document.get("roles", []))

    def save_user(self, name: str, roles: list[str], password: str | None) -> bool:
        """Make a user, or change the one there is; nothing else about it changes.

        :param password: a new one; None leaves it as it is
        :returns: whether it was done; not when somebody else changed the user meanwhile
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
        """The databases that the service uses: its five, and the accounts' own."""
        names = self._couch.databases()
        return [name for name in names if name in DATABASES or _ACCOUNT.fullmatch(name)]

    def let_in(self, database: str, *, dry_run: bool = False) -> Change:
        """Let the role be a member of a database; whom it knows already stays.

        A database without any member is open to everybody: naming the first one would lock the
        others out.

        :raises DatastoreMissing: it has gone
        """
        there = self._couch.database(database)
        security = there.security()
        change, merged = merge(security)
        if change is Change.ADDED and not dry_run:
            there.secure(merged)
        return change


def merge(security: Mapping[str, Any]) -> tuple[Change, Document]:
    """A `_security` object with the role among its members, and what that changes."""
    members = security.get("members") or {}
    roles, names = members.get("roles") or [], members.get("names") or []
    if not roles and not names:
        return Change.OPEN, dict(security)
    if ROLE in roles:
        return Change.NONE, dict(security)
    return Change.ADDED, {**security, "members": {**members, "roles": [*roles, ROLE]}}
