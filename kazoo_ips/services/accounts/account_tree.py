"""The account tree: who is who, who is above whom, and making accounts where no Kazoo does.

Lookups for authorisation are remembered for a few seconds, so that a disabled or moved account
stops working everywhere within that time. Knows neither HTTP nor CouchDB.
"""

import hashlib
import secrets
from collections.abc import Callable
from operator import attrgetter
from threading import Lock
from typing import Any
from urllib.parse import quote

from cachetools import TTLCache, cachedmethod
from cachetools.keys import methodkey

from kazoo_ips.errors import AccountNotFound, RevisionConflict, ValidationFailed
from kazoo_ips.model import Account, User
from kazoo_ips.repositories.accounts import AccountRepository, account_database, normalize_name


class AccountService:
    """The use cases of accounts and users.

    :param now: the time in Gregorian seconds
    :param remember: how long, in seconds, an account or user read for authorisation is kept
    """

    def __init__(
        self, accounts: AccountRepository, now: Callable[[], int], remember: float
    ) -> None:
        self._accounts = accounts
        self._now = now
        self._known: TTLCache[Any, Any] = TTLCache(20_000, ttl=remember)
        self._lock = Lock()

    @cachedmethod(attrgetter("_known"), key=methodkey, lock=attrgetter("_lock"))
    def fetch(self, account_id: str) -> Account:
        """An account as it was at most a few seconds ago.

        :raises AccountNotFound: there is none
        """
        return self._accounts.get(account_id)

    @cachedmethod(attrgetter("_known"), key=methodkey, lock=attrgetter("_lock"))
    def fetch_user(self, account_id: str, user_id: str) -> User | None:
        """A user as it was at most a few seconds ago, or None."""
        return self._accounts.get_user(account_id, user_id)

    def exists(self, account_id: str) -> bool:
        """Whether there is such an account."""
        try:
            return bool(self.fetch(account_id))
        except AccountNotFound:
            return False

    def find(self, kind: str, value: str) -> list[Account]:
        """The accounts of that `name`, `realm` or `api_key`."""
        return self._accounts.find(kind, value)

    def find_user(self, account_id: str, method: str, credentials: str) -> User | None:
        """The user of an account whose credentials have that hash, or None."""
        return self._accounts.find_user(account_id, method, credentials)

    def list(self) -> list[Account]:
        """All accounts, by realm."""
        return self._accounts.list()

    def ensure_secrets(self, account: Account, user: User | None) -> tuple[Account, User | None]:
        """The same identity with the secret that its tokens are bound to; made on first use."""
        secret = {"pvt_signature_secret": secrets.token_hex(16)}
        while True:
            try:
                if user and user.signature_secret is None:
                    user = self._accounts.change_user(account.id, user.id, **secret)
                elif user is None and account.signature_secret is None:
                    account = self._accounts.change_account(account.id, **secret)
                return account, user
            except RevisionConflict:  # somebody else was first: theirs is used
                account = self._accounts.get(account.id)
                user = user and self._accounts.get_user(account.id, user.id)
            finally:
                with self._lock:
                    self._known.clear()

    def create(self, name: str, realm: str, parent_id: str | None = None) -> Account:
        """Make an account; the first one is the operator, later ones are its descendants.

        :param parent_id: whose child it is; None is the operator's
        :raises ValidationFailed: the realm is taken
        :raises AccountNotFound: there is no such parent
        """
        everyone = self._accounts.list()
        if any(a.realm == realm.lower() for a in everyone):
            raise ValidationFailed(
                {"realm": {"unique": {"message": "Realm is not unique", "cause": realm}}}
            )
        if parent_id is None:
            parent = next((a for a in everyone if a.operator), None)
        else:
            parent = self._accounts.get(parent_id)
        return self._accounts.create(self._account_document(name, realm.lower(), parent))

    def create_user(self, account_id: str, username: str, password: str) -> User:
        """Add an admin user to an account.

        :raises AccountNotFound: there is no such account
        :raises ValidationFailed: the name is taken
        """
        self._accounts.get(account_id)
        username = username.lower()
        if self._accounts.find_user_named(account_id, username):
            raise ValidationFailed(
                {"username": {"unique": {"message": "Username is not unique", "cause": username}}}
            )
        return self._accounts.create_user(self._user_document(account_id, username, password))

    def set_enabled(self, account_id: str, enabled: bool) -> Account:
        """Enable or disable an account: a disabled one's tokens stop working."""
        return self._accounts.change_account(
            account_id, pvt_enabled=enabled, pvt_modified=self._now()
        )

    def disable_user(self, account_id: str, username: str) -> User:
        """Disable a user, by name or id: its tokens stop working.

        :raises AccountNotFound: there is no such account
        :raises ValidationFailed: the account has no such user
        """
        self._accounts.get(account_id)
        user = self._accounts.find_user_named(
            account_id, username.lower()
        ) or self._accounts.get_user(account_id, username)
        if user is None:
            raise ValidationFailed(
                {"username": {"not_found": {"message": "no such user", "cause": username}}}
            )
        return self._accounts.change_user(
            account_id, user.id, enabled=False, pvt_modified=self._now()
        )

    def _account_document(self, name: str, realm: str, parent: Account | None) -> dict[str, Any]:
        account_id = secrets.token_hex(16)
        document = {
            "_id": account_id,
            "name": name,
            "realm": realm,
            "timezone": "America/Los_Angeles",
            "call_restriction": {},
            "music_on_hold": {},
            "preflow": {},
            "ringtones": {},
            **self._private("account", account_id),
            "pvt_api_key": secrets.token_hex(32),
            "pvt_cpaas_token": secrets.token_hex(32),
            "pvt_signature_secret": secrets.token_hex(16),
            "pvt_tree": [*parent.tree, parent.id] if parent else [],
            "pvt_enabled": True,
            "pvt_alphanum_name": normalize_name(name),
        }
        if parent:
            return {**document, "pvt_parent_id": parent.id}
        return {**document, "pvt_superduper_admin": True, "pvt_reseller": True}

    def _user_document(self, account_id: str, username: str, password: str) -> dict[str, Any]:
        credentials = f"{username}:{password}".encode()
        return {
            "_id": secrets.token_hex(16),
            "username": username,
            "first_name": "Account",
            "last_name": "Admin",
            "priv_level": "admin",
            "enabled": True,
            "verified": False,
            **self._private("user", account_id),
            # Kazoo's own hashes: what its nodes compare a login with.
            "pvt_md5_auth": hashlib.md5(credentials, usedforsecurity=False).hexdigest(),
            "pvt_sha1_auth": hashlib.sha1(credentials, usedforsecurity=False).hexdigest(),
            "pvt_signature_secret": secrets.token_hex(16),
        }

    def _private(self, kind: str, account_id: str) -> dict[str, Any]:
        return {
            "pvt_type": kind,
            "pvt_vsn": "1",
            "pvt_account_id": account_id,
            "pvt_account_db": quote(account_database(account_id), safe=""),
            "pvt_created": self._now(),
            "pvt_modified": self._now(),
        }
