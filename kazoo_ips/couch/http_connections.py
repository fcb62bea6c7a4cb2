"""A pool of keep-alive connections to one HTTP server.

This module writes a request to the socket once, and never repeats it. The raised error says
whether anything was sent. A connection is used again only if no response to another request can
arrive on it.

General clients take more processor time, and keep a connection after a failure of the server:
`docs/code.md` compares them. llhttp, the parser of Node.js, parses the responses.

This module handles sockets and HTTP/1.1, and neither databases nor documents.
"""

import os
import select
import socket
import ssl
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from kazoo_ips import error_texts
from kazoo_ips.couch.responses import TAIL, Response

_CHUNK = 65_536
"""Bytes read from a socket at a time. For more, Python allocates memory from the system each
time."""
_PAUSE = 0.003
"""Seconds until a stream is read again while little has arrived. CouchDB sends parts of 1.5 kB,
and each of them would wake this process up."""
_Check = Callable[[Response], None]


class ConnectFailed(OSError):
    """No connection could be opened. Nothing was sent."""


class NoResponse(OSError):
    """The request was sent, at least in part, and no complete response was received.

    :param timed_out: whether the read timeout expired, so that a second try would take as long
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Connections:
    """Connections to the server of a URL, kept open between requests. Any thread may use them.

    :param url: scheme, host and port, and optionally a path
    :param connect_timeout: seconds to wait for a connection
    :param read_timeout: seconds to wait for a response, and between two parts of it
    :param max_idle: the number of idle connections kept open; one for each thread is enough
    """

    def __init__(
        self, url: str, connect_timeout: float, read_timeout: float, max_idle: int
    ) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self.address = (parts.hostname or "", parts.port or (443 if secure else 80))
        self.path = parts.path.rstrip("/")
        """The path of the URL. All targets begin with it."""
        self._host = parts.netloc.rpartition("@")[2].encode()
        self._tls = ssl.create_default_context() if secure else None
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._idle: deque[socket.socket] = deque(maxlen=max_idle)
        self._process_id = os.getpid()
        weakref.finalize(self, _close, self._idle)

    def request(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        check: _Check | None = None,
    ) -> Response:
        """Send one request and read its response, whatever its status.

        The connection is kept only if no response to another request can arrive on it. It is
        closed after surplus bytes, after an error, and after a status of 500 or more, because
        CouchDB can send such a response twice.

        :param target: path and query, quoted
        :param check: raises an error of its own if the response belongs to another request
        :raises ConnectFailed: nothing was sent
        :raises NoResponse: the request was sent, at least in part
        """
        sent = self._message(method, target, headers, body)
        connection = self._take_idle() or self._connect()
        try:
            response, reusable = _exchange(connection, sent)
            if check:
                check(response)
        except BaseException:
            connection.close()
            raise
        if not reusable or len(self._idle) == self._idle.maxlen:
            connection.close()
        else:
            self._idle.append(connection)
        return response

    def stream(self, target: str, headers: dict[str, str], check: _Check) -> Iterator[bytes]:
        """Send a GET, and yield the body of its response in parts, while the server sends it.

        A server that is ahead of the caller has to wait: only the socket's buffers are between
        them. The request has a connection of its own, which is closed after it, also if the caller
        stops reading.

        :param check: called with the response when the first part of its body has arrived
        :raises ConnectFailed: nothing was sent
        :raises NoResponse: also after some of the parts, if the rest does not arrive
        """
        sent = self._message("GET", target, {**headers, "Connection": "close"}, None)
        response = Response()
        with self._connect() as connection:
            parser, part = HttpResponseParser(response), b""
            for _ in _received(connection, sent, response, parser):
                part += response.take()
                if len(part) < _CHUNK // 2 and not response.complete:
                    time.sleep(_PAUSE)
                    continue
                if not response.status:
                    response.status, response.body = parser.get_status_code(), part
                    check(response)
                yield part
                part = b""
        if not response.complete:
            raise NoResponse("the connection was closed")

    def _message(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> bytes:
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body or b'')}")
        head = "\r\n".join(lines).encode("latin-1")
        return b"%b\r\nHost: %b\r\n\r\n%b" % (head, self._host, body or b"")

    def _take_idle(self) -> socket.socket | None:
        """Return an idle connection on which nothing was received since its last response.

        The check costs 3 to 6 microseconds (Python 3.11).
        """
        if self._process_id != os.getpid():
            # A forked child must not read responses to its parent's requests.
            _close(self._idle)
            self._process_id = os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread has just taken the last one
                return None
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            # No request is open, so anything readable is the end of the connection or a surplus
            # response.
            if not poll.poll(0):
                return connection
            connection.close()
        return None

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(self.address, self._connect_timeout)
            try:
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_hostname=self.address[0])
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._set_read_timeout(connection)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            why = error_texts.of_os_error(error)
            raise ConnectFailed(f"{why} (port {self.address[1]})") from error
        return connection

    def _set_read_timeout(self, connection: socket.socket) -> None:
        if self._tls:
            connection.settimeout(self._read_timeout)
            return
        # The kernel enforces the timeout. Python's own timeout polls before each send and receive,
        # and releases the GIL twice.
        connection.settimeout(None)
        whole, part = divmod(self._read_timeout, 1)
        limit = struct.pack("@ll", int(whole), int(part * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _close(idle: deque[socket.socket]) -> None:
    while idle:
        idle.pop().close()


def _exchange(connection: socket.socket, sent: bytes) -> tuple[Response, bool]:
    """Send a request and receive the response. Return it, and whether to keep the connection."""
    response = Response()
    parser = HttpResponseParser(response)
    tail = b""
    for data in _received(connection, sent, response, parser):
        tail = (tail + data[-TAIL:])[-TAIL:]
    lasting = parser.get_http_version() == "1.1" and not response.closes_connection()
    reusable = response.complete and lasting and response.ends_with(tail)
    if not response.complete:
        if not response.ends_with_connection():
            raise NoResponse("the connection was closed")
        response.on_message_complete()
    response.status = parser.get_status_code()
    if response.status < 200:
        raise NoResponse(f"an interim response, {response.status}")
    return response, reusable and response.status < 500


def _received(
    connection: socket.socket, sent: bytes, response: Response, parser: HttpResponseParser
) -> Iterator[bytes]:
    """Send a request, and yield what is received, parsed already, up to the end of the response.

    :raises NoResponse: the connection fails, or the response is not HTTP
    """
    try:
        connection.sendall(sent)
        while not response.complete:
            data = connection.recv(_CHUNK)
            if not data:
                return
            parser.feed_data(data)
            yield data
    except (OSError, HttpParserError, HttpParserUpgrade) as error:
        timed_out = isinstance(error, TimeoutError | BlockingIOError)
        is_malformed = not isinstance(error, OSError)
        why = "the response is not HTTP" if is_malformed else error_texts.of_os_error(error)
        raise NoResponse(why, timed_out=timed_out) from error
