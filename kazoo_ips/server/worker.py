"""A gunicorn worker that slow clients cannot stop, and that answers in the envelope to the last.

A request line or header that gunicorn itself refuses gets HTML from it; clients of this API
decode JSON whatever the status. A request that has not arrived waits in the worker's poller, where
gunicorn keeps idle connections, rather than in a thread (`client_socket`). And gunicorn's own log,
in the form that all others have.
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
from kazoo_ips.observability import logs
from kazoo_ips.processes.worker_load import load
from kazoo_ips.server.client_socket import Arrived, ClientSocket, Patience

_LINGER = 2.0
"""Seconds that a client has to close its end after ours, as in gunicorn."""
_LINGERING = 100
"""Connections that may be at that; what is more is closed at once."""
_MOMENT = 0.001
"""Seconds that a thread waits for the next request of a connection itself."""
_YIELD = 0.002
"""Seconds that a connection is left to workers that hold fewer: to be woken takes 0.1 ms."""
_CROWD = 50
"""Waiting connections that make room at a time when no more can be accepted."""


class Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's log, written where the application's goes; requests are the application's."""

    def setup(self, cfg: Any) -> None:
        """Have all loggers of this process write in one form."""
        super().setup(cfg)
        settings = Settings.load(os.environ)
        password = urlsplit(settings.couchdb_url).password or ""
        logs.set_up(
            settings.log_level,
            settings.log_format,
            (password, unquote(password), settings.metrics_token),
        )
        self.error_log.handlers = []
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing: the application has done it."""

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """A warning, but none that quotes what a client has sent; `EnvelopeWorker` tells that."""
        if not str(msg).startswith("Invalid request from"):
            super().warning(msg, *args, **kwargs)


class EnvelopeWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, patient with nobody and speaking JSON to everybody."""

    def init_process(self) -> None:
        """Start; ends when the worker does."""
        seconds = Settings.load(os.environ).client_timeout
        self._patience = Patience(seconds, max(1, self.cfg.threads // 2))
        self._lingering: deque[tuple[float, socket.socket]] = deque()
        load.note(self.place, 0)
        super().init_process()

    def load_wsgi(self) -> None:
        """Make the application.

        What is there then stays, so the garbage collector need not look through it again; and of
        what a request makes hardly anything is in a cycle.
        """
        super().load_wsgi()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000)

    def accept(self, listener: Any) -> None:
        """Accept a connection, unless another worker with fewer of them does within a moment."""
        if self.nr_conns > load.least():
            time.sleep(_YIELD)
        super().accept(listener)
        load.note(self.place, self.nr_conns)

    def handle(self, conn: Any) -> Any:
        """Handle the requests of a connection for as long as one follows the other."""
        if self.cfg.is_ssl:
            return super().handle(conn)
        READ_SIBLINGS.expect()
        try:
            result = self._handle(conn)
            while result is True and self._follows(conn):
                result = self._handle(conn)
        finally:
            withdraw()
        return result

    def _follows(self, conn: Any) -> bool:
        """Whether the next request is here in a moment, and no other is waiting for a thread.

        The thread that has sent the reply is awake: to hand the connection over to the poller,
        and to be given it back, would take it longer than most clients take to go on.
        """
        if not self.alive or self.tpool._work_queue.qsize():
            return False
        READ_SIBLINGS.expect()
        return bool(conn.parser.unreader.buf.getvalue()) or conn.sock.is_readable(_MOMENT)

    def _handle(self, conn: Any) -> Any:
        """Handle a request when enough of it is there, or leave the connection to the poller."""
        if not isinstance(conn.sock, ClientSocket):
            conn.sock = ClientSocket(conn.sock, self._patience, self._linger)
            conn.data_ready = True  # gunicorn need not wait for it as well
        client: ClientSocket = conn.sock
        ahead = conn.parser.unreader.take_buffered() if conn.parser else b""
        try:
            arrived = client.gather(ahead)
        except OSError:
            return False
        if arrived is Arrived.ENOUGH:
            client.deadline = time.monotonic() + self._patience.seconds
            result = super().handle(conn)
            with suppress(OSError):  # then it is not told
                client.flush()
            return result
        if arrived is Arrived.TOO_MUCH:
            _refuse(client, 431)
        elif time.monotonic() > client.deadline:
            _refuse(client, 408)
        else:
            conn.init()  # a worker that stops looks for its parser, and closes what has none
            return _DEFER
        return False

    def finish_request(self, conn: Any, fs: Any) -> None:
        """What follows when a thread is done with a connection; runs in the main thread."""
        super().finish_request(conn, fs)
        load.note(self.place, self.nr_conns)
        if self.pending_conns and self.pending_conns[-1] is conn:
            conn.timeout = conn.sock.deadline

    def murder_pending(self) -> None:
        """Close what has waited long enough; runs in the main thread, every second at least.

        When no more connections can be accepted those go that have waited longest, for a request
        that does not come to its end or for the next one.
        """
        if self.nr_conns >= self.worker_connections:
            for conn in islice(self.pending_conns or self.keepalived_conns, _CROWD):
                conn.timeout = 0.0
            self.murder_keepalived()
        super().murder_pending()
        while self._lingering and self._lingering[0][0] < time.monotonic():
            self._let_go(self._lingering.popleft()[1])

    def _linger(self, sock: socket.socket) -> None:
        """Close a connection when its client does; gunicorn would have everybody wait for that."""
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
        self._let_go(sock)

    def _let_go(self, sock: socket.socket) -> None:
        self.poller.unregister(sock)
        sock.close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read."""
        answered = _JSONSocket(client)
        super().handle_error(req, answered, addr, exc)
        if answered.code not in (0, 500):  # 500 is the application's, and logged by now
            where = str(addr[0]) if addr else ""
            middleware.log_unreadable(
                self.wsgi, answered.code, answered.request_id, where, type(exc).__name__
            )


def _refuse(client: ClientSocket, code: int) -> None:
    with suppress(OSError):  # then it is not told
        _JSONSocket(client).sendall(b"HTTP/1.1 %d " % code)


class _JSONSocket:
    """The client's socket; what gunicorn sends through it keeps its status only."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.code = 0
        self.request_id = uuid4().hex

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, data: bytes) -> None:
        """Send an envelope of the status in `data`'s first line."""
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
