"""The account tree: lookups of accounts and users, and their creation without Kazoo.

Lookups for authorisation are cached for a few seconds. So all workers refuse a disabled or moved
account within that time.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from operator import attrgetter
from threading import Lock
from typing import Any
from urllib.parse import quote

from cachetools import TTLCache, cachedmethod
from cachetools.keys import methodkey

from kazoo_ips.errors import AccountNotFound, RevisionConflict, ValidationFailed
from kazoo_ips.model import Account, AccountPage, User, names
from kazoo_ips.repositories.accounts import AccountRepository, account_database, normalize_name

_MAX_NAME = 128
_ID = re.compile("[0-9a-f]{32}")
_REALM = re.compile(
    r"(?=.{4,253}$)[a-z0-9_](?:[\w-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[\w-]{0,61}[a-z0-9_])?)*",
    re.ASCII | re.IGNORECASE,
)
"""A host name (RFC 1123), because SIP accepts nothing else (RFC 3261), with `_` as in Kazoo's
schema `accounts`. The schema accepts letters of every script, and dots and hyphens anywhere."""


_NAMES = 30
"""Names of accounts are cached for so many times as long as what decides on authorisation."""


class AccountService:
    """The use cases of accounts and users.

    :param now: the time in Gregorian seconds
    :param cache_time: seconds that an account or user is cached for authorisation
    """

    def __init__(
        self, accounts: AccountRepository, now: Callable[[], int], cache_time: float
    ) -> None:
        self._accounts = accounts
        self._now = now
        self._cache: TTLCache[Any, Any] = TTLCache(20_000, ttl=cache_time)
        self._restrictions: TTLCache[Any, Any] = TTLCache(20_000, ttl=cache_time)
        self._names: TTLCache[str, str | None] = TTLCache(20_000, ttl=cache_time * _NAMES)
        self._lock = Lock()

    @cachedmethod(attrgetter("_cache"), key=methodkey, lock=attrgetter("_lock"))
    def fetch(self, account_id: str) -> Account:
        """Return an account, from a cache that is at most a few seconds old.

        :raises AccountNotFound: the account does not exist
        """
        return self._accounts.get(account_id)

    @cachedmethod(attrgetter("_cache"), key=methodkey, lock=attrgetter("_lock"))
    def fetch_user(self, account_id: str, user_id: str) -> User | None:
        """Return a user or None, from a cache that is at most a few seconds old."""
        return self._accounts.get_user(account_id, user_id)

    @cachedmethod(attrgetter("_restrictions"), key=methodkey, lock=attrgetter("_lock"))
    def restrictions(self, account_id: str | None) -> Mapping[str, Any]:
        """Return token restrictions by authentication method, from a cache as for `fetch`.

        :param account_id: None for those of the system
        """
        if account_id is None:
            return self._accounts.system_restrictions()
        return self._accounts.restrictions(account_id)

    def master(self) -> Account:
        """Return the master account: that of `system_config`, or else the first superduper admin.

        :raises AccountNotFound: there is none
        """
        account_id = self._accounts.master_id()
        if account_id is not None:
            return self._accounts.get(account_id)
        operators = [account for account in self._accounts.list() if account.operator]
        if not operators:
            raise AccountNotFound("master account")
        return operators[0]

    def exists(self, account_id: str) -> bool:
        """Whether the account exists."""
        try:
            return bool(self.fetch(account_id))
        except AccountNotFound:
            return False

    def find(self, kind: str, value: str) -> list[Account]:
        """Return the accounts with that `name`, `realm` or `api_key`."""
        return self._accounts.find(kind, value)

    def candidates(self, given: str) -> list[Account]:
        """Return the accounts that an operator may mean.

        An id or a realm is preferred to a name. Names are compared as in logins: in lower case,
        letters and digits only. If several accounts match, and one of them has exactly the given
        name, only that account is returned.

        :param given: the id, realm or name of an account
        """
        if self.exists(given):
            return [self.fetch(given)]
        found = self._accounts.find("realm", given)
        if not found and normalize_name(given):
            found = self._accounts.find("name", given)
        exact = [account for account in found if account.name == given]
        return exact if len(exact) == 1 else found

    def starting_with(self, text: str, limit: int) -> list[Account]:
        """Return accounts whose name or realm starts with a text, and the account with this id.

        Names are compared as in logins: in lower case, letters and digits only.

        :param limit: the maximum number of accounts
        """
        found = [self.fetch(text)] if _ID.fullmatch(text) and self.exists(text) else []
        found += self._accounts.starting_with(text, limit)
        return list({account.id: account for account in found}.values())[:limit]

    def ids(self, given: str) -> list[str]:
        """Return the ids of the accounts that an operator may mean.

        :param given: the realm or the name of an account; or an id, which does not have to exist
        """
        if _ID.fullmatch(given):
            return [given]
        return [account.id for account in self.candidates(given)]

    def page(self, limit: int, first: str | None = None) -> AccountPage:
        """Return a part of the list of accounts, by realm.

        :param limit: the maximum number of accounts
        :param first: `next` of the previous page; None is the start
        """
        return self._accounts.page(limit, first)

    def of_ids(self, account_ids: Collection[str]) -> Sequence[Account]:
        """Return the accounts with these ids. Those that do not exist are left out."""
        return self._accounts.of_ids(account_ids)

    def names(self, account_ids: Collection[str]) -> dict[str, str]:
        """Return the names of accounts by id, from a cache that is at most a minute old.

        Accounts that do not exist are left out.
        """
        with self._lock:
            names = {i: self._names[i] for i in account_ids if i in self._names}
        unknown = {each for each in account_ids if each not in names}
        if unknown:
            found = self._accounts.names(unknown)
            names |= {each: found.get(each) for each in unknown}
            with self._lock:
                self._names.update({each: names[each] for each in unknown})
        return {account_id: name for account_id, name in names.items() if name is not None}

    def find_user(self, account_id: str, method: str, credentials: str) -> User | None:
        """Return the user of an account whose credentials have that hash, or None."""
        return self._accounts.find_user(account_id, method, credentials)

    def below(self, account_id: str, after: str | None, limit: int) -> list[tuple[str, str]]:
        """Return ids and names of the accounts below one, at any depth, by id.

        :param after: the id after which they start; None for the first ones
        :param limit: the maximum number of accounts
        """
        return self._accounts.below(account_id, after, limit)

    @cachedmethod(attrgetter("_cache"), key=partial(methodkey, "below"), lock=attrgetter("_lock"))
    def ids_below(self, account_id: str) -> frozenset[str]:
        """Return the ids of all accounts below one, from a cache as for `fetch`."""
        return frozenset(id_ for id_, _ in self._accounts.below(account_id, None, None))

    def ids_of_all(self) -> list[str]:
        """Return the ids of all accounts."""
        return self._accounts.ids()

    def list(self) -> list[Account]:
        """Return all accounts, by realm."""
        return self._accounts.list()

    def ensure_secrets(self, account: Account, user: User | None) -> tuple[Account, User | None]:
        """Return the account and the user with their signature secret. Create it on first use."""
        secret = {"pvt_signature_secret": secrets.token_hex(16)}
        while True:
            try:
                if user and user.signature_secret is None:
                    user = self._accounts.change_user(account.id, user.id, **secret)
                elif user is None and account.signature_secret is None:
                    account = self._accounts.change_account(account.id, **secret)
                return account, user
            except RevisionConflict:  # another process has created a secret, which is used
                account = self._accounts.get(account.id)
                user = user and self._accounts.get_user(account.id, user.id)
            finally:
                with self._lock:
                    self._cache.clear()

    def create(
        self, name: str, realm: str, parent_id: str | None = None, account_id: str | None = None
    ) -> Account:
        """Create an account. The first one is the operator, later ones are its descendants.

        :param parent_id: the parent account; None is the operator
        :param account_id: the id of the account; None for a random one
        :raises ValidationFailed: another account has the realm; or name or realm are invalid
        :raises AccountNotFound: the parent does not exist
        """
        _check(name, realm)
        accounts = self._accounts.list()
        if any(a.realm == realm.lower() for a in accounts):
            raise ValidationFailed(
                {"realm": {"unique": {"message": "Realm is not unique", "cause": realm}}}
            )
        if parent_id is None:
            parent = next((a for a in accounts if a.operator), None)
        else:
            parent = self._accounts.get(parent_id)
        account_id = account_id or secrets.token_hex(16)
        document = self._account_document(account_id, name, realm.lower(), parent)
        return self._accounts.create(document)

    def create_user(self, account_id: str, username: str, password: str) -> User:
        """Create an admin user in an account.

        :raises AccountNotFound: the account does not exist
        :raises ValidationFailed: another user of the account has the name
        """
        self._accounts.get(account_id)
        username = username.lower()
        if self._accounts.find_user_named(account_id, username):
            raise ValidationFailed(
                {"username": {"unique": {"message": "Username is not unique", "cause": username}}}
            )
        return self._accounts.create_user(self._user_document(account_id, username, password))

    def set_enabled(self, account_id: str, enabled: bool) -> Account:
        """Enable or disable an account. The tokens of a disabled account are invalid."""
        return self._accounts.change_account(
            account_id, pvt_enabled=enabled, pvt_modified=self._now()
        )

    def disable_user(self, account_id: str, username: str) -> User:
        """Disable a user, by name or id. Its tokens become invalid.

        :raises AccountNotFound: the account does not exist
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

    def _account_document(
        self, account_id: str, name: str, realm: str, parent: Account | None
    ) -> dict[str, Any]:
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
            # The hashes with which Kazoo's nodes compare a login.
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


def _check(name: str, realm: str) -> None:
    """Check the name and the realm of a new account.

    :raises ValidationFailed: one of them is invalid
    """
    errors = {}
    problem = names.problem(name)
    if not problem and len(name) > _MAX_NAME:
        problem = f"is longer than {_MAX_NAME} characters"
    if problem:
        errors["name"] = {"invalid": {"message": f"the name {problem}", "cause": name}}
    if not _REALM.fullmatch(realm):
        text = "the realm is not a host name of 4 to 253 characters"
        errors["realm"] = {"pattern": {"message": text, "cause": realm}}
    if errors:
        raise ValidationFailed(errors)
