"""Lets the service into its databases as a plain member, with an administrator's help.

Whom the databases know already stays, so that Kazoo's nodes go on; what is as it should be is not
written again.
"""

from collections.abc import Callable, Iterator

from kazoo_ips.errors import DatastoreLoginRefused, DatastoreMissing, NotSecured
from kazoo_ips.repositories.access import ROLE, AccessRepository, Change


class DatabaseAccessService:
    """Makes the service's CouchDB user and lets it into the databases.

    :param administrator: what the administrator may see and set
    :param member: the same for the service's user
    """

    def __init__(self, administrator: AccessRepository, member: AccessRepository) -> None:
        self._administrator = administrator
        self._member = member

    def check(self) -> None:
        """Make sure that there are two users, and that one of them is an administrator.

        :raises NotSecured: there are not
        """
        if self._administrator.credentials is None:
            raise NotSecured("COUCHDB_ADMIN_URL: name and password of an administrator are needed")
        if self._member.credentials is None:
            raise NotSecured("COUCHDB_URL: the service's name and password are needed")
        if self._administrator.credentials[0] == self._member.credentials[0]:
            raise NotSecured("COUCHDB_URL: the service needs a user of its own")
        if not self._administrator.session().is_administrator:
            raise NotSecured("COUCHDB_ADMIN_URL: that user is no administrator of CouchDB")

    def ensure_user(self, *, new_password: bool = False, dry_run: bool = False) -> str | None:
        """Make the user of COUCHDB_URL, or give the one there is the role.

        :param new_password: whether a user that has another password gets this one
        :returns: what was done; None when there was nothing to do
        :raises NotSecured: there is one with another password, or CouchDB keeps no users
        """
        name, password = self._member.credentials or ("", "")
        try:
            roles = self._administrator.roles(name)
        except DatastoreMissing as error:
            raise NotSecured("this CouchDB has no _users, so it knows no users") from error
        if roles is None:
            if not dry_run:
                self._save(name, [ROLE], password)
            return f"user {name}: made"
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
            raise NotSecured(f"user {name}: somebody else changed it meanwhile; try again")

    def _password_is_right(self) -> bool:
        """Whether CouchDB takes it.

        :raises DatastoreLoginRefused: the user is locked out, so that nobody can tell
        """
        try:
            return self._member.session().name is not None
        except DatastoreLoginRefused as error:
            if error.locked:
                raise
            return False

    def databases(self) -> list[str]:
        """The databases that the service uses, those of all accounts included."""
        return self._administrator.databases()

    def let_in(
        self, databases: list[str], seen: Callable[[int], object], *, dry_run: bool = False
    ) -> Iterator[tuple[str, Change]]:
        """Let the service into these databases.

        :param seen: called with how many were looked at since the last call
        :returns: those that needed something or are open to everybody, and what was done
        """
        for database in databases:
            try:
                change = self._administrator.let_in(database, dry_run=dry_run)
            except DatastoreMissing:  # an account that was deleted this moment
                change = Change.NONE
            seen(1)
            if change is not Change.NONE:
                yield database, change
