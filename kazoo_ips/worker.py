"""A gunicorn worker that answers in the envelope even what never becomes a request.

A request line or header that gunicorn itself refuses gets HTML from it; clients of this API
decode JSON whatever the status.
"""

import http
import re
import time
from typing import Any
from uuid import uuid4

from gunicorn.workers.gthread import ThreadWorker

from kazoo_ips.api import envelope


class EnvelopeWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, speaking JSON to the last."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read."""
        super().handle_error(req, _JSONSocket(client), addr, exc)


class _JSONSocket:
    """The client's socket; what gunicorn sends through it keeps its status only."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, data: bytes) -> None:
        """Send an envelope of the status in `data`'s first line."""
        code = int(data.split(b" ", 2)[1])
        phrase = http.HTTPStatus(code).phrase.lower()
        request_id = uuid4().hex
        body = envelope.dump(
            {
                "data": {"message": phrase},
                "status": "error",
                "error": str(code),
                "message": re.sub(r"\W", "_", phrase),
                **envelope.common(request_id, None, time.time()),
            }
        )
        head = (
            f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase}\r\n"
            "Connection: close\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"X-Request-ID: {request_id}\r\n\r\n"
        )
        self._client.sendall(head.encode() + body)
