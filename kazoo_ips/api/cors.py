"""CORS: pages of other origins may call the API in a browser, as with Crossbar (`api_util.erl`).

Every origin is allowed: a page has to send the token itself, because no cookie contains it.
"""

from flask import Response, current_app, g, request

_ALL = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": (
        "content-type, depth, user-agent, x-http-method-override, x-file-size, x-requested-with, "
        "if-modified-since, x-file-name, cache-control, x-auth-token, x-kazoo-cluster-id, "
        "if-match, if-none-match, authorization, idempotency-key, x-request-id, traceparent, "
        "tracestate, content-encoding, last-event-id"
    ),
    "Access-Control-Expose-Headers": (
        "content-type, x-auth-token, x-request-id, x-kazoo-cluster-id, location, etag, link, "
        "retry-after, ratelimit, ratelimit-policy, idempotency-replayed"
    ),
    "Access-Control-Max-Age": "86400",
}


def preflight() -> Response | None:
    """Return the reply to a preflight request; None for another OPTIONS request.

    An unknown path gets the same reply. Otherwise a browser would report a CORS error instead of
    the 404 that follows.
    """
    if "Access-Control-Request-Method" not in request.headers:
        return None
    return Response(status=200)


def add_headers(response: Response) -> None:
    """Add the CORS headers to the reply to a request with an Origin header."""
    response.headers.update(_HEADERS)
    response.headers["Access-Control-Allow-Methods"] = ", ".join(_methods())


def _methods() -> list[str]:
    """Return the methods that the request's path allows; all methods for an unknown path."""
    if "allowed" not in g:
        adapter = current_app.create_url_adapter(request)
        g.allowed = adapter.allowed_methods(request.path) if adapter else []
    return ["OPTIONS", *sorted(set(g.allowed or _ALL) - {"OPTIONS"})]
