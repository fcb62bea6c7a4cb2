"""gunicorn's threaded worker, changed in six ways.

* Slow clients do not occupy threads: a connection whose request has not arrived completely stays
  in the poller, like an idle connection (`client_socket.py`).
* After a rate limit has refused a request, the worker reads nothing from its connection for a
  second. Otherwise a client that ignores refusals would keep the worker busy. After that second
  the worker handles the requests of these connections one after the other.
* New connections are spread evenly over the workers (`processes/worker_load.py`).
* If gunicorn refuses a request line or header, the reply is JSON in the envelope; gunicorn sends
  HTML.
* Clients that wait for events occupy no thread (`readers.py`).
* gunicorn's log has the form of the application's log.
"""

import gc
import http
import os
import re
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from gunicorn import glogging
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from kazoo_ips.api import envelope, middleware
from kazoo_ips.config import Settings
from kazoo_ips.couch.batching import READ_SIBLINGS, withdraw
from kazoo_ips.observability import logs, request_context
from kazoo_ips.processes.worker_load import load
from kazoo_ips.server import http_requests
from kazoo_ips.server.client_socket import Arrived, ClientSocket, WaitLimit
from kazoo_ips.server.readers import Readers

_LINGER = 2.0
"""Seconds in which a client has to close its end after the service has, as in gunicorn."""
_LINGERING = 100
"""The maximum number of connections that wait for the client to close its end. Further connections
are closed at once."""
_NEXT_REQUEST = 0.001
"""Seconds that a thread waits for the next request of a connection before the poller does."""
_YIELD = 0.002
"""Seconds that a worker waits so that a worker with fewer connections can accept a new one. That
worker needs 0.1 ms."""
_PAUSE = 1.0
"""Seconds of a pause after a refusal: the least `Retry-After`."""
_TURN = 0.1
"""Seconds after which the worker handles the next connection whose pause is over, if the request
of the previous one takes longer."""
_EVICTED = 50
"""Number of waiting connections that are closed at a time when no more can be accepted."""


class Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's logger. It writes to the application's log, and logs no requests."""

    def setup(self, cfg: Any) -> None:
        """Configure all loggers of this process in the same way."""
        super().setup(cfg)
        settings = Settings.load(os.environ)
        urls = [settings.couchdb_url, *settings.amqp_url.replace(",", " ").split()]
        passwords = [urlsplit(url).password or "" for url in urls]
        logs.set_up(
            settings.log_level,
            settings.log_format,
            (*passwords, *map(unquote, passwords), settings.metrics_token),
        )
        self.error_log.handlers = []
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Do nothing: the application logs requests."""

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log a warning, unless it quotes a client's request, which `EnvelopeWorker` logs."""
        if not str(msg).startswith("Invalid request from"):
            super().warning(msg, *args, **kwargs)


class EnvelopeWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker with bounded waiting for clients, and errors in the envelope."""

    def init_process(self) -> None:
        """Run the worker. Returns when the worker ends."""
        seconds = Settings.load(os.environ).client_timeout
        self._limit = WaitLimit(seconds, max(1, self.cfg.threads // 2))
        self._lingering: deque[tuple[float, socket.socket]] = deque()
        self._paused: deque[tuple[float, Any, Any]] = deque()
        self._resumed: Any = None
        self._turn_ends = 0.0
        load.set(self.slot, 0)
        http_requests.keep_constants(self.cfg)
        super().init_process()

    def load_wsgi(self) -> None:
        """Create the application.

        The application's objects live as long as the process, so the garbage collector need not
        check them again. Requests create few cycles, so the collector runs less often.
        """
        super().load_wsgi()
        # The benchmark runs an application without services.
        events = getattr(self.wsgi.extensions.get("kazoo_ips"), "changes", None)
        self._readers = Readers(events, lambda: self.alive, self._limit.seconds)
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000)

    def run(self) -> None:
        """Handle connections until the worker is to end. Then end the streams of events."""
        super().run()
        self._readers.wait()

    def accept(self, listener: Any) -> None:
        """Accept a connection, unless another worker with fewer connections accepts it first."""
        if self.nr_conns > load.least():
            time.sleep(_YIELD)
        super().accept(listener)
        load.set(self.slot, self.nr_conns)

    def handle(self, conn: Any) -> Any:
        """Handle a request of a connection, and further ones if they arrive at once."""
        if self.cfg.is_ssl:
            return super().handle(conn)
        READ_SIBLINGS.expect()
        try:
            result = self._handle(conn)
            while result is True and self._next_arrives(conn):
                result = self._handle(conn)
        finally:
            withdraw()
        return result

    def _next_arrives(self, conn: Any) -> bool:
        """Whether the next request arrives within a millisecond, and no connection needs a thread.

        To pass the connection to the poller and back would take longer.
        """
        client = conn.sock
        if not self.alive or self.tpool._work_queue.qsize() or client.is_paused:
            return False
        READ_SIBLINGS.expect()
        return bool(conn.parser.unreader.buf.getvalue()) or client.is_readable(_NEXT_REQUEST)

    def _handle(self, conn: Any) -> Any:
        """Handle a request if enough of it has arrived, or leave the connection to the poller."""
        if not isinstance(conn.sock, ClientSocket):
            admit = self._readers.admit
            conn.sock = ClientSocket(conn.sock, self._limit, self._linger, admit)
            conn.parser = http_requests.Requests(self.cfg, conn.sock, conn.client)
            conn.data_ready = True  # so that gunicorn does not wait for data too
        client: ClientSocket = conn.sock
        ahead = conn.parser.unreader.take_buffered()
        try:
            arrived = client.receive(ahead)
        except OSError:
            return False
        if arrived is Arrived.ENOUGH:
            client.deadline = time.monotonic() + self._limit.seconds
            result = super().handle(conn)
            if client.subscription is not None:
                return False
            work = request_context.CURRENT.get()
            client.is_paused = result is True and work is not None and work.over_limit
            with suppress(OSError):  # the client has closed the connection
                client.flush()
            return result
        if arrived is Arrived.TOO_MUCH:
            _refuse(client, 431)
        elif time.monotonic() > client.deadline:
            _refuse(client, 408)
        else:
            return _DEFER
        return False

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take a connection back from a thread. gunicorn calls this in the main thread."""
        if conn is self._resumed:
            self._resumed = None
        if getattr(conn.sock, "subscription", None) is not None:
            self.nr_conns -= 1
            load.set(self.slot, self.nr_conns)
            sock, head = conn.sock.detach()
            self._readers.add(sock, head, conn.sock.subscription)
            return
        if self.alive and getattr(conn.sock, "is_paused", False):
            self._paused.append((time.monotonic() + _PAUSE, conn, fs))
            return
        super().finish_request(conn, fs)
        load.set(self.slot, self.nr_conns)
        if self.pending_conns and self.pending_conns[-1] is conn:
            conn.timeout = conn.sock.deadline

    def murder_pending(self) -> None:
        """Close connections whose deadline has passed.

        gunicorn calls this in the main thread, at least every second. If no more connections can
        be accepted, this also closes paused connections, and those that have waited longest for
        the rest of a request or for the next request.
        """
        if self.nr_conns >= self.worker_connections:
            for _ in range(min(len(self._paused), _EVICTED)):
                self.nr_conns -= 1
                self._paused.popleft()[1].close()
            for conn in islice(self.pending_conns or self.keepalived_conns, _EVICTED):
                conn.timeout = 0.0
            self.murder_keepalived()
        self._end_pauses()
        super().murder_pending()
        while self._lingering and self._lingering[0][0] < time.monotonic():
            self._close(self._lingering.popleft()[1])

    def _end_pauses(self) -> None:
        """Handle the next requests of connections whose pause is over, one after the other.

        Many pauses end at the same time, when the account has tokens for about a second. If the
        worker handled all of these requests at once, requests of other accounts would wait.
        """
        while self._paused and (not self.alive or self._is_over(self._paused[0][0])):
            _, conn, fs = self._paused.popleft()
            conn.sock.is_paused = False
            if conn.sock.is_readable(0):
                self._resumed, self._turn_ends = conn, time.monotonic() + _TURN
                self.enqueue_req(conn)
            else:
                self.finish_request(conn, fs)

    def _is_over(self, end: float) -> bool:
        now = time.monotonic()
        return end < now and (self._resumed is None or self._turn_ends < now)

    def _linger(self, sock: socket.socket) -> None:
        """Close a connection after its client has closed it. No thread waits for that."""
        self.method_queue.defer(self._start_lingering, sock)

    def _start_lingering(self, sock: socket.socket) -> None:
        if len(self._lingering) >= _LINGERING:
            sock.close()
            return
        sock.setblocking(False)
        self._lingering.append((time.monotonic() + _LINGER, sock))
        self.poller.register(sock, selectors.EVENT_READ, partial(self._drain, sock))

    def _drain(self, sock: socket.socket, _: Any) -> None:
        try:
            if sock.recv(65_536):
                return
        except OSError:
            pass
        self._lingering = deque(each for each in self._lingering if each[1] is not sock)
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self.poller.unregister(sock)
        sock.close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Reply to a request that could not be read."""
        json_socket = _JSONSocket(client)
        super().handle_error(req, json_socket, addr, exc)
        if json_socket.code not in (0, 500):  # the application has logged an error 500
            address = str(addr[0]) if addr else ""
            middleware.log_unreadable(
                self.wsgi, json_socket.code, json_socket.request_id, address, type(exc).__name__
            )


def _refuse(client: ClientSocket, code: int) -> None:
    with suppress(OSError):  # the client has closed the connection
        _JSONSocket(client).sendall(b"HTTP/1.1 %d " % code)


class _JSONSocket:
    """The client's socket. Sends an envelope with the same status instead of gunicorn's page."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.code = 0
        self.request_id = uuid4().hex

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, data: bytes) -> None:
        """Send an envelope with the status of gunicorn's reply."""
        self.code = code = int(data.split(b" ", 2)[1])
        phrase = http.HTTPStatus(code).phrase.lower()
        body = envelope.dump(
            {
                "data": {"message": phrase},
                "status": "error",
                "error": str(code),
                "message": re.sub(r"\W", "_", phrase),
                **envelope.common(self.request_id, None, time.time()),
            }
        )
        head = (
            f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase}\r\n"
            "Connection: close\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"X-Request-ID: {self.request_id}\r\n"
        )
        for name, value in (middleware.POLICY, *middleware.HEADERS):
            head += f"{name}: {value}\r\n"
        self._client.sendall(f"{head}\r\n".encode() + body)
