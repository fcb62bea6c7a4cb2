"""The rows of a view, read while the server sends them."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kazoo_ips.couch import view_streams
from kazoo_ips.couch.client import Couch
from kazoo_ips.couch.responses import ReadFailed
from tests.timing import eventually

ROWS = [{"id": f"{n}", "key": ['a],"\r\n}', n], "value": None} for n in range(6)]
BODY = (
    b'{"total_rows":6,"offset":0,"rows":[\r\n'
    + b",\r\n".join(json.dumps(row).encode() for row in ROWS)
    + b"\r\n]}\n"
)
EMPTY = b'{"total_rows":0,"offset":0,"rows":[\r\n\r\n]}\n'
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MB = 1_000_000


def rows_of(*parts: bytes) -> list[dict[str, object]]:
    blocks = view_streams.blocks(iter(parts))
    return [row for block in blocks for row in json.loads(block)["rows"]]


def test_rows_are_whole_wherever_the_response_is_divided() -> None:
    start = BODY.index(b"\r\n") + 2
    for at in range(start, len(BODY) + 1):
        assert rows_of(BODY[:at], BODY[at:]) == ROWS
        assert rows_of(BODY[:at], BODY[at : at + 3], BODY[at + 3 :]) == ROWS


@pytest.mark.parametrize("body", [EMPTY, EMPTY.replace(b"\r\n\r\n", b"\r\n")])
def test_a_view_can_have_no_rows(body: bytes) -> None:
    assert rows_of(body) == []


@pytest.mark.parametrize("body", [b"", b"{}", BODY.replace(b"\r\n", b"")])
def test_a_response_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(ReadFailed):
        rows_of(body)


def test_rows_without_their_end_are_refused() -> None:
    for end in range(len(BODY.rstrip())):
        with pytest.raises(ReadFailed):
            rows_of(BODY[:end])


class Endless:
    """A server that sends the rows of a view without end, as fast as the client reads them.

    :param rows: after this number of rows it sends nothing more
    """

    def __init__(self, rows: float = float("inf")) -> None:
        self._rows = rows
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self.ended = threading.Event()
        """Whether the client has closed the connection."""
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, suppress(OSError):
            client.recv(65_536)
            client.sendall(HEAD + b"%x\r\n%b\r\n" % (len(BODY[:37]), BODY[:37]))
            row = json.dumps(ROWS[0]).encode() + b",\r\n"
            rows = row * 20
            while self.sent < self._rows:
                client.sendall(b"%x\r\n%b\r\n" % (len(rows), rows))
                self.sent += 20
            client.recv(1)
        self.ended.set()


@pytest.fixture
def endless() -> Iterator[Endless]:
    server = Endless()
    yield server
    server.close()


def stream(server: Endless, read_timeout: float = 5.0) -> Iterator[object]:
    database = Couch(server.url, read_timeout=read_timeout).database("x")
    return (row for rows in database.stream("ips/by_zone", reduce=False) for row in rows)


def test_the_server_waits_for_a_caller_that_does_not_read(endless: Endless) -> None:
    rows = stream(endless)
    next(rows)
    before = -1
    while before < endless.sent:
        before = endless.sent
        assert not endless.ended.wait(0.2)
    assert before < 16 * MB / len(json.dumps(ROWS[0]))


def test_a_caller_that_stops_reading_closes_the_connection(endless: Endless) -> None:
    rows = stream(endless)
    next(rows)
    del rows
    assert endless.ended.wait(5)


def test_a_server_that_stops_sending_is_a_failed_read() -> None:
    server = Endless(rows=10_000)
    rows = stream(server, read_timeout=0.2)
    seen: list[object] = []
    with pytest.raises(ReadFailed):
        seen.extend(rows)
    assert 0 < len(seen) <= server.sent
    assert eventually(server.ended.is_set)
    server.close()
