"""A server on loopback in place of Crossbar. It records requests; tests choose its replies."""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

SUCCESS = json.dumps({"page_size": 1, "status": "success", "data": {}}).encode()


class Request(NamedTuple):
    """A request as it was received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def account_id(self) -> str:
        """The account in the path."""
        return self.path.split("/")[3]


Answer = Callable[[socket.socket, Request], None]


def answer(status: int, body: bytes = SUCCESS, *headers: str) -> Answer:
    """Answer with a status and a body."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]

    def send(client: socket.socket, _request: Request) -> None:
        client.sendall("\r\n".join(lines).encode() + body)

    return send


def cut(client: socket.socket, _request: Request) -> None:
    """Send a part of a reply, and close the connection in the middle of its body."""
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + SUCCESS)


def hang_up(client: socket.socket, _request: Request) -> None:
    """Close the connection without a reply."""


def drip(client: socket.socket, _request: Request) -> None:
    """Send a valid reply so slowly that it never ends."""
    with suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
            client.sendall(bytes([byte]))
            time.sleep(0.02)


def drip_body(client: socket.socket, _request: Request) -> None:
    """Send a body without a length, byte by byte."""
    with suppress(OSError):
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(10_000):
            client.sendall(b" ")
            time.sleep(0.02)


def silence(client: socket.socket, _request: Request) -> None:
    """Send nothing until the client closes the connection."""
    with suppress(OSError):
        client.recv(1)


def garbage(client: socket.socket, _request: Request) -> None:
    """Send bytes that are not HTTP."""
    client.sendall(b"\x00\xff\x16\x03garbage\r\n\r\n")


def endless(client: socket.socket, _request: Request) -> None:
    """Send a body that never ends."""
    with suppress(OSError):
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            client.sendall(b"{" * 65536)


class FakeCrossbar:
    """The server. It listens inside a `with`.

    `default` replies to all requests but those for the accounts in `by_account`.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.default: Answer = answer(200)
        self.by_account: dict[str, Answer] = {}
        self.port = 0
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def accounts(self) -> list[str]:
        """The accounts of the requests, in their order."""
        return [request.account_id for request in self.requests]

    def __enter__(self) -> "FakeCrossbar":
        self.start_listening()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()

    def start_listening(self) -> None:
        """Listen, at the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop_listening(self) -> None:
        """Refuse connections."""
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as reader, suppress(OSError, ValueError):
            line = reader.readline().decode().split()
            if len(line) < 2:
                return
            headers = {}
            while (header := reader.readline().decode().strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", 0)))
            request = Request(line[0], line[1], headers, body)
            self.requests.append(request)
            self.by_account.get(request.account_id, self.default)(client, request)
