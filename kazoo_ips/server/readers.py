"""Connections of clients that wait for events. One thread of each worker keeps all of them.

A thread of the pool authenticates a client and reads its position. Then the connection is passed
to this module, which reads the feed once for all clients at the same position, and writes to their
sockets without waiting. A second thread waits for new events by one request to CouchDB.

A client that does not read gets no further events while bytes wait for it, and is dropped after a
time without progress. So its memory is bounded by one page of the feed.
"""

import logging
import os
import resource
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kazoo_ips.api.subscriptions import HEARTBEAT, Subscription
from kazoo_ips.errors import SinceGone, ValidationFailed
from kazoo_ips.observability import request_context

log = logging.getLogger(__name__)

PAGE = 200
"""Events that are read at a time."""
_MOST = 5000
"""Maximum number of clients of one worker, if the process may have so many open files."""
_SPARE_FILES = 1500
"""Open files that are left for other connections."""
_MOST_PER_ACCOUNT = 100
"""Maximum number of clients of one account in one worker."""
_ROUND = 0.25
"""Minimum seconds between two reads of the feed, so that many changes are written together."""
_RECHECK = 10.0
"""Seconds after which the permission of a client is checked again."""
_WATCH = 5.0
"""Seconds that one request waits for new events."""
_BUDGET = 0.1
"""Seconds of each round in which the feed is read, if clients are at many different positions."""
_TICK = 1.0
"""Seconds between two checks of all clients at most, and the pause after an error."""
_END = 2.0
"""Seconds in which the last bytes have to be written when the worker ends."""
_LAST_CHUNK = b"0\r\n\r\n"


class _Reader:
    """One client.

    :param head: the head of the reply, which is sent with the first bytes
    """

    def __init__(self, sock: socket.socket, head: bytes, subscription: Subscription) -> None:
        self.sock = sock
        self.subscription = subscription
        self.is_behind = True
        """Whether there may be events that are not written to it."""
        self.is_ending = False
        """Whether it is closed when all bytes are sent."""
        self.unsent = bytearray()
        now = time.monotonic()
        self.progress = now
        """When bytes were sent last, or when the unsent bytes began to wait."""
        self.last_read = 0.0
        """When the feed was last read for it."""
        self.next_heartbeat = now + HEARTBEAT
        self.next_check = now + _RECHECK
        self._head = head.replace(b"Connection: keep-alive\r\n", b"Connection: close\r\n")
        self._is_chunked = b"\r\nTransfer-Encoding: chunked\r\n" in head  # not in HTTP/1.0

    def queue(self, data: bytes) -> None:
        """Add bytes to those that are to be sent, as one chunk."""
        if data:
            self._add(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def _add(self, data: bytes) -> None:
        now = time.monotonic()
        self.next_heartbeat = now + HEARTBEAT
        if not self.unsent:
            self.progress = now
        self.unsent += self._head + data
        self._head = b""

    def end(self, data: bytes = b"") -> None:
        """Add the last bytes, and close the connection when they are sent."""
        if not self.is_ending:
            self.queue(data)
            self._add(_LAST_CHUNK if self._is_chunked else b"")
            self.is_ending = True

    def send(self) -> bool:
        """Send what the socket takes; return False if the connection is over.

        :raises OSError: the client has closed the connection
        """
        if self.unsent:
            with suppress(BlockingIOError):
                del self.unsent[: self.sock.send(self.unsent)]
                self.progress = time.monotonic()
        return bool(self.unsent) or not self.is_ending


class Readers:
    """All clients of one worker that wait for events.

    :param events: the feed
    :param is_alive: whether the worker is to continue
    :param timeout: seconds without progress after which a client is dropped
    """

    def __init__(self, events: Any, is_alive: Callable[[], bool], timeout: float) -> None:
        self._events = events
        self._is_alive = is_alive
        self._timeout = timeout
        self._lock = threading.Lock()
        self._accounts: Counter[str | None] = Counter()
        """The number of clients of each account; None for those of the operator."""
        self._new: deque[_Reader] = deque()
        self._readers: dict[int, _Reader] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._watching = threading.Event()
        self._tail = ""
        self._has_new_events = False
        self._next_round = 0.0
        self._thread: threading.Thread | None = None
        self._most = max(min(_MOST, _open_files() - _SPARE_FILES), 50)

    # Called by the threads of requests, and by the main thread.

    def admit(self, subscription: Subscription) -> bool:
        """Return whether one more client may wait, and count it."""
        account_id = subscription.account_id
        with self._lock:
            is_full = self._accounts.total() >= self._most
            if is_full or not self._is_alive():
                return False
            if account_id and self._accounts[account_id] >= _MOST_PER_ACCOUNT:
                return False
            self._accounts[account_id] += 1
            return True

    def add(self, sock: socket.socket, head: bytes, subscription: Subscription) -> None:
        """Keep the connection of a client that was admitted."""
        reader = _Reader(sock, head, subscription)
        if not head:  # the reply failed
            self._forget(reader)
            return
        sock.setblocking(False)
        self._new.append(reader)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="readers", daemon=True)
            self._thread.start()
            threading.Thread(target=self._watch, name="events", daemon=True).start()
        self._wake()

    def wait(self) -> None:
        """Wait until all connections have ended, for a few seconds at most."""
        if self._thread is not None:
            self._wake()
            self._thread.join(_END + _TICK)

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    # The thread that waits for new events.

    def _watch(self) -> None:
        while True:
            self._watching.wait()
            request_context.begin("readers-watch", by="background")
            try:
                if not self._events.wait(self._tail, _WATCH):
                    self._watching.clear()
                    if self._readers:
                        self._watching.set()
                    continue
            except Exception as error:  # nothing restarts the thread
                log.warning("waiting for events failed and will be repeated: %s", error)
                time.sleep(_TICK)
                continue
            self._watching.clear()
            self._has_new_events = True
            self._wake()

    # The thread that owns the connections.

    def _run(self) -> None:
        end = float("inf")
        while time.monotonic() < end:
            if not self._is_alive() and end == float("inf"):
                end = time.monotonic() + _END
                self._end_all()
            if end < float("inf") and not self._readers:
                return
            try:
                self._step()
            except Exception:  # nothing restarts the thread
                log.exception("the readers of events failed")
                time.sleep(_TICK)

    def _step(self) -> None:
        is_due = self._has_new_events or any(r.is_behind for r in self._readers.values())
        pause = max(self._next_round - time.monotonic(), 0) if is_due else _TICK
        for key, mask in self._selector.select(min(pause, _TICK)):
            if key.fd == self._wake_read:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, 65_536)
            else:
                self._handle(self._readers[key.fd], mask)
        self._take_new()
        if self._is_alive() and time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + _ROUND
            self._read()
        self._check()

    def _take_new(self) -> None:
        while self._new:
            reader = self._new.popleft()
            self._readers[reader.sock.fileno()] = reader
            self._selector.register(reader.sock, selectors.EVENT_READ)
            reader.queue(reader.subscription.begin())
            self._send(reader)
            if not self._is_alive():
                self._end(reader)

    def _handle(self, reader: _Reader, mask: int) -> None:
        """Handle an event of a socket. Bytes that the client has sent are discarded."""
        if mask & selectors.EVENT_READ:
            try:
                if not reader.sock.recv(65_536):
                    self._drop(reader)
                    return
            except BlockingIOError:
                pass
            except OSError:
                self._drop(reader)
                return
        self._send(reader)

    def _read(self) -> None:
        """Read the feed for all clients that may have to get events, and write the events."""
        if self._has_new_events:
            self._has_new_events = False
            for reader in self._readers.values():
                reader.is_behind = True
        groups: dict[str, list[_Reader]] = {}
        for reader in self._readers.values():
            if reader.is_behind and not reader.unsent and not reader.is_ending:
                groups.setdefault(reader.subscription.since, []).append(reader)
        start = time.monotonic()
        for since, readers in sorted(groups.items(), key=lambda group: group[1][0].last_read):
            self._read_for(since, readers)
            if time.monotonic() > start + _BUDGET:
                break
        if groups:
            self._watching.set()

    def _read_for(self, since: str, readers: list[_Reader]) -> None:
        """Read the feed from a position, and write the events to the clients at this position."""
        request_context.begin("readers", by="background")
        try:
            page = self._events.read(since, PAGE)
        except (SinceGone, ValidationFailed):
            for reader in readers:
                self._end(reader)
            return
        except Exception as error:
            log.warning("reading events failed and will be repeated: %s", error)
            self._next_round = time.monotonic() + _TICK
            return
        if not page.more:
            self._tail = page.since
        for reader in readers:
            reader.is_behind, reader.last_read = page.more, time.monotonic()
            data = reader.subscription.write(page)
            if reader.subscription.is_complete:
                reader.end(data)
            else:
                reader.queue(data)
            self._send(reader)

    def _check(self) -> None:
        """Send heartbeats, and end the connections of clients whose time or permission is over.

        A client that does not read is dropped.
        """
        now = time.monotonic()
        allowed: dict[tuple[str | None, ...], bool] = {}
        for reader in list(self._readers.values()):
            subscription = reader.subscription
            if reader.unsent and now - reader.progress > self._timeout:
                self._drop(reader)
            elif now >= subscription.deadline:
                self._end(reader)
            elif now >= reader.next_check:
                reader.next_check = now + _RECHECK
                authority = subscription.authority
                if authority.key not in allowed:
                    request_context.begin("readers", by="background")
                    allowed[authority.key] = authority.holds()
                if not allowed[authority.key]:
                    self._end(reader)
            elif now >= reader.next_heartbeat and not reader.unsent:
                reader.next_heartbeat = now + HEARTBEAT
                reader.queue(subscription.heartbeat())
                self._send(reader)

    def _end_all(self) -> None:
        for reader in list(self._readers.values()):
            self._end(reader)

    def _end(self, reader: _Reader) -> None:
        if not reader.is_ending:
            reader.end(reader.subscription.end())
            self._send(reader)

    def _send(self, reader: _Reader) -> None:
        try:
            if not reader.send():
                self._drop(reader)
                return
        except OSError:
            self._drop(reader)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if reader.unsent else 0)
        if self._selector.get_key(reader.sock).events != wanted:
            self._selector.modify(reader.sock, wanted)

    def _drop(self, reader: _Reader) -> None:
        if self._readers.pop(reader.sock.fileno(), None) is not None:
            self._selector.unregister(reader.sock)
            self._forget(reader)

    def _forget(self, reader: _Reader) -> None:
        with suppress(OSError):
            reader.sock.shutdown(socket.SHUT_WR)
        reader.sock.close()
        with self._lock:
            self._accounts[reader.subscription.account_id] -= 1


def _open_files() -> int:
    """Permit as many open files as the system permits, and return their number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST + _SPARE_FILES if soft == resource.RLIM_INFINITY else soft
