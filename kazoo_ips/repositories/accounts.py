"""Accounts and users as Kazoo stores them (`core/kazoo_documents/src/kzd_accounts.erl`).

An account's document is in the account's own database, with a copy in `accounts`. Its users are in
its own database. No other module handles these documents. Contains no business rules.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kazoo_ips.couch.client import Couch, Database, Document
from kazoo_ips.errors import (
    AccountNotFound,
    DatastoreMissing,
    DatastoreMissingView,
    RevisionConflict,
)
from kazoo_ips.model import Account, AccountPage, Outcome, User

ACCOUNTS = "accounts"
_RESTRICTIONS = "token_restrictions"
_CHUNK = 1000
"""Number of accounts whose names are read in one request."""
_ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")
_HASHES = {
    "md5": ("pvt_md5_auth", "users/creds_by_md5"),
    "sha": ("pvt_sha1_auth", "users/creds_by_sha"),
}


def account_database(account_id: str) -> str:
    """Return the name of an account's database.

    >>> account_database("3f1b00000000000000000000000000aa")
    'account/3f/1b/00000000000000000000000000aa'
    """
    return f"account/{account_id[:2]}/{account_id[2:4]}/{account_id[4:]}"


def normalize_name(name: str) -> str:
    """Normalise an account's name for lookups: lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def one_spelling(kind: str, value: str) -> str:
    """Normalise an account's `name`, `realm` or `api_key` for lookups."""
    spell: Callable[[str], str] = {"name": normalize_name, "realm": str.lower}.get(kind, str)
    return spell(value)


class AccountRepository:
    """Reads and writes accounts and users."""

    def __init__(self, couch: Couch) -> None:
        self._couch = couch
        self._accounts = couch.database(ACCOUNTS)

    def get(self, account_id: str) -> Account:
        """Return an account by its id.

        :raises AccountNotFound: the account does not exist, or Kazoo has deleted it
        """
        return _account(self._document(account_id))

    def find(self, kind: str, value: str) -> list[Account]:
        """Return the accounts with that `name`, `realm` or `api_key`."""
        found = []
        # `keys` are sent in the body, because CouchDB writes URLs to its log.
        keys = [[kind, one_spelling(kind, value)]]
        for row in self._accounts.rows("logins/by_login", keys=keys, reduce=False):
            with suppress(AccountNotFound):  # the copy of a deleted account
                found.append(self.get(row.id))
        return found

    def below(
        self, account_id: str, after: str | None, limit: int | None
    ) -> list[tuple[str, str]]:
        """Return the ids and names of the accounts below one, at any depth, by id.

        :param after: the id after which they start; None for the first ones
        :param limit: the maximum number of accounts; None is no limit
        """
        rows = self._accounts.rows(
            "account_tree/by_ancestor",
            startkey=[account_id, *([] if after is None else [after, {}])],
            endkey=[account_id, {}],
            limit=limit,
        )
        return [(row.id, str(row.value)) for row in rows]

    def starting_with(self, text: str, limit: int) -> "list[Account]":
        """Return accounts whose name, or whose realm, starts with a text, by name.

        :param text: if it is empty, accounts are returned in the order of their names
        :param limit: the maximum number of each kind
        """
        found: dict[str, Account] = {}
        for kind in ("name", "realm") if text else ("name",):
            start = one_spelling(kind, text)
            if text and not start:  # a name without any letter or digit of ASCII
                continue
            end = [kind, f"{start}\ufff0"]
            rows = self._accounts.rows(
                "logins/by_login", startkey=[kind, start], endkey=end, limit=limit, reduce=False
            )
            documents = self._accounts.get_all([row.id for row in rows])
            found |= {id_: _account(each) for id_, each in documents.items()}
        return sorted(found.values(), key=lambda account: account.name.casefold())

    def ids(self) -> list[str]:
        """Return the ids of all accounts, without reading them."""
        rows = self._accounts.rows(
            "logins/by_login", startkey=["realm"], endkey=["realm", {}], reduce=False
        )
        return [row.id for row in rows]

    def list(self) -> list[Account]:
        """Return all accounts, read from their copies in `accounts`."""
        rows = self._accounts.rows(
            "logins/by_login", startkey=["realm"], endkey=["realm", {}], reduce=False
        )
        documents = self._accounts.get_all([row.id for row in rows])
        return [_account(documents[row.id]) for row in rows if row.id in documents]

    def page(self, limit: int, first: str | None = None) -> AccountPage:
        """Return a part of the list of accounts, by realm, read from their copies in `accounts`.

        :param limit: the maximum number of accounts
        :param first: the position of the first account: the realm and the id; None is the start
        """
        realm, _, account_id = (first or "").rpartition(":")
        start = {"startkey_docid": account_id} if first else {}
        rows = self._accounts.rows(
            "logins/by_login",
            startkey=["realm", realm],
            endkey=["realm", {}],
            limit=limit + 1,
            reduce=False,
            **start,
        )
        documents = self._accounts.get_all([row.id for row in rows[:limit]])
        found = [_account(documents[row.id]) for row in rows[:limit] if row.id in documents]
        following = rows[limit : limit + 1]
        return AccountPage(found, *(f"{row.key[1]}:{row.id}" for row in following))

    def of_ids(self, account_ids: Collection[str]) -> Sequence[Account]:
        """Return the accounts with these ids. Those that do not exist are left out."""
        ids = sorted(each for each in account_ids if _ACCOUNT_ID.fullmatch(each))
        documents = self._accounts.get_all(ids) if ids else {}
        return [_account(each) for each in documents.values() if _is(each, "account")]

    def names(self, account_ids: Collection[str]) -> dict[str, str]:
        """Return the names of accounts by id, read from their copies in `accounts`.

        Accounts that do not exist are left out.
        """
        ids = sorted(account_ids)
        found: dict[str, str] = {}
        for start in range(0, len(ids), _CHUNK):
            documents = self._accounts.get_all(ids[start : start + _CHUNK])
            found |= {i: _account(d).name for i, d in documents.items() if _is(d, "account")}
        return found

    def get_user(self, account_id: str, user_id: str) -> User | None:
        """Return a user of an account, or None if it does not exist."""
        try:
            document = self._database(account_id).read(user_id)
        except DatastoreMissing:
            return None
        return _user(document, account_id) if _is(document, "user") else None

    def restrictions(self, account_id: str) -> Mapping[str, Any]:
        """Return the token restrictions of an account, by authentication method.

        Empty if the account has none (`kzd_token_restrictions`).
        """
        try:
            document = self._database(account_id).read(_RESTRICTIONS)
        except DatastoreMissing:
            return {}
        return _object(document, "restrictions") if _is(document, _RESTRICTIONS) else {}

    def system_restrictions(self) -> Mapping[str, Any]:
        """Return the token restrictions of the system, by authentication method.

        Kazoo reads them from the section of its node, then of its zone, then `default`. This
        service belongs to no node. So it reads `default`, or the first section if that is missing.
        The member `default_priv_level` is the privilege level of tokens without a user.
        """
        try:
            document = self._couch.database("system_config").read(f"crossbar.{_RESTRICTIONS}")
        except DatastoreMissing:
            return {}
        sections = [n for n in document or {} if n[0] != "_" and not n.startswith("pvt_")]
        sections.sort(key=lambda name: name != "default")
        return next((_object(document, name) for name in sections if _object(document, name)), {})

    def master_id(self) -> str | None:
        """Return the id of the master account by `system_config`, or None if it names none."""
        try:
            document = self._couch.database("system_config").read("accounts")
        except DatastoreMissing:
            return None
        sections = sorted(document or {}, key=lambda name: name != "default")
        found = (_object(document, name).get("master_account_id") for name in sections)
        return next((each for each in found if isinstance(each, str)), None)

    def find_user(self, account_id: str, method: str, credentials: str) -> User | None:
        """Return the user of an account whose credentials have that hash, or None.

        :param method: `md5` or `sha`
        """
        field, view = _HASHES[method]
        database = self._database(account_id)
        try:
            rows = database.rows(view, keys=[credentials], limit=1)
            document = database.find(rows[0].id) if rows else None
        except DatastoreMissingView:
            # Only Kazoo installs this view in the accounts' databases.
            found = database.select({"pvt_type": "user", field: credentials}, limit=1)
            document = found[0] if found else None
        return _user(document, account_id) if _is(document, "user") else None

    def find_user_named(self, account_id: str, username: str) -> User | None:
        """Return the user of that name, or None.

        :param username: in lower case
        """
        selector = {"pvt_type": "user", "username": username}
        found = self._database(account_id).select(selector, limit=1)
        return _user(found[0], account_id) if found else None

    def create(self, account: Mapping[str, Any]) -> Account:
        """Create an account: its database, its document and the copy in `accounts`.

        :param account: the complete document
        :raises RevisionConflict: a document with that id exists
        """
        database = self._database(account["_id"])
        # The new database gets the members of `accounts`, if there are any.
        security = self._accounts.security() if database.create() else {}
        if any(security.get("members", {}).values()):
            database.secure(security)
        for place in (database, self._accounts):
            if place.put(account).outcome is Outcome.REFUSED:
                raise RevisionConflict(account["_id"])
        if account.get("pvt_superduper_admin"):
            self._set_master(account["_id"])
        return _account(account)

    def _set_master(self, account_id: str) -> None:
        # Without this setting Kazoo uses the oldest account as the master account.
        config = self._couch.database("system_config")
        document = config.find("accounts") or {"_id": "accounts", "pvt_type": "config"}
        default = {**document.get("default", {}), "master_account_id": account_id}
        config.put({**document, "default": default})

    def create_user(self, user: Mapping[str, Any]) -> User:
        """Create a user in the account that its document names.

        :raises RevisionConflict: a document with that id exists
        """
        if self._database(user["pvt_account_id"]).put(user).outcome is Outcome.REFUSED:
            raise RevisionConflict(user["_id"])
        return _user(user, user["pvt_account_id"])

    def change_account(self, account_id: str, **fields: Any) -> Account:
        """Change fields of an account's document and of its copy in `accounts`.

        :raises RevisionConflict: another client changed the account meanwhile
        """
        document = self._document(account_id)
        changed = {k: v for k, v in document.items() if k != "_conflicts"} | fields
        if self._database(account_id).put(changed).outcome is Outcome.REFUSED:
            raise RevisionConflict(account_id)
        copy = self._accounts.find(account_id) or {}
        revision = {"_rev": copy["_rev"]} if copy else {}
        body = {k: v for k, v in changed.items() if k != "_rev"}
        self._accounts.put({**body, **revision})
        return _account(changed)

    def change_user(self, account_id: str, user_id: str, **fields: Any) -> User:
        """Change fields of a user's document.

        :raises RevisionConflict: another client changed the user meanwhile
        """
        database = self._database(account_id)
        changed = {**database.get(user_id), **fields}
        if database.put(changed).outcome is Outcome.REFUSED:
            raise RevisionConflict(user_id)
        return _user(changed, account_id)

    def _document(self, account_id: str) -> Document:
        if not _ACCOUNT_ID.fullmatch(account_id):
            raise AccountNotFound(account_id)
        try:
            document = self._database(account_id).read(account_id)
        except DatastoreMissing as error:
            raise AccountNotFound(account_id) from error
        if document is None or not _is(document, "account"):
            raise AccountNotFound(account_id)
        return document

    def _database(self, account_id: str) -> Database:
        return self._couch.database(account_database(account_id))


def _is(document: Mapping[str, Any] | None, kind: str) -> bool:
    return bool(document and document.get("pvt_type") == kind and not document.get("pvt_deleted"))


def _object(document: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    value = (document or {}).get(name)
    return value if isinstance(value, dict) else {}


def _account(document: Mapping[str, Any]) -> Account:
    return Account(
        id=document["_id"],
        name=document.get("name", ""),
        realm=document.get("realm", ""),
        tree=tuple(document.get("pvt_tree", ())),
        enabled=document.get("pvt_enabled", True) is not False,
        expires=document.get("pvt_trial_expires"),
        operator=document.get("pvt_superduper_admin") is True,
        is_reseller=document.get("pvt_reseller") is True,
        reseller_id=document.get("pvt_reseller_id"),
        api_key=document.get("pvt_api_key"),
        language=document.get("language"),
        signature_secret=document.get("pvt_signature_secret"),
    )


def _user(document: Mapping[str, Any] | None, account_id: str) -> User:
    assert document is not None
    return User(
        id=document["_id"],
        account_id=account_id,
        username=document.get("username", ""),
        level=str(document.get("priv_level") or "user"),
        enabled=document.get("enabled", True) is not False,
        signature_secret=document.get("pvt_signature_secret"),
    )
