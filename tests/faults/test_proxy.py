"""The fault proxy in front of the real database: its faults, and that it changes nothing else."""

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from kazoo_ips.couch.client import Couch, Database
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy

Answer = tuple[int, dict[str, str], bytes]


class DatabaseClient:
    """Sends HTTP requests to one database, directly or through the proxy."""

    def __init__(self, url: str, database: str) -> None:
        parts = urlsplit(url)
        self._at = (parts.hostname or "", parts.port or 0)
        user = f"{parts.username or ''}:{parts.password or ''}".encode()
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if parts.username:
            self._headers["Authorization"] = "Basic " + base64.b64encode(user).decode()
        self._database = database

    def connect(self, timeout: float = 10) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._at, timeout=timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        over: http.client.HTTPConnection | None = None,
        timeout: float = 10,
    ) -> Answer:
        connection = over or self.connect(timeout)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/{self._database}{path}", sent, self._headers)
            reply = connection.getresponse()
            content = reply.read()
            return reply.status, dict(reply.getheaders()), content
        finally:
            if over is None:
                connection.close()


@pytest.fixture
def database(couch: Couch) -> Iterator[Database]:
    """An empty database."""
    made = couch.database(f"proxy-{uuid4().hex[:8]}")
    made.create()
    yield made
    made.delete()


@pytest.fixture
def direct(couchdb_url: str, database: Database) -> DatabaseClient:
    return DatabaseClient(couchdb_url, database.name)


@pytest.fixture
def proxied(proxy: FaultProxy, database: Database) -> DatabaseClient:
    return DatabaseClient(proxy.url, database.name)


def _without_moment(answer: Answer) -> Any:
    """Return a response without the headers that differ between equal responses."""
    status, headers, content = answer
    moment = {"Date", "X-Couch-Request-ID", "X-CouchDB-Body-Time"}
    return status, {k: v for k, v in headers.items() if k not in moment}, content


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("HEAD", "/there", None),
        ("GET", "/there", None),
        ("GET", "/missing", None),
        ("GET", "/there?open_revs=all", None),
        ("GET", "/_all_docs?include_docs=true", None),
        ("POST", "/_all_docs", {"keys": ["there", "missing"]}),
    ],
)
def test_a_request_without_a_rule_passes_unchanged(
    direct: DatabaseClient,
    database: Database,
    proxied: DatabaseClient,
    method: str,
    path: str,
    body: object,
) -> None:
    # Wait for every replica, because the second request may reach another node.
    direct.ask("PUT", f"/there?w={database.replicas}", {"text": "ü " * 5000})
    passed = _without_moment(proxied.ask(method, path, body))
    assert passed == _without_moment(direct.ask(method, path, body))


def test_a_connection_is_kept_for_the_next_request(
    proxied: DatabaseClient, proxy: FaultProxy
) -> None:
    with closing(proxied.connect()) as kept:
        proxied.ask("PUT", "/a", {}, over=kept)
        port = kept.sock.getsockname()[1]
        proxied.ask("GET", "/a", over=kept)
        assert kept.sock.getsockname()[1] == port
    assert [r.request.method for r in proxy.records] == ["PUT", "GET"]


def test_a_202_is_sent_after_the_write(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database
) -> None:
    rule = proxy.rule(faults.answer_202, "PUT", "/a$")
    status, _, content = proxied.ask("PUT", "/a", {"n": 1})
    assert (status, json.loads(content)["ok"]) == (202, True)
    assert database.get("a")["n"] == 1
    assert [r.path.rpartition("/")[2] for r in rule.met] == ["a"]


def test_a_202_for_a_bulk_write_marks_every_written_row(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database
) -> None:
    database.put({"_id": "taken"})
    proxy.rule(faults.answer_202, "POST", "/_bulk_docs$")
    docs = {"docs": [{"_id": "new"}, {"_id": "taken"}]}
    status, _, content = proxied.ask("POST", "/_bulk_docs", docs)
    new, taken = json.loads(content)
    assert (status, new["accepted"], taken["error"]) == (202, True, "conflict")
    assert "accepted" not in taken


@pytest.mark.parametrize(("fault", "written"), [(faults.lose_reply, True), (faults.cut, False)])
def test_a_connection_ends_after_or_before_the_write(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database, fault: Any, written: bool
) -> None:
    proxy.rule(fault, "PUT")
    with pytest.raises(http.client.RemoteDisconnected):
        proxied.ask("PUT", "/a", {})
    assert (database.find("a") is not None) is written


def test_a_delayed_write_is_done_after_its_client_has_left(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database
) -> None:
    proxy.rule(faults.delay(before=0.3), "PUT")
    with pytest.raises(TimeoutError):
        proxied.ask("PUT", "/a", {}, timeout=0.1)
    assert database.find("a") is None
    assert proxy.wait_until_idle()
    assert database.find("a") is not None


def test_a_reply_can_be_late_although_the_write_is_not(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database
) -> None:
    proxy.rule(faults.delay(after=0.2), "PUT")
    start = time.monotonic()
    assert proxied.ask("PUT", "/a", {})[0] in (201, 202)
    assert time.monotonic() - start >= 0.2


def test_a_held_write_waits_for_its_gate(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database
) -> None:
    gate = threading.Event()
    proxy.rule(faults.hold(gate), "PUT")
    with pytest.raises(TimeoutError):
        proxied.ask("PUT", "/a", {}, timeout=0.1)
    assert database.find("a") is None
    gate.set()
    assert proxy.wait_until_idle()
    assert database.find("a") is not None


def test_a_late_write_is_done_long_after_its_connection_has_ended(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database
) -> None:
    gate = threading.Event()
    proxy.rule(faults.late(gate), "PUT")
    with pytest.raises(http.client.RemoteDisconnected):
        proxied.ask("PUT", "/a", {})
    assert database.find("a") is None
    gate.set()
    assert proxy.wait_until_idle()
    assert database.find("a") is not None


@pytest.mark.parametrize(
    ("fault", "status", "kind", "written"),
    [
        (faults.conflict_chunked, 409, "application/json", False),
        (faults.error_without_type, 500, None, False),
        (faults.error_afterwards, 500, None, True),
        (faults.bad_gateway, 502, "text/html", False),
    ],
)
def test_the_proxy_can_reply_with_an_error(
    proxied: DatabaseClient,
    proxy: FaultProxy,
    database: Database,
    fault: Any,
    status: int,
    kind: str | None,
    written: bool,
) -> None:
    proxy.rule(fault, "PUT")
    with closing(proxied.connect()) as kept:
        answer = proxied.ask("PUT", "/a", {}, over=kept)
        assert (answer[0], answer[1].get("Content-Type")) == (status, kind)
        # The connection is still usable.
        assert proxied.ask("GET", "/a", over=kept)[0] == (200 if written else 404)


def test_the_proxy_can_stop_and_start_again(proxied: DatabaseClient, proxy: FaultProxy) -> None:
    with closing(proxied.connect()) as kept:
        assert proxied.ask("GET", "", over=kept)[0] == 200
        proxy.stop_listening()
        with pytest.raises(http.client.RemoteDisconnected):
            proxied.ask("GET", "", over=kept)
    with pytest.raises(ConnectionRefusedError):
        proxied.ask("GET", "")
    proxy.start_listening()
    assert proxied.ask("GET", "")[0] == 200


def test_a_rule_can_stop_the_proxy_at_a_request(
    proxied: DatabaseClient, proxy: FaultProxy, database: Database
) -> None:
    proxy.rule(proxy.stop_at_request, "PUT")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        proxied.ask("PUT", "/a", {})
    with pytest.raises(ConnectionRefusedError):
        proxied.ask("GET", "/a")
    assert database.find("a") is None


@pytest.mark.parametrize(
    ("first", "times", "met"),
    [(1, 1, [0]), (2, 1, [1]), (2, 2, [1, 2]), (1, None, [0, 1, 2, 3])],
)
def test_a_rule_applies_to_certain_requests_a_certain_number_of_times(
    proxied: DatabaseClient, proxy: FaultProxy, first: int, times: int | None, met: list[int]
) -> None:
    proxy.rule(faults.bad_gateway, "GET", "/a$", first=first, times=times)
    statuses = [proxied.ask("GET", "/a")[0] for _ in range(4)]
    assert [n for n, status in enumerate(statuses) if status == 502] == met


def test_a_rule_for_one_request_applies_once_among_many_clients(
    proxied: DatabaseClient, proxy: FaultProxy, each: Callable[..., list[Any]]
) -> None:
    rule = proxy.rule(faults.bad_gateway, "GET")
    statuses = each([lambda: proxied.ask("GET", "/a")[0]] * 16)
    assert sorted(statuses) == [404] * 15 + [502]
    assert (rule.matched, len(rule.met)) == (16, 1)


def test_a_path_is_matched_as_the_database_understands_it(
    proxied: DatabaseClient, proxy: FaultProxy
) -> None:
    rule = proxy.rule(faults.bad_gateway, "GET", "/2001:db8::1$")
    assert proxied.ask("GET", "/2001%3Adb8%3A%3A1")[0] == 502
    assert len(rule.met) == 1


def test_a_client_that_sends_nothing_does_not_block_the_proxy(
    proxy: FaultProxy, proxied: DatabaseClient
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)):
        assert proxied.ask("GET", "")[0] == 200
