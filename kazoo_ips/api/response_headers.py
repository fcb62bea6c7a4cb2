"""Response headers for security and caches.

Every reply contains the caller's token, so caches must not store it. The reverse proxy, which
terminates TLS, sets `Strict-Transport-Security`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
"""For replies that are no web page. The page of `/v2/docs` sets a policy of its own."""


def add_headers(wsgi: "WSGIApplication") -> "WSGIApplication":
    """Return middleware that adds each of the headers to replies that do not have it."""

    def call(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            present = {name for name, _ in headers}
            more = [header for header in (POLICY, *HEADERS) if header[0] not in present]
            return start(status, headers + more, exc_info)

        return wsgi(environ, started)

    return call
