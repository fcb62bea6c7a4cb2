"""Connections to a server that sends the exact bytes that a test prepares."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from kazoo_ips.couch.http_client import Transport
from kazoo_ips.couch.http_connections import ConnectFailed, Connections, NoResponse
from kazoo_ips.couch.responses import Response


class Scripted:
    """A server that sends one prepared response after the other.

    Instead of a response that is None, it closes the connection.
    """

    def __init__(self, *answers: bytes | None, pause: threading.Event | None = None) -> None:
        self._answers = list(answers)
        self._pause = pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop the server, and close every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection."""
        while self._open:
            with suppress(OSError):
                self._open[-1].shutdown(socket.SHUT_RDWR)
            self._open.pop().close()

    def _serve(self) -> None:
        with suppress(OSError):
            while self._answers:
                client, _ = self._listener.accept()
                self._open.append(client)
                self.connections += 1
                with suppress(OSError):  # a test has closed the connection
                    self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        while self._answers:
            request = client.recv(65536)
            if not request:
                return
            self.received.append(request)
            if self._pause:
                self._pause.wait(5)
            answer = self._answers.pop(0)
            if answer is None:
                client.close()
                return
            client.sendall(answer)
            if b"close" in answer or b"HTTP/1.0" in answer or b"\r\n\r\n?" in answer:
                client.close()
                return


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    """A function that starts a server with these responses."""
    started: list[Scripted] = []

    def start(*answers: bytes | None, pause: threading.Event | None = None) -> Scripted:
        started.append(Scripted(*answers, pause=pause))
        return started[-1]

    yield start
    for server in started:
        server.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def get(connections: Connections, target: str = "/a") -> Response:
    return connections.request("GET", target, {"Accept": "application/json"}, None)


def kept(server: Scripted, read_timeout: float = 5) -> Connections:
    return Connections(server.url, 1, read_timeout, 4)


ANSWERS = {
    "with its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
    "in chunks": (
        b"HTTP/1.1 404 Gone\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        404,
        b"{}",
    ),
    "to the connection's end": (b"HTTP/1.0 502 Bad\r\nServer: x\r\n\r\n?{}", 502, b"?{}"),
    "and the connection ends": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        200,
        b"{}",
    ),
    "without a body": (b"HTTP/1.1 304 Same\r\nETag: x\r\n\r\n", 304, b""),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_response_is_read_completely(serve: Callable[..., Scripted], name: str) -> None:
    sent, status, body = ANSWERS[name]
    connections = kept(serve(sent, OK))
    answer = get(connections)
    assert (answer.status, answer.body) == (status, body)
    assert get(connections).body == b"{}", "the next response is complete too"


def test_a_connection_is_used_again(serve: Callable[..., Scripted]) -> None:
    server = serve(OK, OK, OK)
    connections = kept(server)
    for _ in range(3):
        get(connections)
    assert server.connections == 1


def test_a_request_has_the_length_of_its_body(serve: Callable[..., Scripted]) -> None:
    server = serve(OK, OK)
    connections = kept(server)
    connections.request("PUT", "/a?x=1", {"Content-Type": "application/json"}, b'{"a":1}')
    connections.request("POST", "/b", {}, None)
    first, second = server.received
    assert first.startswith(b"PUT /a?x=1 HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 7\r\n" in first
    assert f"\r\nHost: {server.url[7:]}\r\n".encode() in first
    assert first.endswith(b'\r\n\r\n{"a":1}')
    assert b"\r\nContent-Length: 0\r\n" in second


def test_a_connection_that_the_server_closed_is_not_used(
    serve: Callable[..., Scripted],
) -> None:
    server = serve(OK, OK)
    connections = kept(server)
    get(connections)
    server.hang_up()
    assert connections.request("PUT", "/a", {}, b"{}").status == 200, (
        "a closed connection loses no write"
    )
    assert server.connections == 2


def test_a_read_is_sent_again_if_all_idle_connections_were_closed(
    serve: Callable[..., Scripted],
) -> None:
    server = serve(OK)
    connections = kept(server)
    for _ in range(3):
        ours, theirs = socket.socketpair()
        theirs.close()
        connections._idle.append(ours)
    response = Transport(connections).send("GET", f"{server.url}/_up", None, {}, None)
    assert response.body == b"{}"


BROKEN = {
    "nothing": None,
    "half of its head": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Len",
    "half of its body": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{}",
    "half of its chunks": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}"
    ),
    "no HTTP": b"220 smtp.example.com close\r\n",
    "two answers": OK + OK,
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_incomplete_response_raises_no_response(
    serve: Callable[..., Scripted], name: str
) -> None:
    connections = kept(serve(BROKEN[name], OK))
    with pytest.raises(NoResponse) as raised:
        get(connections)
    assert not raised.value.timed_out
    assert get(connections).body == b"{}"


LEFT_OVER = {
    "after a length": OK + b"\r\n",
    "after a length, with a line end of its own": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n\n"
    ),
    "after chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\n",
    "after a head": b"HTTP/1.1 204 No\r\nETag: x\r\n\r\n\r\n",
    "after a length of nought": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n",
}


@pytest.mark.parametrize("name", LEFT_OVER)
def test_a_connection_with_surplus_line_ends_is_closed(
    serve: Callable[..., Scripted], name: str
) -> None:
    connections = kept(serve(LEFT_OVER[name]))
    assert 200 <= get(connections).status < 300
    assert not connections._idle


CLEAN = {
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n0\r\n\r\n",
    "a head": b"HTTP/1.1 204 No\r\nETag: x\r\n\r\n",
    "a refusal": b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_connection_after_a_complete_response_is_kept(
    serve: Callable[..., Scripted], name: str
) -> None:
    connections = kept(serve(CLEAN[name]))
    get(connections)
    assert len(connections._idle) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 599])
def test_a_connection_is_closed_after_a_failure_of_the_server(
    serve: Callable[..., Scripted], status: int
) -> None:
    connections = kept(serve(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % status))
    assert get(connections).status == status
    assert not connections._idle


INTERIM = {
    "to continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "of something": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
    "to another protocol": b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", INTERIM)
@pytest.mark.parametrize("rest", [b"", OK])
def test_an_interim_response_is_no_response(
    serve: Callable[..., Scripted], name: str, rest: bytes
) -> None:
    connections = kept(serve(INTERIM[name] + rest))
    with pytest.raises(NoResponse):
        get(connections)
    assert not connections._idle


def test_a_connection_with_surplus_bytes_is_not_used(
    serve: Callable[..., Scripted],
) -> None:
    server = serve(OK, OK)
    connections = kept(server)
    get(connections)
    server._open[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
    assert get(connections).body == b"{}"
    assert server.connections == 2


def test_a_response_that_fails_its_check_closes_the_connection(
    serve: Callable[..., Scripted],
) -> None:
    def refuse(answer: Response) -> None:
        raise LookupError(answer.body)

    connections = kept(serve(OK))
    with pytest.raises(LookupError):
        connections.request("GET", "/a", {}, None, refuse)
    assert not connections._idle


def test_a_missing_response_is_a_timeout(serve: Callable[..., Scripted]) -> None:
    gate = threading.Event()
    connections = kept(serve(OK, pause=gate), read_timeout=0.1)
    with pytest.raises(NoResponse) as raised:
        get(connections)
    gate.set()
    assert raised.value.timed_out


def test_a_refused_connection_raises_connect_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectFailed, match=str(port)):
        get(Connections(f"http://127.0.0.1:{port}", 1, 1, 1))


def test_a_forked_process_does_not_use_its_parents_connections(
    serve: Callable[..., Scripted],
) -> None:
    server = serve(OK, OK, OK)
    connections = kept(server)
    get(connections)
    child = os.fork()
    if child == 0:
        os._exit(0 if connections._take_idle() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    get(connections)
    assert server.connections == 1, "the parent process keeps its connection"
