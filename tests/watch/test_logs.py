"""Each request has one log line and its id in CouchDB's log; no line contains a secret."""

import hashlib
import io
import json
import logging
import os
import re
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import urllib3

from kazoo_ips.app import Instance
from kazoo_ips.model import DedicatedIP
from kazoo_ips.observability import logs, request_context
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy, Request
from tests.servers import Gunicorn
from tests.timing import eventually

MARK = "S3cr3t"
"""A text that every secret of these tests contains, and nothing else."""


@dataclass
class Server:
    """A gunicorn with the log level debug, and its proxy to CouchDB."""

    url: str
    log: Path
    proxy: FaultProxy

    def send(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        return urllib3.request(method, self.url + path, **more)

    def raw(self, text: bytes) -> bytes:
        """Send bytes and return the first bytes of the reply."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as client:
            client.sendall(text)
            return client.recv(65536)

    def lines(self) -> list[dict[str, Any]]:
        """Return all log lines; each is a JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def line(self, request_id: str) -> dict[str, Any]:
        """Return the log line of a request."""
        found: list[dict[str, Any]] = []

        def logged() -> bool:
            found[:] = [
                line
                for line in self.lines()
                if line.get("request_id") == request_id and "status" in line
            ]
            return bool(found)

        assert eventually(logged)
        [line] = found
        return line


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str],
    couchdb_url: str,
    operator: Member,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("logs") / "log"
    # The embedded database accepts any password, so the password can contain `MARK`.
    url = couchdb_url if "@" in couchdb_url else couchdb_url.replace("//", f"//x:{MARK}-couchdb@")
    with FaultProxy(url) as proxy:
        own = {
            **environment,
            "COUCHDB_URL": proxy.url,
            "KAZOO_IPS_LOG_LEVEL": "debug",
            "KAZOO_IPS_METRICS_TOKEN": f"{MARK}-metrics",
        }
        with Gunicorn(own, log, workers=1) as gunicorn:
            yield Server(gunicorn.url, log, proxy)


def test_a_request_is_one_line(
    server: Server, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.1"
    reply = server.send("GET", path, headers={**alice.headers, "X-Request-ID": "one-line"})
    assert reply.status == 200
    line = server.line("one-line")
    assert line.pop("duration_ms") >= line.pop("couchdb_ms") > 0
    assert line.pop("couchdb_calls") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "request_id": "one-line",
        "method": "GET",
        "route": "/v2/accounts/{account_id}/ips/{address}",
        "path": path,
        "status": 200,
        "account_id": alice.id,
        "user_id": alice.user.id,
        "client": "127.0.0.1",
    }


def test_refusals_and_logins_are_logged(server: Server, alice: Member) -> None:
    server.send("GET", "/v2/ips", headers={**alice.headers, "X-Request-ID": "refused"})
    line = server.line("refused")
    assert (line["status"], line["account_id"]) == (403, alice.id)
    data = {
        "credentials": hashlib.md5(b"admin:secret").hexdigest(),
        "account_name": alice.account.name,
    }
    server.send("PUT", "/v2/user_auth", json={"data": data}, headers={"X-Request-ID": "login"})
    line = server.line("login")
    assert (line["status"], line["account_id"], line["user_id"]) == (201, alice.id, alice.user.id)


def test_an_unreadable_request_is_one_line(server: Server) -> None:
    reply = server.raw(f"GET /v2/ips HTTP/1.1\r\nX-Auth-Token {MARK}\r\n\r\n".encode())
    request_id = re.search(rb"X-Request-ID: (\w+)", reply)
    assert request_id
    line = server.line(request_id[1].decode())
    assert (line["status"], line["route"], line["notes"]) == (400, "unreadable", ["InvalidHeader"])


def test_notes_name_special_events(
    server: Server, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.1"
    for name in ("first", "again"):
        headers = {**alice.headers, "X-Request-ID": name, "Idempotency-Key": "notes"}
        assert server.send("POST", path, headers=headers).status == 200
    assert "notes" not in server.line("first")
    assert server.line("again")["notes"] == ["replayed"]


def test_a_reply_of_503_is_one_warning_and_one_line(
    server: Server, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    server.proxy.rule(faults.error_without_type, "GET", "-dedicated_ips/192")
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.1"
    server.send("GET", path, headers={**alice.headers, "X-Request-ID": "fails"}, retries=False)
    line = server.line("fails")
    assert (line["status"], line["level"]) == (503, "error")
    assert line["notes"] == ["ReadFailed"]
    about = [line for line in server.lines() if line.get("request_id") == "fails"]
    assert all("exception" not in line for line in about)


def named(server: Server, name: str) -> int:
    """Return the number of requests to CouchDB whose id begins with this name."""
    header = re.compile(f"(?i)x-couch-request-id: {name}-[0-9]{{1,11}}\r\n".encode())
    ids = [found[0] for r in server.proxy.records if (found := header.search(r.request.head))]
    assert len(set(ids)) == len(ids), "two requests have the same id"
    return len(ids)


@pytest.mark.parametrize(
    ("request_id", "couchdb_id"),
    [
        ("3f2a-known_to_couchdb", None),
        ("X" * 37, None),
        ("a.dot", hashlib.sha256(b"a.dot").hexdigest()[:24]),
    ],
)
def test_requests_to_couchdb_have_the_request_id(
    server: Server, alice: Member, request_id: str, couchdb_id: str | None
) -> None:
    headers = {**alice.headers, "X-Request-ID": request_id}
    server.send("GET", f"/v2/accounts/{alice.id}/ips", headers=headers)
    line = server.line(request_id)
    assert line.get("couchdb_request_id") == couchdb_id
    assert named(server, couchdb_id or request_id[:24]) == line["couchdb_calls"] > 0


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-00",
        f"01-{TRACE}-{SPAN}-01-what-a-later-version-adds",
    ],
)
@pytest.mark.parametrize("request_id", ["3f2a-known", "X" * 37, "a.dot"])
def test_a_trace_is_in_the_log_line_and_in_requests_to_couchdb(
    server: Server, alice: Member, traceparent: str, request_id: str
) -> None:
    request_id = f"{uuid4().hex[:8]}-{request_id}"
    headers = {**alice.headers, "X-Request-ID": request_id, "traceparent": traceparent}
    server.send("GET", f"/v2/accounts/{alice.id}/ips", headers=headers)
    line = server.line(request_id)
    assert (line["trace_id"], line["parent_id"]) == (TRACE, SPAN)
    own = hashlib.sha256(request_id.encode()).hexdigest() if "." in request_id else request_id
    assert line["couchdb_request_id"] == f"{TRACE[:15]}-{own[:8]}"
    assert named(server, line["couchdb_request_id"]) == line["couchdb_calls"] > 0


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_an_invalid_traceparent_is_ignored(
    server: Server, alice: Member, traceparent: str
) -> None:
    request_id = f"{uuid4().hex[:8]}-untraced"
    headers = {**alice.headers, "X-Request-ID": request_id, "traceparent": traceparent}
    server.send("GET", f"/v2/accounts/{alice.id}/ips", headers=headers)
    line = server.line(request_id)
    assert not {"trace_id", "parent_id", "couchdb_request_id"} & set(line)
    assert named(server, request_id[:24]) == line["couchdb_calls"] > 0


def is_of(request_id: str) -> Callable[[Request], bool]:
    """Return whether a request to CouchDB belongs to a client's request, not to background work.

    :param request_id: the beginning of the client's request id
    """
    return lambda request: f"x-couch-request-id: {request_id}".encode() in request.head.lower()


def test_a_shared_request_to_couchdb_is_in_all_log_lines(
    server: Server, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    for n in range(8):
        add(f"192.0.2.{n}")
    rule = server.proxy.rule(
        faults.delay(before=0.01), path="-dedicated_ips/", when=is_of("together"), times=None
    )

    def read(n: int) -> int:
        headers = {**alice.headers, "X-Request-ID": f"together-{n}"}
        path = f"/v2/accounts/{alice.id}/ips/192.0.2.{n}"
        return server.send("GET", path, headers=headers).status

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(read, range(8))) == {200}
    lines = [server.line(f"together-{n}") for n in range(8)]
    shared = [line for line in lines if "couchdb_shared" in line]
    assert shared
    assert len(rule.met) < len(lines)
    server.proxy.clear()
    leaders = {line["request_id"] for line in lines if line["couchdb_calls"]}
    for line in shared:
        assert set(line["couchdb_shared"]) <= leaders
        assert line["couchdb_ms"] > 5


def test_background_work_has_request_ids_of_its_own(
    server: Server, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    server.proxy.rule(faults.answer_202, "PUT", "-dedicated_ips/192", when=is_of("assign"))
    path, headers = f"/v2/accounts/{alice.id}/ips/192.0.2.1", {"X-Request-ID": "assign-one"}
    assert server.send("POST", path, headers=alice.headers | headers, retries=False).status == 503
    name = re.compile(rb"(?i)x-couch-request-id: background-[0-9a-f]{13}-[0-9]{1,11}\r\n")
    assert eventually(lambda: any(name.search(r.request.head) for r in server.proxy.records))


# Secrets.


def basic(account: str, password: str) -> str:
    return "Basic " + b64encode(f"{account}:{password}".encode()).decode()


def test_no_secret_is_in_any_line(
    server: Server, services: Instance, alice: Member, add: Callable[..., DedicatedIP]
) -> None:
    add("192.0.2.1")
    token, user = alice.token, services.accounts.create_user(alice.id, "watched", MARK)
    assert user.id
    credentials = hashlib.md5(f"watched:{MARK}".encode()).hexdigest()
    api_key = services.accounts.fetch(alice.id).api_key
    assert api_key
    secrets = [
        MARK,
        token,
        token.split(".")[2],
        credentials,
        api_key,
        basic(alice.id, credentials),
    ]
    ips = f"/v2/accounts/{alice.id}/ips"
    login = {"data": {"credentials": credentials, "account_name": alice.account.name}}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", ips, {"headers": {"X-Auth-Token": token}}),
        ("GET", ips, {"headers": {"Authorization": f"Bearer {token}"}}),
        ("GET", ips, {"headers": {"Authorization": basic(alice.id, credentials)}}),
        ("GET", ips, {"headers": {"Authorization": basic(alice.id, MARK)}}),
        ("GET", f"{ips}?auth_token={token}&zone=us-east", {}),
        ("GET", f"{ips}?auth_token={MARK}&api_key={api_key}&{MARK}&zone={token}", {}),
        ("GET", f"/v2/{token}", {}),
        ("POST", ips, {"json": {"auth_token": token, "data": {"ips": ["192.0.2.1"]}}}),
        ("POST", ips, {"body": f'{{"auth_token": "{token}", "data": {MARK}'}),
        ("PUT", "/v2/user_auth", {"json": login}),
        ("PUT", "/v2/user_auth", {"json": {"data": {"credentials": MARK, "account_name": "x"}}}),
        ("PUT", "/v2/api_auth", {"json": {"data": {"api_key": api_key}}}),
        ("PUT", "/v2/api_auth", {"json": {"data": {"api_key": MARK * 8}}}),
        ("GET", "/metrics", {"headers": {"Authorization": f"Bearer {MARK}-metrics"}}),
        ("GET", "/metrics", {"headers": {"Authorization": f"Bearer {MARK}-wrong"}}),
    ]  # fmt: skip

    def send_all() -> set[int]:
        return {
            server.send(method, path, retries=False, **more).status
            for method, path, more in requests
        }

    assert send_all() == {200, 201, 400, 401, 404}
    assert not [r for r in server.proxy.records if any(s in r.request.target for s in secrets)]
    for line in (f"GET /v2/ips?auth_token={MARK} SPDY/3", f"GET{MARK}", f"G{MARK}T / HTTP/1.1"):
        server.raw(f"{line}\r\nX-Auth-Token: {MARK}\r\nX Y: {MARK}\r\n\r\n".encode())
    server.raw(f"GET / HTTP/1.1\r\nAuthorization {MARK}\r\n\r\n".encode())
    for fault in (faults.error_without_type, faults.bad_gateway, faults.cut):
        server.proxy.clear()
        server.proxy.rule(fault, times=None)
        assert 503 in send_all()
    server.proxy.clear()
    server.proxy.stop_listening()
    assert 503 in send_all()
    server.proxy.start_listening()
    written = server.log.read_text()
    assert written.count('"status":503') > 20
    assert [secret for secret in secrets if secret in written] == []
    assert all(json.loads(line) for line in written.splitlines())


@contextmanager
def set_up(form: str, stream: io.StringIO) -> Iterator[None]:
    """Configure the loggers as the service does, and restore them afterwards."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    token = request_context.CURRENT.set(None)
    logs.set_up("debug", form, ("pa/ss", ""), stream)
    try:
        yield
    finally:
        root.handlers[0].flush()
        root.handlers = before
        root.setLevel(level)
        logging.captureWarnings(False)
        request_context.CURRENT.reset(token)


QUOTED = [
    f"https://admin:{MARK}@couch.example.com:5984/db",
    f"https://admin:p/{MARK}@couch.example.com:5984/db",
    f"http://couch.example.com/db/_view/x?key=%5B%22{MARK}%22%5D&limit=1",
    f"Error handling request GET /v2/ips?auth_token={MARK}",
    f"Authorization: Basic {b64encode(MARK.encode()).decode()}",
    f"Authorization: bearer {MARK}",
    f"the token eyJhbGciOiJSUzI1NiJ9.eyJ{MARK}.{MARK} is bad",
    "the password of the settings is pa/ss",
]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("text", QUOTED)
def test_messages_of_libraries_are_searched_for_secrets(form: str, text: str) -> None:
    written = io.StringIO()
    with set_up(form, written):
        log = logging.getLogger("others")
        log.warning("they say %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("it failed")
    output = written.getvalue()
    hidden = (MARK, b64encode(MARK.encode()).decode(), "pa/ss")
    assert [secret for secret in hidden if secret in output] == []
    assert output.count(logs.MASK) >= 2
    assert "ValueError" in output


def test_a_line_in_the_text_format() -> None:
    written = io.StringIO()
    with set_up("text", written):
        logging.getLogger("others").warning("look here")
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning look here\n", written.getvalue())


def test_a_line_outside_of_a_request_and_one_inside() -> None:
    written = io.StringIO()
    with set_up("json", written):
        log = logging.getLogger("others")
        log.warning("outside\nof it")
        request_context.begin("inside")
        log.debug("within")
        log.debug("no UTF-8: \udcff")
    outside, within, _ = map(json.loads, written.getvalue().splitlines())
    assert (outside["message"], "request_id" in outside) == ("outside\nof it", False)
    assert (within["level"], within["logger"], within["request_id"]) == (
        "debug", "others", "inside",
    )  # fmt: skip


def test_the_random_ids_of_requests_differ_also_in_a_forked_process() -> None:
    ids = {request_context.random_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, request_context.random_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 64).decode() != request_context.random_id()
    os.close(reading)
    os.close(writing)
