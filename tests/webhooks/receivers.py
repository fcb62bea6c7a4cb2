"""Receivers on loopback: good, slow, broken and hostile ones."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Received:
    """One request, as it arrived."""

    line: str
    headers: dict[str, str]
    body: str
    at: float = field(default_factory=time.monotonic)


Behave = Callable[[socket.socket, Received], None]


def answer(status: int, body: str = "", *headers: str) -> Behave:
    """Return a behaviour that replies with a status."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers, "", body]
    text = "\r\n".join(lines).encode()
    return lambda connection, _: connection.sendall(text)


def say(*parts: bytes, pause: float = 0.0) -> Behave:
    """Return a behaviour that sends bytes, with a pause after each part."""

    def behave(connection: socket.socket, _: Received) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return behave


class Receiver:
    """A server that records its requests, and replies according to `behave`."""

    def __init__(
        self,
        behave: Behave | None = None,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.behave = behave or answer(200)
        self.received: list[Received] = []
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = socket.create_server((host, 0), family=family, backlog=128)
        self.port = self._server.getsockname()[1]
        self.connections = 0

    @property
    def uri(self) -> str:
        """The URI to send requests to."""
        return f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    def ids(self) -> list[str]:
        """The ids of the messages, in the order of their arrival."""
        return [each.headers["webhook-id"] for each in self.received]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            received = _read(connection)
            if received:
                self.received.append(received)
                self.behave(connection, received)
        except OSError:
            pass
        finally:
            connection.close()


def _read(connection: socket.socket) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in rest)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Received(line, headers, body.decode())
