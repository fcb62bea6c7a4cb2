"""A client's socket on which no thread waits for long: requests are gathered without waiting.

gunicorn's threaded worker lets a thread wait for a request's bytes, and for a client to take in
the reply, as long as the client likes; as many dawdling clients as there are threads are the end
of the service. Here a request comes to a thread when its head and, up to `_BODY`, its body have
arrived, and only some of the threads may wait for what is longer. Knows sockets, and where
a request ends.
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
"""Bytes of a request's line and headers. gunicorn's own limits are narrower for each of them."""
_BODY = 131_072
"""Bytes of a body that are gathered before a thread begins: more than a list of a thousand
addresses takes, so hardly any request ever needs a thread to wait."""
_QUEUE = 0.25
"""Seconds that a thread with a reply waits for its turn to wait for the client. With a request,
which anybody may send, it does not."""
_FRAMING = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE
)


class Arrived(Enum):
    """What there is of a request."""

    PART = "not enough to begin with"
    ENOUGH = "all of it, or all but a long body; or the client has closed its end"
    TOO_MUCH = "a head that does not end"


class Patience:
    """How long clients are waited for, and by how many threads at once.

    :param seconds: for a request to arrive, and for a client to take in one part of a reply
    :param threads: how many may wait at the same time
    """

    def __init__(self, seconds: float, threads: int) -> None:
        self.seconds = seconds
        self._places = BoundedSemaphore(threads)

    @contextmanager
    def waiting(self, queue: float = 0.0) -> Iterator[None]:
        """Wait in here.

        :param queue: seconds to wait for one's turn
        :raises TimeoutError: too many others are waiting
        """
        withdraw()  # other threads do not wait for a thread that waits for its client
        if not self._places.acquire(timeout=queue):
            raise TimeoutError("too many clients are waited for")
        try:
            yield
        finally:
            self._places.release()


class ClientSocket:
    """What gunicorn takes for the client's socket.

    :param linger: called with the real socket when it is to be closed as soon as the client has
        closed its own end: closing it at once could cost the client the end of the reply
    """

    def __init__(
        self, sock: socket.socket, patience: Patience, linger: Callable[[socket.socket], None]
    ) -> None:
        self._sock = sock
        self._patience = patience
        self._linger = linger
        self._received = bytearray()
        self._head = b""
        self._half_closed = self._ended = False
        self.deadline = time.monotonic() + patience.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def gather(self, ahead: bytes = b"") -> Arrived:
        """Take what has arrived of a request, without waiting.

        :param ahead: what was read already, with the end of the request before
        """
        received = self._received
        if ahead:
            received[:0] = ahead
        if ahead or not received:
            self.deadline = time.monotonic() + self._patience.seconds
        try:
            while len(received) < _HEAD + _BODY:
                data = self._sock.recv(_CHUNK, socket.MSG_DONTWAIT)
                received += data
                if not data:
                    return Arrived.ENOUGH  # the end, which whoever reads on will find as well
                if len(data) < _CHUNK:
                    break
        except BlockingIOError:
            pass
        return _look(received)

    def is_readable(self, seconds: float) -> bool:
        """Whether something of the next request, or the client's end, is here before long."""
        return bool(self._received) or self._poll(select.POLLIN, seconds)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """The next bytes: those gathered, then those of a long body, until the deadline.

        :raises TimeoutError: they have not come, or too many others are waited for
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
            if self._half_closed:  # the reply is sent, and nobody waits for more
                raise
        with self._patience.waiting():
            self._wait(select.POLLIN, self.deadline)
            return self._sock.recv(size, flags)

    def sendall(self, data: bytes) -> None:
        """Send a part of a reply. Its head waits for what follows it: the client wakes up once.

        :raises BrokenPipeError: the client does not take it in, or too many others do not either
        """
        if not self._head and data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        data, self._head = self._head + data, b""
        sent = self._send(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        try:
            with self._patience.waiting(_QUEUE):
                deadline = time.monotonic() + self._patience.seconds
                while rest:
                    self._wait(select.POLLOUT, deadline)
                    rest = rest[self._send(rest) :]
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from error

    def flush(self) -> None:
        """Send the head that nothing follows."""
        if self._head:
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
        """Nothing: each call says for itself whether it waits."""

    def gettimeout(self) -> None:
        """None: the socket never has a timeout, which would make its other calls wait."""

    def settimeout(self, seconds: float | None) -> None:
        """Wait for what is being received so long and no longer."""
        if seconds is not None:
            self.deadline = min(self.deadline, time.monotonic() + seconds)

    def shutdown(self, how: int) -> None:
        """Close one end."""
        self._sock.shutdown(how)
        self._half_closed = True

    def close(self) -> None:
        """Close it, when the client has if it is told so that it can."""
        if self._half_closed and not self._ended:
            self._linger(self._sock)
        else:
            self._sock.close()


def _look(received: bytearray) -> Arrived:
    """Whether a thread can begin with what has arrived.

    What is malformed is enough: gunicorn refuses it without reading on.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return Arrived.PART if len(received) < _HEAD else Arrived.TOO_MUCH
    framing = {name.lower(): value for name, value in _FRAMING.findall(received, 0, end)}
    length = framing.get(b"content-length", b"0").strip()
    # Who expects `100 Continue` sends no body before, and where chunks end only a parser knows.
    if len(framing) > (b"content-length" in framing) or not length.isdigit():
        return Arrived.ENOUGH
    if len(length) > 9 or int(length) > _BODY or len(received) - end - 4 >= int(length):
        return Arrived.ENOUGH
    return Arrived.PART
