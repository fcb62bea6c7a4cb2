"""CouchDB is down, silent, or lacks a database: 503 in time, and recovery."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from webtest import TestApp

from kazoo_ips.app import create_app
from kazoo_ips.config import Settings
from tests.api.couchdb import account_database, kazoo_document
from tests.api.own_application import OwnApplication
from tests.api.replies import failure, page
from tests.openapi_check import CheckedApp
from tests.timing import LONG

ADDRESS = "192.0.2.1"
SHORT_TIMEOUT = 1.0
"""Read timeout of an application, in seconds."""


class SwitchableProxy:
    """A TCP proxy in front of the database: which can be closed, silent or open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 5984)
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        self.url = f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}"

    def open(self, *, silent: bool = False) -> None:
        """Accept connections, and forward requests or answer nothing."""
        self.close()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._listener, silent), daemon=True).start()

    def close(self) -> None:
        """Close all connections, and accept no more."""
        listener, self._listener = self._listener, None
        if listener:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def _serve(self, listener: socket.socket, silent: bool) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._sockets.append(client)
                if not silent:
                    server = socket.create_connection(self._upstream)
                    self._sockets.append(server)
                    for pair in ((client, server), (server, client)):
                        threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(settings: Settings) -> Iterator[SwitchableProxy]:
    """A proxy in front of the database, closed at first."""
    made = SwitchableProxy(settings.couchdb_url)
    yield made
    made.close()


@pytest.fixture
def proxied_app(settings: Settings, proxy: SwitchableProxy) -> TestApp:
    """The application behind the proxy, with a long read timeout."""
    return CheckedApp(create_app(replace(settings, couchdb_url=proxy.url, read_timeout=2 * LONG)))


@pytest.fixture
def short_timeout_app(settings: Settings, proxy: SwitchableProxy) -> TestApp:
    """The same with a short read timeout."""
    return CheckedApp(
        create_app(replace(settings, couchdb_url=proxy.url, read_timeout=SHORT_TIMEOUT))
    )


def unreachable(reply: Any, token: str | None) -> None:
    data = failure(reply, token, "datastore_unreachable")
    assert data == {"message": "datastore timeout"}
    assert reply.headers["Retry-After"] == "1"


REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/v2/accounts/{A}/ips", None),
    ("GET", "/v2/accounts/{A}/ips?paginate=false", None),
    ("GET", "/v2/accounts/{A}/ips/assigned", None),
    ("GET", "/v2/accounts/{A}/ips/zones", None),
    ("GET", f"/v2/accounts/{{A}}/ips/{ADDRESS}", None),
    ("POST", "/v2/accounts/{A}/ips", {"data": {"ips": [ADDRESS]}}),
    ("POST", f"/v2/accounts/{{A}}/ips/{ADDRESS}", None),
    ("DELETE", "/v2/accounts/{A}/ips", None),
    ("GET", "/v2/ips", None),
    ("PUT", "/v2/ips", {"data": {"ip": ADDRESS, "zone": "z", "host": "h.example.com"}}),
    ("DELETE", f"/v2/ips/{ADDRESS}", None),
    ("GET", "/v2/about", None),
]


def send(api: TestApp, method: str, path: str, body: Any, who: Any, status: int) -> Any:
    if body is None:
        return api.request(
            path.format(A=who.id), method=method, headers=who.headers, status=status
        )
    sender = getattr(api, f"{method.lower()}_json")
    return sender(path.format(A=who.id), body, headers=who.headers, status=status)


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_a_closed_port_is_503_at_once(
    proxied_app: TestApp, operator: Any, method: str, path: str, body: Any
) -> None:
    start = time.monotonic()
    reply = send(proxied_app, method, path, body, operator, 503)
    unreachable(reply, operator.token)
    assert time.monotonic() - start < LONG


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS[::3])
def test_a_port_that_never_answers_is_503_within_the_timeout(
    short_timeout_app: TestApp,
    proxy: SwitchableProxy,
    operator: Any,
    method: str,
    path: str,
    body: Any,
) -> None:
    proxy.open(silent=True)
    start = time.monotonic()
    reply = send(short_timeout_app, method, path, body, operator, 503)
    unreachable(reply, operator.token)
    assert SHORT_TIMEOUT <= time.monotonic() - start < LONG


def test_a_login_without_a_database_is_503(proxied_app: TestApp) -> None:
    login = {"data": {"credentials": "0" * 32, "account_name": "Alice"}}
    unreachable(proxied_app.put_json("/v2/user_auth", login, status=503), None)
    key = {"data": {"api_key": "0" * 64}}
    unreachable(proxied_app.put_json("/v2/api_auth", key, status=503), None)


def test_routes_without_a_database_work_during_an_outage(proxied_app: TestApp, alice: Any) -> None:
    proxied_app.get("/v2/nothing", status=404)
    proxied_app.get(f"/v2/accounts/{alice.id}/ips", status=401)
    proxied_app.request(f"/v2/accounts/{alice.id}/ips", method="PATCH", status=405)


def test_the_service_recovers_as_soon_as_the_database_does(
    short_timeout_app: TestApp, proxy: SwitchableProxy, load: Callable[..., None], alice: Any
) -> None:
    load(kazoo_document(ADDRESS))
    path = f"/v2/accounts/{alice.id}/ips"
    for closed in ("down", "silent", "down"):
        if closed == "silent":
            proxy.open(silent=True)
        unreachable(short_timeout_app.get(path, headers=alice.headers, status=503), alice.token)
        proxy.open()
        # On a busy machine, the database itself may need more than the short timeout once.
        replies = (
            short_timeout_app.get(path, headers=alice.headers, status="*") for _ in range(15)
        )
        reply = next(reply for reply in replies if reply.status_int == 200)
        assert [line["ip"] for line in page(reply, alice.token)] == [ADDRESS]
        proxy.close()


def test_a_broken_idle_connection_does_not_cause_an_error(
    proxied_app: TestApp, proxy: SwitchableProxy, load: Callable[..., None], alice: Any
) -> None:
    load(kazoo_document(ADDRESS))
    path = f"/v2/accounts/{alice.id}/ips"
    proxy.open()
    proxied_app.get(path, headers=alice.headers, status=200)
    proxy.open()  # every connection is broken, and new ones are taken
    proxied_app.get(path, headers=alice.headers, status=200)


# Something is missing


def missing(reply: Any, token: str | None, message: str, text: str) -> None:
    assert failure(reply, token, message) == {"message": text}
    assert reply.headers["Retry-After"] == "1"


NO_DATABASE = ("datastore_missing", "data collection missing: database not found")
NO_VIEW = ("datastore_missing_view", "datastore missing view")


def test_without_the_pool_it_is_503(own_app: OwnApplication) -> None:
    own_app.databases("DELETE", "dedicated_ips")
    for method, path, body in REQUESTS:
        if path != "/v2/about":
            reply = send(own_app.api, method, path, body, own_app, 503)
            missing(reply, own_app.token, *NO_DATABASE)


def test_without_the_views_lists_are_503_and_the_rest_works(own_app: OwnApplication) -> None:
    own_app.databases.put("dedicated_ips", kazoo_document(ADDRESS))
    design = own_app.databases("GET", "dedicated_ips", "/_design/ips")
    own_app.databases.put("dedicated_ips", {**design, "_deleted": True})
    for path in (
        "ips", "ips?zone=us-east", "ips?host=x", "ips?paginate=false", "ips?quantity=2000",
        "ips/assigned", "ips/zones", "ips/hosts",
    ):  # fmt: skip
        for prefix in ("/v2", f"/v2/accounts/{own_app.id}"):
            reply = own_app.api.get(f"{prefix}/{path}", headers=own_app.headers, status=503)
            missing(reply, own_app.token, *NO_VIEW)
            table = {**own_app.headers, "Accept": "text/csv"}
            reply = own_app.api.get(f"{prefix}/{path}", headers=table, status=503)
            missing(reply, own_app.token, *NO_VIEW)
    path = f"/v2/accounts/{own_app.id}/ips/{ADDRESS}"
    for method in ("GET", "POST", "DELETE"):
        own_app.api.request(path, method=method, headers=own_app.headers, status=200)


@pytest.mark.parametrize("name", ["system_config", "system_auth"])
def test_without_the_signing_key_it_is_503(own_app: OwnApplication, name: str) -> None:
    own_app.databases("DELETE", name)
    for path in ("/v2/ips", f"/v2/accounts/{own_app.id}/ips"):
        reply = CheckedApp(create_app(own_app.settings)).get(
            path, headers=own_app.headers, status=503
        )
        missing(reply, own_app.token, *NO_DATABASE)


def test_without_the_accounts_logins_are_503(own_app: OwnApplication) -> None:
    own_app.databases("DELETE", "accounts")
    login = {"data": {"credentials": "0" * 32, "account_name": "Operator"}}
    reply = own_app.api.put_json("/v2/user_auth", login, status=503)
    missing(reply, None, *NO_DATABASE)
    own_app.api.get("/v2/ips", headers=own_app.headers, status=200)


def test_an_assignment_to_an_account_without_a_database_is_rolled_back(
    own_app: OwnApplication,
) -> None:
    child = own_app.services.accounts.create("Child", "child.example.com")
    own_app.databases.put("dedicated_ips", kazoo_document(ADDRESS), kazoo_document("192.0.2.2"))
    own_app.databases("DELETE", account_database(child.id))
    path = f"/v2/accounts/{child.id}/ips"
    body = {"data": {"ips": [ADDRESS, "192.0.2.2"]}}
    own_app.api.post_json(path, body, headers=own_app.headers, status=404)
    own_app.api.post(f"{path}/{ADDRESS}", headers=own_app.headers, status=404)
    for address in body["data"]["ips"]:
        document = own_app.databases.get("dedicated_ips", address)
        assert document["pvt_status"] == "available"
