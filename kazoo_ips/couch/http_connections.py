"""Kept connections to one HTTP server, and what becomes of a request sent over them.

A request is written to the socket once and never again from here; who asks is told whether
anything was sent. A connection is used again only where no answer to another request can be on
it. General clients cost more than CouchDB itself: 0.25 ms (`http.client`) to 0.53 ms (urllib3) of
processor time for a small document, this one 0.06 ms (Python 3.11, measured side by side). The
answer is read by llhttp, Node's parser.

Knows HTTP/1.1; knows neither CouchDB nor JSON.
"""

import os
import select
import socket
import ssl
import struct
import weakref
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_CHUNK = 65_536
"""Bytes read from a socket at a time: of more, Python asks the system for memory each time."""
_LINE_ENDS = b"\r\n"
_TAIL = 16
"""So many last bytes of an answer are looked at for line ends that are not its own."""


class NotSent(OSError):
    """There was no connection: nothing was sent."""


class Unanswered(OSError):
    """It was sent, at least in part, and its answer did not come to its end.

    :param late: whether it was waited for in vain, so that asking again would take as long
    """

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class Answer:
    """Status, headers and body of an answer, filled in by the parser."""

    __slots__ = ("_has_headers", "_headers", "_parts", "body", "complete", "status")

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.complete = False
        self._headers: dict[bytes, bytes] = {}
        self._has_headers = False
        self._parts: list[bytes] = []

    @property
    def headers(self) -> dict[str, str]:
        """The headers, their names in lower case."""
        return {k.decode("latin-1"): v.decode("latin-1") for k, v in self._headers.items()}

    def on_message_begin(self) -> None:
        """Refuse an answer to a question that was not asked."""
        if self.complete:
            raise ValueError("two answers to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Know the headers for complete."""
        self._has_headers = True

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Put the body together."""
        self.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.complete = True

    def header(self, name: str) -> str | None:
        """The value of a header by its name in lower case, or None."""
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def is_closing(self) -> bool:
        """Whether the server closes the connection after this answer."""
        return "close" in (self.header("connection") or "").lower()

    def ends_where(self, tail: bytes) -> bool:
        """Whether nothing follows it. The parser tells of all that follows but line ends.

        :param tail: the last bytes that were received
        """
        own = _count_line_ends(self.body[-_TAIL:])
        if not self.body or self.header("content-length") is None:
            own = len(_LINE_ENDS * 2)  # the end of its head, or of its last chunk
        return own == _count_line_ends(tail) < _TAIL

    def ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection ends this answer's body."""
        framed = {"content-length", "transfer-encoding"} & self.headers.keys()
        return self._has_headers and not framed


class Connections:
    """Connections to the server of a URL, kept open between requests; for any thread.

    :param url: scheme, host and port, and perhaps a path
    :param connect_timeout: seconds to wait for a connection
    :param read_timeout: seconds to wait for an answer, and between two parts of it
    :param kept: how many are kept open; one for each thread is enough
    """

    def __init__(self, url: str, connect_timeout: float, read_timeout: float, kept: int) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self.address = (parts.hostname or "", parts.port or (443 if secure else 80))
        self.path = parts.path.rstrip("/")
        """Of the URL: all targets begin with it."""
        self._host = parts.netloc.rpartition("@")[2].encode()
        self._tls = ssl.create_default_context() if secure else None
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._idle: deque[socket.socket] = deque(maxlen=kept)
        self._owner = os.getpid()
        weakref.finalize(self, _close, self._idle)

    def request(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        check: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Send one request and read its answer, whatever its status.

        The connection is kept only where no answer to another request can be on it: closed after
        a failure of the server, which CouchDB may answer twice, after anything left over, and
        whenever something is raised.

        :param target: path and query, quoted
        :param check: raises what it likes where the answer cannot be the one to this request
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
            if check:
                check(answer)
        except BaseException:
            connection.close()
            raise
        if reusable:
            self._keep(connection)
        else:
            connection.close()
        return answer

    def _take(self) -> socket.socket | None:
        """A kept connection on which nothing has come since its last answer, not even its end.

        To look costs 3 to 6 microseconds (Python 3.11).
        """
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
            # Nothing is asked, so whatever there is to be read is its end, or answers nobody.
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
            connection = socket.create_connection(self.address, self._connect_timeout)
            try:
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_hostname=self.address[0])
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._limit_waiting(connection)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            raise NotSent(f"{error} (port {self.address[1]})") from error
        return connection

    def _limit_waiting(self, connection: socket.socket) -> None:
        if self._tls:
            connection.settimeout(self._read_timeout)
            return
        # Left to the system: Python's own timeout asks before each send and each receive whether
        # it would wait, and lets go of its lock twice.
        connection.settimeout(None)
        whole, part = divmod(self._read_timeout, 1)
        limit = struct.pack("@ll", int(whole), int(part * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _close(idle: deque[socket.socket]) -> None:
    while idle:
        idle.pop().close()


def _count_line_ends(tail: bytes) -> int:
    return len(tail) - len(tail.rstrip(_LINE_ENDS))


def _exchange(connection: socket.socket, sent: bytes) -> tuple[Answer, bool]:
    """Send and receive; the answer, and whether the connection can be used again."""
    answer = Answer()
    parser = HttpResponseParser(answer)
    tail = b""
    try:
        connection.sendall(sent)
        while not answer.complete:
            data = connection.recv(_CHUNK)
            if not data:
                break
            parser.feed_data(data)
            tail = (tail + data[-_TAIL:])[-_TAIL:]
    except (OSError, HttpParserError, HttpParserUpgrade) as error:
        late = isinstance(error, TimeoutError | BlockingIOError)
        raise Unanswered(str(error) or type(error).__name__, late=late) from error
    lasting = parser.get_http_version() == "1.1" and not answer.is_closing()
    reusable = answer.complete and lasting and answer.ends_where(tail)
    if not answer.complete:
        if not answer.ends_with_connection():
            raise Unanswered("the connection was closed")
        answer.on_message_complete()
    answer.status = parser.get_status_code()
    if answer.status < 200:
        raise Unanswered(f"an interim answer, {answer.status}")
    return answer, reusable and answer.status < 500
