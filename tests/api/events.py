"""Events for tests, and clients that read the feed of a running service."""

import itertools
import json
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from kazoo_ips.model import GREGORIAN_EPOCH
from kazoo_ips.model.history import Author, HistoryEvent, HistoryEventKind, State

ADDRESS = "198.19.255.1"
"""No test has an address of this network in the pool: else the archiver would correct events that
contradict its document."""
_NUMBERS = itertools.count(1)


def state(account_id: str | None) -> State:
    """Return the state of an address: assigned to an account, or available if it is None."""
    status = "assigned" if account_id else "available"
    return State(status, account_id, "us-east", "proxy1.example.com")


def event(
    before: str | None, after: str | None, by: str | None = None, **more: Any
) -> HistoryEvent:
    """Return an event of now, by which an address goes from one account to another one."""
    number = next(_NUMBERS)
    address = more.pop("address", ADDRESS)
    return HistoryEvent(
        id=f"{address}-{number:06}-{uuid4().hex[:8]}",
        address=address,
        event=more.pop("event", HistoryEventKind.ASSIGNED if after else HistoryEventKind.RELEASED),
        at=int(time.time()) + GREGORIAN_EPOCH,
        account_id=after or before,
        before=state(before),
        after=state(after),
        by=Author(by, uuid4().hex) if by else Author(command="kazoo-ips release"),
        request_id=uuid4().hex,
        **more,
    )


class Stream:
    """A client that reads Server-Sent Events, as a browser does.

    :param headers: of the request
    """

    def __init__(self, url: str, headers: dict[str, str], timeout: float = 20) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout)
        lines = [f"GET {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value
        self.since = ""
        self.is_over = False
        self._events = self._read()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = int(self._file.readline() or b"0", 16)
            if not size:
                self.is_over = True
                return
            yield self._file.read(size)
            self._file.readline()

    def _read(self) -> Iterator[dict[str, Any]]:
        for chunk in self._chunks():
            data, since = b"", self.since
            for line in chunk.split(b"\n"):
                name, _, value = line.partition(b": ")
                if name == b"id":
                    since = value.decode()
                elif name == b"data":
                    data = value
                elif not name:
                    self.since = since
                    if data:
                        yield json.loads(data)
                    data = b""

    def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next events; fewer if the service ends the stream.

        The attribute `since` gets the position of the last one.
        """
        return list(itertools.islice(self._events, count))
