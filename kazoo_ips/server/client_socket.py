"""A client socket with bounded waiting, so that slow clients do not occupy the threads.

A thread of gunicorn's threaded worker waits without a limit for the bytes of a request, and for a
client to read the reply. So as many slow clients as threads block the service. With this socket, a
thread handles a request only when its head, and up to `_BODY` bytes of its body, have arrived.
Only some of the threads may wait for longer bodies, and for clients that read slowly.
"""

import errno
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from threading import BoundedSemaphore
from typing import Any

from kazoo_ips.couch.batching import withdraw

_CHUNK = 65_536
_HEAD = 65_536
"""The maximum size in bytes of request line and headers together. gunicorn limits each of them."""
_BODY = 131_072
"""Bytes of a body that are received before a thread handles the request. A list of a thousand
addresses is shorter, so a thread rarely has to wait for a body."""
_QUEUE = 0.25
"""Seconds that a thread waits for a slot of `WaitLimit`, to send to a client that reads slowly.
To receive a slow request it does not wait for a slot: any client can send requests slowly."""
_FRAMING = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE
)


class Arrived(Enum):
    """How much of a request has arrived."""

    PART = "not enough to handle it"
    ENOUGH = "all of it, or all but the end of a long body; or the client has closed its end"
    TOO_MUCH = "a head that is too long"


class WaitLimit:
    """Limits how long threads wait for clients, and how many threads wait at the same time.

    :param seconds: the time for a request to arrive, and for a client to read a part of a reply
    :param threads: the maximum number of threads that wait
    """

    def __init__(self, seconds: float, threads: int) -> None:
        self.seconds = seconds
        self._slots = BoundedSemaphore(threads)

    @contextmanager
    def waiting(self, queue: float = 0.0) -> Iterator[None]:
        """A context for waiting for a client.

        :param queue: the maximum number of seconds that this thread waits for a slot
        :raises TimeoutError: too many other threads are waiting for clients
        """
        withdraw()  # other threads do not wait for a thread that waits for its client
        if not self._slots.acquire(timeout=queue):
            raise TimeoutError("too many threads are waiting for slow clients")
        try:
            yield
        finally:
            self._slots.release()


class ClientSocket:
    """Replaces the client's socket in gunicorn.

    :param linger: called with the real socket, which it closes after the client has closed its
        end. If the service closed it earlier, the client could lose the end of the reply
    :param admit: returns whether one more client may wait for events
    """

    def __init__(
        self,
        sock: socket.socket,
        limit: WaitLimit,
        linger: Callable[[socket.socket], None],
        admit: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self._sock = sock
        self._limit = limit
        self._linger = linger
        self._admit = admit
        self.subscription: Any = None
        """What the client waits for, once the connection is kept open without a thread."""
        self._received = bytearray()
        self._head = b""
        self._half_closed = self._ended = False
        self.is_paused = False
        """Whether the worker pauses reading from the connection."""
        self.deadline = time.monotonic() + limit.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def receive(self, ahead: bytes = b"") -> Arrived:
        """Receive the bytes of a request that have arrived, without waiting.

        :param ahead: bytes of this request that were read with the end of the previous one
        """
        received = self._received
        if ahead:
            received[:0] = ahead
        if ahead or not received:
            self.deadline = time.monotonic() + self._limit.seconds
        try:
            while len(received) < _HEAD + _BODY:
                data = self._sock.recv(_CHUNK, socket.MSG_DONTWAIT)
                received += data
                if not data:
                    return Arrived.ENOUGH  # the client has closed its end; gunicorn handles that
                if len(data) < _CHUNK:
                    break
        except BlockingIOError:
            pass
        return _arrived(received)

    def is_readable(self, seconds: float) -> bool:
        """Whether bytes of the next request, or the end of the connection, arrive in this time."""
        return bool(self._received) or self._poll(select.POLLIN, seconds)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return the next bytes: first those received already, then those of a long body.

        :raises TimeoutError: no bytes arrived until the deadline, or too many threads are waiting
        """
        if self._received:
            data = bytes(self._received[:size])
            del self._received[:size]
            return data
        try:
            data = self._sock.recv(size, flags | socket.MSG_DONTWAIT)
            self._ended = not data
            return data
        except BlockingIOError:
            if self._half_closed:  # the reply is sent; gunicorn only checks for further bytes
                raise
        with self._limit.waiting():
            self._wait(select.POLLIN, self.deadline)
            return self._sock.recv(size, flags)

    def sendall(self, data: bytes) -> None:
        """Send a part of a reply. The head is sent together with the part after it.

        :raises BrokenPipeError: the client does not read, or too many threads are waiting
        """
        if self.subscription is not None and self._head:
            return  # the end of a reply without a body
        if not self._head and data.startswith(b"HTTP/1.") and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        data, self._head = self._head + data, b""
        sent = self._send(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        try:
            with self._limit.waiting(_QUEUE):
                deadline = time.monotonic() + self._limit.seconds
                while rest:
                    self._wait(select.POLLOUT, deadline)
                    rest = rest[self._send(rest) :]
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from error

    def keep_open(self, subscription: Any) -> bool:
        """Let the worker keep the connection without a thread, after the handler has returned.

        Nothing of the handler's reply is sent before that.

        :param subscription: what the client waits for
        :returns: False if too many clients wait
        """
        if not self._admit(subscription):
            return False
        self.subscription = subscription
        return True

    def detach(self) -> tuple[socket.socket, bytes]:
        """Return the real socket, and the head of the reply, which is not sent yet."""
        return self._sock, self._head

    def flush(self) -> None:
        """Send a head without a body."""
        if self._head and self.subscription is None:
            self.sendall(b"")

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _wait(self, event: int, deadline: float) -> None:
        if not self._poll(event, max(deadline - time.monotonic(), 0)):
            raise TimeoutError("the client is too slow")

    def _poll(self, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._sock, event)
        return bool(poll.poll(seconds * 1000))

    def setblocking(self, _: bool) -> None:
        """Do nothing: each method decides whether it waits."""

    def gettimeout(self) -> None:
        """Return None: the socket itself never has a timeout."""

    def settimeout(self, seconds: float | None) -> None:
        """Move the deadline for the request to an earlier time."""
        if seconds is not None:
            self.deadline = min(self.deadline, time.monotonic() + seconds)

    def shutdown(self, how: int) -> None:
        """Close one end."""
        self._sock.shutdown(how)
        self._half_closed = True

    def close(self) -> None:
        """Close the socket; after a `shutdown`, only when the client has closed its end."""
        if self._half_closed and not self._ended:
            self._linger(self._sock)
        else:
            self._sock.close()


def _arrived(received: bytearray) -> Arrived:
    """Return how much of a request has arrived.

    A malformed request is enough, because gunicorn refuses it without reading more.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return Arrived.PART if len(received) < _HEAD else Arrived.TOO_MUCH
    framing = {name.lower(): value for name, value in _FRAMING.findall(received, 0, end)}
    length = framing.get(b"content-length", b"0").strip()
    # A client that expects `100 Continue` sends no body yet. The end of chunks needs a parser.
    if len(framing) > (b"content-length" in framing) or not length.isdigit():
        return Arrived.ENOUGH
    if len(length) > 9 or int(length) > _BODY or len(received) - end - 4 >= int(length):
        return Arrived.ENOUGH
    return Arrived.PART
