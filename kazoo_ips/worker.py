"""A gunicorn worker that answers in the envelope even what never becomes a request.

A request line or header that gunicorn itself refuses gets HTML from it; clients of this API
decode JSON whatever the status. And gunicorn's own log, in the form that all others have.
"""

import http
import os
import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from gunicorn import glogging
from gunicorn.workers.gthread import ThreadWorker

from kazoo_ips import logs
from kazoo_ips.api import envelope, observed
from kazoo_ips.config import Settings


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
    """gunicorn's threaded worker, speaking JSON to the last."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read."""
        answered = _JSONSocket(client)
        super().handle_error(req, answered, addr, exc)
        if answered.code not in (0, 500):  # 500 is the application's, and logged by now
            where = str(addr[0]) if addr else ""
            observed.unreadable(
                self.wsgi, answered.code, answered.request_id, where, type(exc).__name__
            )


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
            f"X-Request-ID: {self.request_id}\r\n\r\n"
        )
        self._client.sendall(head.encode() + body)
