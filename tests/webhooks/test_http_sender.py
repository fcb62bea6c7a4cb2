"""The HTTP sender, against receivers that are down, slow, broken and hostile."""

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext, create_default_context

import pytest

from kazoo_ips.outbound.destinations import Destinations
from kazoo_ips.outbound.http_sender import BODY_LIMIT, HTTPRequest, HTTPResult, HTTPSender
from tests.servers import free_port
from tests.webhooks.receivers import Receiver, answer, say

LOOPBACK = Destinations.parse("127.0.0.0/8")


def send(receiver: Receiver, *, timeout: float = 5.0, path: str = "/hook?a=1") -> HTTPResult:
    request = HTTPRequest(
        "POST", f"http://127.0.0.1:{receiver.port}{path}", {"X-Test": "yes"}, b"body"
    )
    return HTTPSender(LOOPBACK, timeout=timeout).send(request)


def test_a_request_arrives_as_it_was_given() -> None:
    with Receiver(answer(204)) as receiver:
        result = send(receiver)
    assert (result.status, result.error) == (204, None)
    (received,) = receiver.received
    assert received.line == "POST /hook?a=1 HTTP/1.1"
    assert received.body == "body"
    assert received.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "x-test": "yes",
        "connection": "close",
        "content-length": "4",
    }


@pytest.mark.parametrize("path", ["", "?q=1"])
def test_a_uri_without_a_path_is_the_root(path: str) -> None:
    with Receiver() as receiver:
        assert send(receiver, path=path).status == 200
    assert receiver.received[0].line == f"POST /{path} HTTP/1.1"


def test_a_refused_connection_is_a_failure() -> None:
    request = HTTPRequest("POST", f"http://127.0.0.1:{free_port()}/")
    result = HTTPSender(LOOPBACK).send(request)
    assert (result.status, result.error) == (None, "connection: Connection refused")


def test_a_redirect_is_not_followed() -> None:
    with Receiver() as other, Receiver(answer(302, "", f"Location: {other.uri}")) as receiver:
        assert send(receiver).status == 302
        assert len(receiver.received) == 1
    assert other.connections == 0


HEAD = b"HTTP/1.1 200 OK\r\n"
BROKEN = {
    "closes without a word": (say(), None),
    "no http": (say(b"SSH-2.0-OpenSSH_9.2\r\n"), None),
    "half a status line": (say(b"HTTP/1.1 2"), None),
    "a bad status": (say(b"HTTP/1.1 abc OK\r\n\r\n"), None),
    "too many headers": (say(HEAD + b"A: b\r\n" * 200 + b"\r\n"), None),
    "too long a header": (say(HEAD + b"A: " + b"b" * 100_000 + b"\r\n\r\n"), None),
    "a body shorter than it says": (say(HEAD + b"Content-Length: 100\r\n\r\nx"), 200),
    "a body longer than it says": (say(HEAD + b"Content-Length: 1\r\n\r\nxyz"), 200),
    "a length that is no number": (say(HEAD + b"Content-Length: x\r\n\r\n"), 200),
    "a negative length": (say(HEAD + b"Content-Length: -5\r\n\r\nabc"), 200),
    "a broken chunk": (say(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"), 200),
    "continue, and then nothing": (say(b"HTTP/1.1 100 Continue\r\n\r\n"), None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_response_is_a_result_and_no_exception(name: str) -> None:
    behave, status = BROKEN[name]
    with Receiver(behave) as receiver:
        result = send(receiver)
    assert result.status == status
    assert (result.error is None) == (status is not None)


SLOW = {
    "hangs": say(b"", pause=60),
    "hangs after the status line": say(HEAD, pause=60),
    "a byte of a header now and then": say(HEAD + b"A: ", *[b"x"] * 200, pause=0.1),
    "a header now and then": say(HEAD, *[b"A: b\r\n"] * 90, pause=0.1),
    "continue for ever": say(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 200, pause=0.1),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_response_ends_at_the_timeout_however_slow_it_is(name: str) -> None:
    with Receiver(SLOW[name]) as receiver:
        started = time.monotonic()
        result = send(receiver, timeout=1.0)
        assert (result.status, result.error) == (None, "timeout")
        assert 0.9 < time.monotonic() - started < 2


def test_an_endless_body_is_read_up_to_a_limit() -> None:
    with Receiver(say(HEAD + b"\r\n", *[b"x" * 1000] * 100_000)) as receiver:
        started = time.monotonic()
        result = send(receiver)
        assert time.monotonic() - started < 3
    assert (result.status, result.body) == (200, b"x" * BODY_LIMIT)


def test_a_body_that_drips_is_waited_for_a_second_only() -> None:
    with Receiver(say(HEAD + b"Content-Length: 99\r\n\r\n", *[b"x"] * 99, pause=0.2)) as receiver:
        started = time.monotonic()
        assert send(receiver, timeout=10).status == 200
        assert time.monotonic() - started < 2


def test_a_receiver_that_does_not_read_ends_at_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}/"
        request = HTTPRequest("POST", uri, {}, b"x" * 20_000_000)
        started = time.monotonic()
        result = HTTPSender(LOOPBACK, timeout=1.0).send(request)
    assert result.error == "timeout"
    assert time.monotonic() - started < 2


# Names and addresses.


class Names:
    """A resolver whose results change with each call."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = [*answers]
        self.questions: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the next result."""
        self.questions.append(host)
        return self._answers.pop(0)


def named(port: int, names: Names, destinations: Destinations = LOOPBACK) -> HTTPResult:
    request = HTTPRequest("POST", f"http://receiver.example:{port}/", {}, b"")
    return HTTPSender(destinations, resolve=names, timeout=3).send(request)


def test_a_private_address_is_not_connected_to() -> None:
    with Receiver() as receiver:
        result = named(receiver.port, Names(["127.0.0.1"]), Destinations())
        assert result.error == "the address of the host is not permitted"
    assert receiver.connections == 0


def test_a_name_is_resolved_once_so_it_cannot_change_after_the_check() -> None:
    with Receiver() as receiver:
        names = Names(["127.0.0.1"], ["127.0.0.99"])
        assert named(receiver.port, names).status == 200
    assert names.questions == ["receiver.example"]
    assert receiver.received[0].headers["host"] == f"receiver.example:{receiver.port}"


def test_of_several_addresses_only_permitted_ones_are_connected_to() -> None:
    with Receiver() as receiver:
        only = Destinations.parse("127.0.0.2")
        names = Names(["127.0.0.1", "10.0.0.1"])
        assert named(receiver.port, names, only).status is None
        assert receiver.connections == 0
        assert named(receiver.port, Names(["10.0.0.1", "127.0.0.1"])).status == 200


def test_the_next_address_is_tried_if_nobody_listens_at_the_first() -> None:
    with Receiver() as receiver:
        assert named(receiver.port, Names(["127.0.0.9", "127.0.0.1"])).status == 200


def test_an_unknown_name_and_a_slow_resolver_are_failures() -> None:
    def hangs(host: str, port: int) -> Sequence[str]:
        time.sleep(5)
        return []

    request = HTTPRequest("POST", "http://receiver.example/", {}, b"")
    assert named(80, Names([])).error == "the name of the host is unknown"
    started = time.monotonic()
    result = HTTPSender(LOOPBACK, resolve=hangs, timeout=0.5).send(request)
    assert result.error == "timeout of the name resolution"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0", "localhost"])
def test_other_spellings_of_loopback_are_refused(host: str) -> None:
    with Receiver() as receiver:
        request = HTTPRequest("POST", f"http://{host}:{receiver.port}/", {}, b"")
        assert HTTPSender(Destinations(), timeout=3).send(request).status is None
    assert receiver.connections == 0


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.uri)
        assert send(receiver).status == 200
        assert proxy.connections == 0


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `receiver.example`, and its key."""
    path = tmp_path_factory.mktemp("tls") / "receiver.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=receiver.example",
         "-addext", "subjectAltName=DNS:receiver.example", "-keyout", path, "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def secure(port: int, host: str, trusted: Path | None, timeout: float = 3) -> HTTPResult:
    request = HTTPRequest("POST", f"https://{host}:{port}/", {}, b"{}")
    tls = create_default_context(cafile=f"{trusted}.crt" if trusted else None)
    sender = HTTPSender(LOOPBACK, resolve=lambda *_: ["127.0.0.1"], timeout=timeout, tls=tls)
    return sender.send(request)


@pytest.fixture
def tls(certificate: Path) -> SSLContext:
    """TLS of a receiver with that certificate."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_tls_verifies_the_name_although_the_address_is_connected_to(
    tls: SSLContext, certificate: Path
) -> None:
    asked: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked.append(name)
    with Receiver(tls=tls) as receiver:
        assert secure(receiver.port, "receiver.example", certificate).status == 200
        wrong = secure(receiver.port, "other.example", certificate)
        unknown = secure(receiver.port, "receiver.example", None)
    assert asked == ["receiver.example", "other.example", "receiver.example"]
    assert (wrong.status, unknown.status) == (None, None)
    assert "Hostname mismatch" in str(wrong.error)
    assert "self-signed certificate" in str(unknown.error)
    assert len(receiver.received) == 1


def test_a_handshake_that_hangs_and_a_slow_tls_response_end_at_the_timeout(
    tls: SSLContext, certificate: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        assert secure(port, "receiver.example", certificate, 1).error == "timeout"
        assert time.monotonic() - started < 2
    with Receiver(SLOW["a byte of a header now and then"], tls=tls) as slow:
        started = time.monotonic()
        assert secure(slow.port, "receiver.example", certificate, 1).error == "timeout"
        assert time.monotonic() - started < 2


def test_no_connection_stays_open() -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Receiver() as receiver, Receiver(say(b"nonsense")) as broken:
        send(receiver)
        before = opened()
        for _ in range(20):
            send(receiver)
            send(broken)
        time.sleep(0.2)
        assert opened() <= before + 5
