"""The sample data of `make run`: accounts, users, addresses and webhooks.

`set_up` creates what is missing in the database, and returns a text that says how to try it.
"""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from uuid import uuid4

from embedded import past
from embedded.server import EmbeddedError
from kazoo_ips import app, error_texts
from kazoo_ips.api import examples
from kazoo_ips.app import Instance
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.errors import KazooIPsError
from kazoo_ips.model import Account, AssignIPs, Attempt, ChangeIP, Changes, CreateIP
from kazoo_ips.observability import request_context

_NETWORKS = [
    ("us-east", "192.0.2."),
    ("us-west", "198.51.100."),
    ("eu-central", "203.0.113."),
    ("eu-central", "2001:db8::"),
]
POOL = [
    CreateIP(f"{network}{n}", zone, f"proxy{n % 2 + 1}.{zone}.example.com")
    for zone, network in _NETWORKS
    for n in range(1, 6)
]
ASSIGNED = ("192.0.2.1", "203.0.113.1", "2001:db8::1")
_WEBHOOK = {
    "name": "Sample",
    "uri": "https://receiver.example/ips",
    "hook": "all",
    "enabled": False,
}
_WEBHOOK_KEY = "sample"
_ACCOUNTS = {"Operator": None, "Alice": examples.ACCOUNT_ID}
"""The sample accounts and their ids; None for a random id. The API's description has Alice's."""


@dataclass(frozen=True)
class Login:
    """The user of a sample account, with the random password of this installation."""

    account_id: str
    username: str
    password: str


def set_up(environ: Mapping[str, str], data: Path, port: int) -> str:
    """Create databases and sample data if they are missing.

    :param data: the folder with the passwords of the sample users
    :param port: the port of the service
    :returns: the URLs, logins and first calls, as text
    :raises EmbeddedError: the database or the folder cannot be used; the message is one line
    """
    try:
        settings = Settings.load(environ)
    except BadSetting as error:
        raise EmbeddedError(str(error)) from error
    url = re.sub("//[^/]*@", "//", settings.couchdb_url)
    try:
        app.databases(settings).create()
        return _set_up(settings.as_administrator(), data / "logins.json", port, url)
    except KazooIPsError as error:
        raise EmbeddedError(f"the CouchDB at {url} cannot be used: {error}") from error


def make_folder(folder: Path) -> None:
    """Create the data folder, which only this user can read."""
    with _usable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _set_up(settings: Settings, file: Path, port: int, url: str) -> str:
    services = app.build(settings)
    services.auth.ensure_key()
    logins = _read_logins(file)
    if not services.accounts.list():
        _make_samples(services, settings, file, logins)
    accounts = services.accounts.list()
    return "\n".join(
        [
            "",
            f"Console    http://127.0.0.1:{port}/console{_operator_login(accounts, logins)}",
            f"The API    http://127.0.0.1:{port}/v2",
            f"API docs   http://127.0.0.1:{port}/v2/docs",
            f"Fauxton    {url}/_utils/",
            *_described(accounts, logins),
            *to_paste(services, accounts, logins, port),
            "",
            "Ctrl-C stops it.",
        ]
    )


def _make_samples(services: Instance, settings: Settings, file: Path, logins: list[Login]) -> None:
    _write_logins(file, logins)  # first, so that no account has a password that is not stored
    for name, account_id in _ACCOUNTS.items():
        realm = f"{name.lower()}.example.com"
        account = services.accounts.create(name, realm, account_id=account_id)
        login = Login(account.id, "admin", secrets.token_urlsafe(12))
        services.accounts.create_user(account.id, login.username, login.password)
        logins.append(login)
        _write_logins(file, logins)
    with request_context.command("make run", os.environ.get("USER", "")):
        past.make(lambda clock: app.build(settings, clock=clock))
        make_pool(services, account.id)
        services.background.work()  # a running service does this within a second


def make_pool(services: Instance, account_id: str) -> None:
    """Add the sample addresses and webhooks, assign addresses to an account, and label one."""
    services.bulk_additions.create_all(POOL, uuid4().hex)
    services.ips.assign_all(AssignIPs(account_id, ASSIGNED), uuid4().hex)
    labels = Changes(labels=dict([examples.LABEL]))
    services.address_changes.change(ChangeIP(ASSIGNED[0], labels), request_id=uuid4().hex)
    make_webhooks(services, account_id)


def make_webhooks(services: Instance, account_id: str) -> None:
    """Create a webhook of the sample account and one of the operator. Both are disabled.

    Their ids are those of the API's description: the service makes them from the key.
    """
    for owner in (account_id, None):
        services.webhooks.create(owner, _WEBHOOK, attempt=Attempt(_WEBHOOK_KEY, 1))


def _read_logins(file: Path) -> list[Login]:
    with _usable(file.parent):
        if not file.exists():
            return []
        return [Login(**login) for login in json.loads(file.read_text())]


def _write_logins(file: Path, logins: list[Login]) -> None:
    make_folder(file.parent)
    with _usable(file.parent), open(file, "w", opener=_open_private) as written:
        json.dump([asdict(login) for login in logins], written, indent=2)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        why = error_texts.of_os_error(error) if isinstance(error, OSError) else "a file is damaged"
        raise EmbeddedError(f"the data folder {folder} cannot be used: {why}") from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _operator_login(accounts: list[Account], logins: list[Login]) -> str:
    """Return the operator's login to the console; empty if this installation did not create it."""
    realms = {account.id: account.realm for account in accounts if account.operator}
    found = [each for each in logins if each.account_id in realms]
    return "".join(
        f" ({realms[each.account_id]}, user {each.username}, password {each.password})"
        for each in found
    )


def _described(accounts: list[Account], logins: list[Login]) -> list[str]:
    """Return a line for each sample account. The passwords of other accounts are not known."""
    by_id = {account.id: account for account in accounts}
    return [
        f"{account.name:10} account {account.id}, realm {account.realm}, "
        f"user {login.username}, password {login.password}"
        for login in logins
        if (account := by_id.get(login.account_id))
    ]


def to_paste(
    services: Instance, accounts: list[Account], logins: list[Login], port: int
) -> list[str]:
    """Return lines for a shell: the variables that the documentation uses, and a first request.

    TOKEN is the operator's. ACCOUNT is Alice, or another account below the operator if Alice does
    not exist. PASSWORD is that of its user, if this installation has created the user.
    """
    operator = next((a for a in accounts if a.operator and a.enabled), None)
    if operator is None:
        return []
    below = [a for a in accounts if operator.id in a.tree and a.enabled]
    below.sort(key=lambda a: a.id != examples.ACCOUNT_ID)
    account = next(iter(below), operator)
    password = next((each.password for each in logins if each.account_id == account.id), None)
    variables = {
        "API": f"http://127.0.0.1:{port}/v2",
        "ACCOUNT": account.id,
        **({"PASSWORD": password} if password else {}),
        "TOKEN": services.auth.open_session(operator).token,
    }
    return [
        "",
        "To try it, paste these lines into another terminal:",
        "",
        *(f"export {name}={quote(value)}" for name, value in variables.items()),
        'curl -H "X-Auth-Token: $TOKEN" $API/accounts/$ACCOUNT/ips',
    ]
