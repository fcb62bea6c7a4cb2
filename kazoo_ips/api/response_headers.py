"""Headers that tell browsers and caches what not to do with a reply.

Every reply repeats the caller's token, so none may be kept. `Strict-Transport-Security` is for
whoever speaks TLS, the reverse proxy.
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
"""A reply is no page. One that is brings a policy of its own."""


def guarded(wsgi: "WSGIApplication") -> "WSGIApplication":
    """The same application; its replies carry those of the headers that they do not have."""

    def call(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            there = {name for name, _ in headers}
            more = [header for header in (POLICY, *HEADERS) if header[0] not in there]
            return start(status, headers + more, exc_info)

        return wsgi(environ, started)

    return call
