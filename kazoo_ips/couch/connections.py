"""Kept connections to one HTTP server, and what becomes of a request sent over them.

A request is written to the socket once and never again from here; who asks is told whether
anything was sent. General clients cost more than CouchDB itself: 0.25 ms (`http.client`) to
0.53 ms (urllib3) of processor time for a small document, this one 0.06 ms (Python 3.11, measured
side by side). The answer is read by llhttp, Node's parser.

Knows HTTP/1.1; knows neither CouchDB nor JSON.
"""

import os
import select
import socket
import ssl
import weakref
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

_CHUNK = 262_144
"""Bytes read from a socket at a time."""


class NotSent(OSError):
    """There was no connection: nothing was sent."""


class Unanswered(OSError):
    """It was sent, at least in part, and its answer did not come to its end.

    :param late: whether it was waited for in vain, so that asking again would take as long
    """

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


@dataclass(slots=True)
class Answer:
    """Status, headers (names in lower case) and body of an answer, filled in by the parser."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    _has_headers: bool = False
    _parts: list[bytes] = field(default_factory=list)

    def on_message_begin(self) -> None:
        """Refuse an answer to a question that was not asked."""
        if self.complete:
            raise ValueError("two answers to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Know the headers for complete."""
        self._has_headers = True

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Put the body together."""
        self.body = b"".join(self._parts)
        self.complete = True

    def ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection ends this answer's body."""
        framed = {"content-length", "transfer-encoding"} & self.headers.keys()
        return self._has_headers and not framed


class Connections:
    """Connections to the server of a URL, kept open between requests; for any thread.

    :param url: scheme, host and port
    :param connect_timeout: seconds to wait for a connection
    :param read_timeout: seconds to wait for an answer, and between two parts of it
    :param kept: how many are kept open; one for each thread is enough
    """

    def __init__(self, url: str, connect_timeout: float, read_timeout: float, kept: int) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._address = (parts.hostname or "", parts.port or (443 if secure else 80))
        self._host = parts.netloc.rpartition("@")[2].encode()
        self._tls = ssl.create_default_context() if secure else None
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._idle: deque[socket.socket] = deque(maxlen=kept)
        self._owner = os.getpid()
        weakref.finalize(self, _close, self._idle)

    def request(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        """Send one request and read its answer, whatever its status.

        :param target: path and query, quoted
        :raises NotSent: nothing was sent
        :raises Unanswered: something was
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        if body is not None or method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body or b'')}")
        head = "\r\n".join(lines).encode("latin-1")
        sent = b"%b\r\nHost: %b\r\n\r\n%b" % (head, self._host, body or b"")
        connection = self._take() or self._connect()
        try:
            answer, reusable = _exchange(connection, sent)
        except BaseException:
            connection.close()
            raise
        if reusable:
            self._keep(connection)
        else:
            connection.close()
        return answer

    def _take(self) -> socket.socket | None:
        """A kept connection that the server has not closed meanwhile."""
        if self._owner != os.getpid():
            # A socket shared with a forked child returns the answers to somebody else's questions.
            _close(self._idle)
            self._owner = os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread has just taken the last one
                return None
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            # Nothing is asked, so whatever there is to be read is its end.
            if not poll.poll(0):
                return connection
            connection.close()
        return None

    def _keep(self, connection: socket.socket) -> None:
        if len(self._idle) == self._idle.maxlen:
            connection.close()
        else:
            self._idle.append(connection)

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._address, self._connect_timeout)
            try:
                if self._tls:
                    connection = self._tls.wrap_socket(
                        connection, server_hostname=self._address[0]
                    )
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(self._read_timeout)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            raise NotSent(f"{error} (port {self._address[1]})") from error
        return connection


def _close(idle: deque[socket.socket]) -> None:
    while idle:
        idle.pop().close()


def _exchange(connection: socket.socket, sent: bytes) -> tuple[Answer, bool]:
    """Send and receive; the answer, and whether the connection can be used again."""
    answer = Answer()
    parser = HttpResponseParser(answer)
    try:
        connection.sendall(sent)
        while not answer.complete:
            data = connection.recv(_CHUNK)
            if not data:
                break
            parser.feed_data(data)
    except (OSError, HttpParserError) as error:
        late = isinstance(error, TimeoutError)
        raise Unanswered(str(error) or type(error).__name__, late=late) from error
    closing = answer.headers.get("connection", "").lower() == "close"
    reusable = answer.complete and parser.get_http_version() == "1.1" and not closing
    if not answer.complete:
        if not answer.ends_with_connection():
            raise Unanswered("the connection was closed")
        answer.on_message_complete()
    answer.status = parser.get_status_code()
    return answer, reusable
