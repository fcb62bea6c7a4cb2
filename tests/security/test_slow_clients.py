"""Slow clients do not block other clients of a server with four threads."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3

from kazoo_ips.couch.client import Database
from tests.servers import Gunicorn

CLIENT_TIMEOUT = 3.0
PROMPT = 2.0
"""Seconds that a reply may take on a busy machine. If slow clients blocked it, it would take
longer.
"""
LONG_TIMEOUT = 30.0
"""A client timeout in seconds, which is longer than any test runs."""
THREADS = 4
CLIENTS = 40
CONNECTIONS = 60
HEAD = b"PUT /v2/user_auth HTTP/1.1\r\nHost: x\r\n"


Serve = Callable[[float], AbstractContextManager[Gunicorn]]


@pytest.fixture(scope="module")
def serve(
    environment: dict[str, str], operator: Any, tmp_path_factory: pytest.TempPathFactory
) -> Serve:
    """A function that starts a server with a client timeout, and at most sixty connections."""

    def start(timeout: float) -> Gunicorn:
        settings = {
            **environment,
            "KAZOO_IPS_CLIENT_TIMEOUT": str(timeout),
            "GUNICORN_CMD_ARGS": f"--worker-connections {CONNECTIONS}",
        }
        log = tmp_path_factory.mktemp("gunicorn") / "log"
        return Gunicorn(settings, log, workers=1, threads=THREADS)

    return start


@pytest.fixture(scope="module")
def server(serve: Serve) -> Iterator[str]:
    """A server with a client timeout of three seconds."""
    with serve(CLIENT_TIMEOUT) as gunicorn:
        yield gunicorn.url


@pytest.fixture(scope="module")
def patient(serve: Serve) -> Iterator[str]:
    """A server with a client timeout that is longer than any reply takes on a busy machine."""
    with serve(LONG_TIMEOUT) as gunicorn:
        yield gunicorn.url


def connected(url: str, room: int | None = None) -> socket.socket:
    """Connect to the server.

    :param room: size of the receive buffer, in bytes
    """
    parts = urlsplit(url)
    client = socket.socket()
    if room:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.settimeout(10)
    client.connect((parts.hostname, parts.port))
    return client


@contextmanager
def slow_clients(url: str, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connect many more clients than threads; each sends these bytes."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(url)) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(sent)
        time.sleep(0.2)  # so that the server has received the bytes
        yield clients


def reply_seconds(url: str, member: Any) -> float:
    start = time.monotonic()
    path = f"{url}/v2/accounts/{member.id}/ips/zones"
    reply = urllib3.request("GET", path, headers=member.headers, timeout=20, retries=False)
    assert reply.status == 200
    return time.monotonic() - start


def reply_of(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65_536):
        received += data
    return received


STARTS = {
    "nothing": b"",
    "half a line": b"GET /v2/i",
    "half a head": HEAD + b"X-Auth-Tok",
    "half a body": HEAD + b'Content-Length: 40\r\n\r\n{"data":',
}


@pytest.mark.parametrize("start", STARTS)
def test_clients_that_stop_sending_do_not_block_others(
    patient: str, operator: Any, start: str
) -> None:
    with slow_clients(patient, STARTS[start]):
        assert max(reply_seconds(patient, operator) for _ in range(5)) < LONG_TIMEOUT / 2


def test_clients_that_send_single_bytes_do_not_block_others_and_time_out(
    server: str, operator: Any
) -> None:
    with slow_clients(server, HEAD + b"X: ") as clients:
        end = time.monotonic() + CLIENT_TIMEOUT / 2
        while time.monotonic() < end:
            for client in clients:
                with suppress(OSError):  # disconnected: there were too many connections
                    client.sendall(b"x")
            assert reply_seconds(server, operator) < PROMPT
            time.sleep(0.1)
        reply = b""
        with suppress(ConnectionResetError):
            reply = reply_of(clients[0])  # returns when the server has closed the connection
        assert not reply or reply.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


LONG_BODIES = {
    "of a length": HEAD + b"Content-Length: 1000000\r\n\r\n{",
    "in chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{",
    "announced": HEAD + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.mark.parametrize("body", LONG_BODIES)
def test_missing_long_bodies_leave_threads_for_others(
    server: str, operator: Any, body: str
) -> None:
    with slow_clients(server, LONG_BODIES[body]) as clients:
        assert max(reply_seconds(server, operator) for _ in range(5)) < PROMPT
        for client in clients[:5]:
            reply = reply_of(client).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert reply.startswith(b"HTTP/1.1 408 ")


def test_clients_that_do_not_read_leave_threads_for_others_and_are_disconnected(
    server: str, operator: Any
) -> None:
    body = json.dumps({"data": {"ips": ["x" * 8000] * 500}}).encode()
    head = f"POST /v2/accounts/{operator.id}/ips HTTP/1.1\r\nHost: x\r\nX-Auth-Token: "
    head += f"{operator.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server, room=4096)) for _ in range(THREADS)]
        for client in clients:
            client.sendall(head.encode() + body)  # the reply contains the whole body
        # A reply of four megabytes takes time, even though its client does not read it.
        assert reply_seconds(server, operator) < 3 * CLIENT_TIMEOUT
        time.sleep(CLIENT_TIMEOUT + 0.5)
        for client in clients:
            assert len(reply_of(client)) < len(body)


def test_clients_that_do_not_close_do_not_block_others(server: str, operator: Any) -> None:
    with slow_clients(server, b"GET /v2/about HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
        assert max(reply_seconds(server, operator) for _ in range(5)) < PROMPT


def test_too_many_connections_do_not_lock_out_others(patient: str, operator: Any) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS + 20):
            stack.enter_context(connected(patient))
        assert max(reply_seconds(patient, operator) for _ in range(5)) < LONG_TIMEOUT / 2


def test_a_client_without_pauses_does_not_block_others(server: str, operator: Any) -> None:
    """Connect twice as many clients as there are threads, each with a thousand requests."""
    request, count = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 1000
    counted = [0] * 2 * THREADS

    def read(number: int, client: socket.socket) -> None:
        received = b""
        while counted[number] < count:
            received += client.recv(65_536)
            *whole, received = received.split(b"HTTP/1.1 200 ")
            counted[number] += sum(map(bool, whole))
            if received.endswith(b'"}'):  # the end of the last reply
                counted[number] += 1
                received = b""

    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in counted]
        threads = stack.enter_context(ThreadPoolExecutor(len(clients)))
        reading = [threads.submit(read, *each) for each in enumerate(clients)]
        for client in clients:
            client.sendall(count * request)
        reply_seconds(server, operator)
        assert max(counted) < count, "a client had all its replies by then"
        assert [each.result(60) for each in reading] == [None] * len(clients)


def test_a_request_in_two_parts_is_one_request(server: str, operator: Any) -> None:
    path = f"/v2/accounts/{operator.id}/ips"
    sent = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {operator.token}\r\n"
        'Connection: close\r\nContent-Length: 11\r\n\r\n{"data":{}}'
    ).encode()
    for cut in (3, 40, sent.index(b"\r\n\r\n") + 2, len(sent) - 4):
        with connected(server) as client:
            client.sendall(sent[:cut])
            time.sleep(0.05)
            client.sendall(sent[cut:])
            body = reply_of(client).partition(b"\r\n\r\n")[2]
        assert json.loads(body)["data"].keys() == {"ips"}


def test_two_requests_at_once_have_two_replies_in_order(server: str, operator: Any) -> None:
    first = f"GET /v2/about HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {operator.token}\r\n\r\n"
    second = "GET /v2/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connected(server) as client:
        client.sendall((first + second).encode())
        received = reply_of(client)
    assert received.index(b"HTTP/1.1 200 ") == 0
    assert received.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 404 " in received


def test_a_long_body_is_read(server: str, operator: Any, pool: Database) -> None:
    body = b'{"data":{"ips":["192.0.2.1"],"x":"%s"}}' % (b"x" * 1_000_000)
    url = f"{server}/v2/accounts/{operator.id}/ips"
    reply = urllib3.request("POST", url, body=body, headers=operator.headers, timeout=10)
    assert (reply.status, reply.json()["data"].keys()) == (400, {"ips.0"})


def test_a_head_that_is_too_long_is_431(server: str) -> None:
    with connected(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000)
        assert reply_of(client).startswith(b"HTTP/1.1 431 ")
