"""`make run`: the service on a database of its own, with something in it to look at.

Starts the embedded server, unless COUCHDB_URL names a CouchDB, and gunicorn; stops both together.
Where there is no account yet it makes sample accounts, users and addresses. Everything it writes
is in one folder, KAZOO_IPS_DATA, or in the CouchDB named.
"""

import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

from embedded.server import HERE, EmbeddedCouch, EmbeddedError
from kazoo_ips import app
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.errors import KazooIPsError
from kazoo_ips.model import Account, AssignIPs, CreateIP
from kazoo_ips.services import Services

_NETWORKS = [
    ("us-east", "192.0.2."),
    ("us-west", "198.51.100."),
    ("eu-central", "203.0.113."),
    ("eu-central", "2001:db8::"),
]
_POOL = [
    CreateIP(f"{network}{n}", zone, f"proxy{n % 2 + 1}.{zone}.example.com")
    for zone, network in _NETWORKS
    for n in range(1, 6)
]
_ASSIGNED = ("192.0.2.1", "203.0.113.1", "2001:db8::1")


class CannotRun(Exception):
    """It cannot start or go on; the message is one line for whoever started it."""


class Child(Protocol):
    """What runs as long as this does."""

    def failure(self) -> str | None:
        """Why it ended, in one line; None while it runs."""


class Gunicorn:
    """The service in its own processes, for the length of a `with`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:kazoo_ips.gunicorn_conf"],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for its parent, which stops it in good order
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with suppress(ProcessLookupError, PermissionError):  # nothing is left of its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def failure(self) -> str | None:
        """Why it ended, in one line; None while it runs."""
        status = self._process.poll()
        return None if status is None else f"gunicorn ended with status {status}"


class Stop:
    """Whether a signal has asked to stop.

    Nothing is interrupted: what was begun is finished, so that all that was started is known.
    """

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


@dataclass(frozen=True)
class Login:
    """A sample account's user, with the password that only this installation has."""

    account_id: str
    username: str
    password: str


def run(environ: Mapping[str, str]) -> None:
    """Serve until a signal comes.

    :raises CannotRun: it cannot start, or something it started has ended
    """
    stop = Stop()
    port = _free_port(environ, "PORT", 8000)
    data = Path(environ.get("KAZOO_IPS_DATA") or HERE.parent / "data").resolve()
    environ = {
        "KAZOO_IPS_LOG_LEVEL": "warning",
        **environ,
        "KAZOO_IPS_BIND": f"127.0.0.1:{port}",
    }
    children: list[Child] = []
    with ExitStack() as started:
        if not environ.get("COUCHDB_URL"):
            couch_port = _free_port(environ, "COUCHDB_PORT", 5984)
            _make_folder(data)
            couch = EmbeddedCouch(data / "couchdb", couch_port)
            children.append(started.enter_context(couch))
            environ["COUCHDB_URL"] = couch.url
        settings = Settings.load(environ)
        url = re.sub("//[^/]*@", "//", settings.couchdb_url)
        try:
            app.databases(settings).create()
            text = _set_up(app.build(settings), data / "logins.json", port, url)
        except KazooIPsError as error:
            raise CannotRun(f"the CouchDB at {url} cannot be used: {_reason(error)}") from error
        children.append(started.enter_context(Gunicorn(environ)))
        while not (stop.asked or _answers(port)):
            _check(children)
        if not stop.asked:
            print(text, flush=True)
        while not stop.asked:
            _check(children)


def _check(children: list[Child]) -> None:
    for child in children:
        if failure := child.failure():
            raise CannotRun(failure)
    time.sleep(0.1)


def _free_port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    try:
        port = int(text)
        socket.create_server(("127.0.0.1", port)).close()
    except (ValueError, OverflowError) as error:
        raise CannotRun(f"{name}: {text!r} is not a port") from error
    except OSError as error:
        raise CannotRun(
            f"port {port} cannot be used: {error.strerror}; {name}=… takes another"
        ) from error
    return port


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/about")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def _set_up(services: Services, file: Path, port: int, url: str) -> str:
    """Make what is missing, and say what there is."""
    services.auth.ensure_key()
    logins = _read_logins(file)
    if not services.accounts.list():
        _make_samples(services, file, logins)
    accounts = services.accounts.list()
    return "\n".join(
        [
            "",
            f"The API    http://127.0.0.1:{port}/v2",
            f"Fauxton    {url}/_utils/",
            *_described(accounts, logins),
            *_tried(services, accounts, port),
            "",
            "Ctrl-C stops it.",
        ]
    )


def _make_samples(services: Services, file: Path, logins: list[Login]) -> None:
    _write_logins(file, logins)  # fails before there is an account that nobody has the password of
    for name in ("Operator", "Alice"):
        account = services.accounts.create(name, f"{name.lower()}.example.com")
        login = Login(account.id, "admin", secrets.token_urlsafe(12))
        services.accounts.create_user(account.id, login.username, login.password)
        logins.append(login)
        _write_logins(file, logins)
    for command in _POOL:
        services.ips.create(command, uuid4().hex)
    services.ips.assign_all(AssignIPs(account.id, _ASSIGNED), uuid4().hex)


def _read_logins(file: Path) -> list[Login]:
    with _usable(file.parent):
        if not file.exists():
            return []
        return [Login(**login) for login in json.loads(file.read_text())]


def _write_logins(file: Path, logins: list[Login]) -> None:
    _make_folder(file.parent)
    with _usable(file.parent), open(file, "w", opener=_open_private) as written:
        json.dump([asdict(login) for login in logins], written, indent=2)


def _make_folder(folder: Path) -> None:
    with _usable(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        raise CannotRun(f"the data folder {folder} cannot be used: {error}") from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _described(accounts: list[Account], logins: list[Login]) -> list[str]:
    """The sample accounts among these; of others nobody told us the passwords."""
    by_id = {account.id: account for account in accounts}
    return [
        f"{account.name:10} account {account.id}, realm {account.realm}, "
        f"user {login.username}, password {login.password}"
        for login in logins
        if (account := by_id.get(login.account_id))
    ]


def _tried(services: Services, accounts: list[Account], port: int) -> list[str]:
    operator = next((a for a in accounts if a.operator and a.enabled), None)
    if operator is None:
        return []
    token = services.auth.open_session(operator).token
    below = next((a for a in accounts if operator.id in a.tree), operator)
    return [
        "",
        "A token of the operator's, and what to try with it:",
        "",
        token,
        "",
        f"curl -H 'X-Auth-Token: {token}' http://127.0.0.1:{port}/v2/accounts/{below.id}/ips",
    ]


def _reason(error: KazooIPsError) -> str:
    return str(error).rpartition(": ")[2] or type(error).__name__


def main() -> None:
    """`python -m embedded.run`."""
    logging.disable()  # what goes wrong here is told once, below
    try:
        run(os.environ)
    except (CannotRun, EmbeddedError, BadSetting) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
