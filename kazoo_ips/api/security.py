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
    """The same application, every reply of which carries them."""

    def call(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            names = {name for name, _ in headers}
            more = [POLICY, *HEADERS] if POLICY[0] not in names else HEADERS
            return start(status, headers + more, exc_info)

        return wsgi(environ, started)

    return call
