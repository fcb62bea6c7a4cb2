"""Gives the service's CouchDB user access to its databases as a plain member.

This needs an administrator. Existing members stay, so that Kazoo's nodes keep their access. Users
and databases that need no change are not written.
"""

from collections.abc import Callable, Iterator

from kazoo_ips.errors import DatastoreLoginRefused, DatastoreMissing, NotSecured
from kazoo_ips.repositories.access import ROLE, AccessChange, AccessRepository


class DatabaseAccessService:
    """Creates the service's CouchDB user, and makes it a member of the databases.

    :param administrator: reads and writes users and members as an administrator
    :param member: does the same as the service's user
    """

    def __init__(self, administrator: AccessRepository, member: AccessRepository) -> None:
        self._administrator = administrator
        self._member = member

    def check(self) -> None:
        """Check that the settings name two users, one of them an administrator.

        :raises NotSecured: they do not
        """
        if self._administrator.credentials is None:
            raise NotSecured("COUCHDB_ADMIN_URL: name and password of an administrator are needed")
        if self._member.credentials is None:
            raise NotSecured("COUCHDB_URL: the service's name and password are needed")
        if self._administrator.credentials[0] == self._member.credentials[0]:
            raise NotSecured("COUCHDB_URL: the service needs a user of its own")
        if not self._administrator.session().is_administrator:
            raise NotSecured("COUCHDB_ADMIN_URL: that user is not an administrator of CouchDB")

    def ensure_user(self, *, new_password: bool = False, dry_run: bool = False) -> str | None:
        """Create the user of COUCHDB_URL, or add the role to it if it exists.

        :param new_password: whether the password of an existing user is changed if it differs
        :returns: what was done; None if nothing had to be changed
        :raises NotSecured: the user has another password, or CouchDB has no users
        """
        name, password = self._member.credentials or ("", "")
        try:
            roles = self._administrator.roles(name)
        except DatastoreMissing as error:
            raise NotSecured("this CouchDB has no database _users, so it has no users") from error
        if roles is None:
            if not dry_run:
                self._save(name, [ROLE], password)
            return f"user {name}: created"
        wrong = not self._password_is_right()
        if wrong and not new_password:
            raise NotSecured(f"user {name}: has another password; --new-password changes it")
        if ROLE in roles and not wrong:
            return None
        if not dry_run:
            self._save(name, sorted({*roles, ROLE}), password if wrong else None)
        return f"user {name}: " + ("new password" if wrong else f"role {ROLE}")

    def _save(self, name: str, roles: list[str], password: str | None) -> None:
        if not self._administrator.save_user(name, roles, password):
            raise NotSecured(f"user {name}: another client has changed it meanwhile; try again")

    def _password_is_right(self) -> bool:
        """Whether CouchDB accepts the password of COUCHDB_URL.

        :raises DatastoreLoginRefused: the user is locked out, so the password cannot be checked
        """
        try:
            return self._member.session().name is not None
        except DatastoreLoginRefused as error:
            if error.locked:
                raise
            return False

    def databases(self) -> list[str]:
        """Return the databases that the service uses, including those of all accounts."""
        return self._administrator.databases()

    def add_member(
        self, databases: list[str], seen: Callable[[int], object], *, dry_run: bool = False
    ) -> Iterator[tuple[str, AccessChange]]:
        """Make the service's user a member of these databases.

        :param seen: called with the number of databases checked since the last call
        :returns: the databases that were changed or are open to every user, and the change
        """
        for database in databases:
            try:
                change = self._administrator.add_member(database, dry_run=dry_run)
            except DatastoreMissing:  # the account was deleted meanwhile
                change = AccessChange.NONE
            seen(1)
            if change is not AccessChange.NONE:
                yield database, change
