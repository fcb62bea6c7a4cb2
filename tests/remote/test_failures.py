"""Commands at a URL whose service cannot be used: what they print, and what they repeat."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.errors import RemoteFailure
from kazoo_ips.model import CreateIP
from kazoo_ips.remote.client import APIClient, Service, service_url
from tests.conftest import Member
from tests.faults.proxy import FaultProxy, Forward, Hangup, Reply
from tests.remote.conftest import Run
from tests.servers import free_port

FREE, PLACE = "192.0.2.1", ("us-east", "proxy1.example.com")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands pause for a twentieth of the time before they send a request again."""
    short: Callable[[float], None] = lambda seconds: time.sleep(seconds / 20)  # noqa: E731
    assert APIClient.__init__.__kwdefaults__["pause"] is time.sleep
    monkeypatch.setitem(APIClient.__init__.__kwdefaults__, "pause", short)


@pytest.fixture
def proxy(live: str) -> Iterator[FaultProxy]:
    """A proxy in front of the service."""
    with FaultProxy(live) as made:
        yield made


@pytest.fixture
def by_proxy(run: Run, without_couchdb: None, proxy: FaultProxy, operator: Member) -> Run:
    """A function that runs `kazoo-ips` through the proxy, with the operator's token."""
    return lambda *words: run("--url", proxy.url, "--token", operator.token, *words)


def lost(forward: Forward) -> Reply:
    """A fault: the service executes the request, and its reply is lost."""
    forward()
    raise Hangup


def keys(proxy: FaultProxy) -> list[str]:
    """The Idempotency-Keys of the writes, in their order."""
    heads = [record.request.head.decode() for record in proxy.records]
    lines = [line for head in heads for line in head.splitlines()]
    return [line.partition(": ")[2] for line in lines if line.lower().startswith("idempotency")]


WRITES: list[tuple[tuple[str, ...], str, str]] = [
    (("add", FREE, *PLACE), "PUT", "added"),
    (("add", "192.0.2.0/29", *PLACE), "POST", "8 added"),
    (("assign", FREE, "{alice}"), "POST", "assigned"),
    (("release", FREE), "DELETE", "released"),
    (("release", "--account", "{alice}"), "DELETE", "released 1"),
    (("delete", "--force", FREE), "DELETE", "deleted"),
]


@pytest.mark.parametrize(("case", "method", "says"), WRITES, ids=[case[0][0] for case in WRITES])
def test_a_write_whose_answer_is_lost_is_sent_again_with_its_key_and_done_once(
    case: tuple[str, ...],
    method: str,
    says: str,
    pool: Any,
    proxy: FaultProxy,
    by_proxy: Run,
    services: Instance,
    alice: Member,
) -> None:
    if case[0] != "add":
        services.pool.create(CreateIP(FREE, *PLACE), "0" * 32)
    if case[0] not in ("add", "assign"):
        by_proxy("assign", FREE, alice.id)
    proxy.clear()
    fault = proxy.rule(lost, method, times=2)
    done = by_proxy(*(word.format(alice=alice.id) for word in case))
    assert len(fault.met) == 2
    assert (done.status, done.err) == (0, "")
    assert says in done.out
    assert len(keys(proxy)) == 3
    assert len(set(keys(proxy))) == 1
    trail = services.ips.fetch(FREE).trail if case[0] != "delete" else ()
    kind = {"add": "created", "assign": "assigned"}.get(case[0], "released")
    assert [str(event.kind) for event in trail].count(kind) == (case[0] != "delete")


def test_a_write_without_any_answer_says_that_it_may_be_done(
    pool: Any, proxy: FaultProxy, by_proxy: Run
) -> None:
    proxy.rule(lost, "PUT", times=None)
    done = by_proxy("add", FREE, *PLACE)
    assert done.status == 1
    assert done.err == (
        f"{proxy.url} does not answer: the connection broke; it is not known whether it was done\n"
    )
    assert len(set(keys(proxy))) == 1


def test_a_read_whose_answer_is_lost_is_sent_again(proxy: FaultProxy, by_proxy: Run) -> None:
    proxy.rule(lost, "GET", times=3)
    assert by_proxy("account", "list").status == 0


def test_a_page_of_another_proxy_is_no_answer(proxy: FaultProxy, by_proxy: Run) -> None:
    def unavailable(forward: Forward) -> Reply:
        body = b"<html>502 Bad Gateway</html>"
        head = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: %d\r\n\r\n" % len(body)
        return Reply(502, head, body)

    proxy.rule(unavailable, times=2)
    assert by_proxy("account", "list").status == 0
    proxy.rule(unavailable, times=None)
    done = by_proxy("account", "list")
    assert done.err == (
        f"{proxy.url} failed: 502 the proxy in front of the service cannot reach it\n"
    )


def test_an_export_that_breaks_off_leaves_no_file(
    proxy: FaultProxy, by_proxy: Run, add: Any, tmp_path: Path
) -> None:
    def cut(forward: Forward) -> Reply:
        whole = forward()
        return Reply(200, whole.head, whole.body[: len(whole.body) // 2], keep=False)

    def short(_: Forward) -> Reply:
        body = b'{"type":"export","version":1}\n'
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n"
        )
        return Reply(200, head % len(body), body)

    add(FREE)
    file = tmp_path / "pool.ndjson"
    for fault, reason in (
        (cut, f"{proxy.url} does not answer: the connection broke"),
        (short, "the export is incomplete: it has no last line"),
    ):
        proxy.rule(fault, "GET", "/ips/export")
        done = by_proxy("export", "--output", str(file))
        assert (done.status, done.out, done.err) == (1, "", f"{reason}\n")
        assert list(tmp_path.glob("pool*")) == []
    assert by_proxy("export", "--output", str(file)).status == 0
    assert '"_id":"192.0.2.1"' in file.read_text()


def test_the_service_refuses_an_export(by_url: Run, alice: Member) -> None:
    result = by_url("export", token=alice.token)
    assert (result.status, result.out) == (1, "")
    assert result.err == "the service does not permit this to the account of the token\n"


def test_a_url_at_which_no_server_listens_is_an_error(run: Run, without_couchdb: None) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("--url", url, "--token", "x", "assign", FREE, "f" * 32)
    assert (done.status, done.out) == (1, "")
    assert done.err == f"{url} does not answer: Connection refused\n"
    result = run("--url", "https://unknown.invalid", "--token", "x", "account", "list")
    assert result.err == "https://unknown.invalid does not answer: the host name is unknown\n"


@contextmanager
def server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Another program's HTTP server; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join()


def respond(
    status: int, body: bytes = b"", **headers: str
) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """Return a handler that gives the same reply to all requests."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def in_turn(answers: list[Any]) -> Any:
    """Return a handler that gives one of these replies after the other."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        answers.pop(0)(handler)

    return answer


def envelope(status: int, message: str, data: Any = None, **headers: str) -> Any:
    """Return a handler that replies to all requests with one error of the API."""
    body = {"status": "error", "error": str(status), "message": message, "data": data or {}}
    return respond(status, json.dumps({**body, "request_id": "abc"}).encode(), **headers)


OTHERS = [
    (respond(200, b"<html>Welcome</html>"), "{url} is not kazoo_ips: it answers 200 without an"),
    (respond(404, b'{"couchdb":"Welcome"}'), "{url} is not kazoo_ips: it answers 404 without an"),
    (
        respond(301, Location="https://example.com/"),
        "{url} redirects to https://example.com/; use the URL of the service itself",
    ),
    (envelope(404, "not_found"), "{url} has no such route: it is another release, or the URL is"),
    (envelope(500, "unspecified_fault"), "{url} failed: 500 unspecified_fault; request id abc"),
    (envelope(401, "invalid_credentials"), "the service needs a valid token: run kazoo-ips login"),
    (envelope(403, "forbidden"), "the service does not permit this to the account of the token"),
    (
        envelope(403, "forbidden", {"cause": "access denied by token restrictions"}),
        "the token is restricted, and does not permit this",
    ),
    (
        envelope(429, "too_many_requests", Retry_After="3600"),
        "{url} refuses more requests; try again in 3600 s",
    ),
]


@pytest.mark.parametrize(("answer", "says"), OTHERS, ids=[says for _, says in OTHERS])
def test_what_a_command_says_of_other_answers(
    run: Run, without_couchdb: None, answer: Any, says: str
) -> None:
    with server(answer) as url:
        for words in (("account", "list"), ("add", FREE, *PLACE)):
            done = run("--url", url, "--token", "x", *words)
            assert (done.status, done.out) == (1, "")
            assert done.err.startswith(says.format(url=url)), done.err
            assert done.err.count("\n") == 1


def test_a_rate_limit_is_waited_for(live: str, operator: Member) -> None:
    waited: list[float] = []
    limited = envelope(429, "too_many_requests", Retry_After="7")
    answers = [limited, envelope(409, "in_progress"), respond(200, b'{"status":"success"}')]
    with server(in_turn(answers)) as url:
        client = APIClient(Service(url, "x"), pause=waited.append)
        assert client.write("POST", "/ips").status == 200
    assert waited == [7.0, 0.5]


def test_a_service_that_is_unavailable_is_asked_a_few_times() -> None:
    waited: list[float] = []
    answers = [envelope(503, "datastore_unreachable", Retry_After="1")] * 4
    with server(in_turn(answers)) as url:
        client = APIClient(Service(url, "x"), pause=waited.append)
        with pytest.raises(RemoteFailure, match="503 datastore_unreachable; request id abc"):
            client.get("/ips")
    assert waited == [0.5, 1.0, 2.0]
    assert answers == []


def test_a_silent_server_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = APIClient(Service(url), timeout=(1, 0.05), tries=2, pause=lambda _: None)
        begun = time.monotonic()
        with pytest.raises(RemoteFailure, match="does not answer: no answer in time"):
            client.get("/ips")
        assert time.monotonic() - begun < 5


def test_accounts_name_themselves_by_id_and_the_operator_all(
    by_url: Run, alice: Member, bob: Member, add: Any
) -> None:
    add(FREE)
    refused = by_url("assign", FREE, alice.account.realm, token=alice.token)
    assert refused.err == (
        "only the operator can name accounts by realm or name; use the account's id\n"
    )
    assert by_url("assign", FREE, bob.id, token=alice.token).err == (
        "the service does not permit this to the account of the token\n"
    )
    assert by_url("assign", FREE, alice.id, token=alice.token).status == 0
    assert by_url("release", FREE, token=bob.token).err == "unable to release IP: not_found\n"
    assert by_url("release", FREE, token=alice.token).out == f"released IP {FREE}\n"
    assert by_url("add", "192.0.2.9", *PLACE, token=alice.token).status == 1


def test_the_addresses_of_an_account_that_does_not_exist(by_url: Run) -> None:
    nobody = "f" * 32
    assert by_url("release", "--account", nobody).err == (
        f"there is no account {nobody}; what it has, is released on CouchDB\n"
    )


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com:8443/v2", "https://example.com:8443"),
        (" http://[::1]:8000/v2/ ", "http://[::1]:8000"),
        ("https://example.com/kazoo/v2/", "https://example.com/kazoo"),
    ],
)
def test_a_url_is_what_is_in_front_of_v2(given: str, url: str) -> None:
    assert service_url(given) == url


@pytest.mark.parametrize(
    "given",
    ["example.com", "ftp://example.com", "https://", "https://a:b@example.com", "https://x:y",
     "https://example.com?x=1", "https://example.com#x", "", "https://example.com:0"],
)  # fmt: skip
def test_what_is_no_url_of_a_service(given: str) -> None:
    with pytest.raises(ValueError, match=r"of the form|no user"):
        service_url(given)


def test_a_file_of_certificates_that_cannot_be_read(run: Run, live: str, tmp_path: Path) -> None:
    file = tmp_path / "missing.pem"
    done = run("--url", live, "--token", "x", "--ca-file", str(file), "account", "list")
    assert done.err == f"{file} cannot be read: No such file or directory\n"
