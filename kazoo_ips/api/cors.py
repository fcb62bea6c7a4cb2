"""Letting browsers call the API from other sites' pages, as Crossbar does (`api_util.erl`).

The token travels in a header that a page must know, never in a cookie, so any origin may ask.
"""

from flask import Response, current_app, g, request
from werkzeug.exceptions import MethodNotAllowed

_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": (
        "content-type, depth, user-agent, x-http-method-override, x-file-size, x-requested-with, "
        "if-modified-since, x-file-name, cache-control, x-auth-token, x-kazoo-cluster-id, "
        "if-match, if-none-match, authorization, idempotency-key, x-request-id"
    ),
    "Access-Control-Expose-Headers": (
        "content-type, x-auth-token, x-request-id, x-kazoo-cluster-id, location, etag, "
        "retry-after, idempotency-replayed"
    ),
    "Access-Control-Max-Age": "86400",
}


def preflight() -> Response | None:
    """The reply to what browsers ask beforehand, if this is that."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    known = isinstance(request.routing_exception, MethodNotAllowed)
    return Response(status=200) if known else None


def allow(response: Response) -> None:
    """Say in a reply what a page of another site may read of it."""
    if "HTTP_ORIGIN" in request.environ:
        response.headers.update(_HEADERS)
        response.headers["Access-Control-Allow-Methods"] = ", ".join(_methods())


def _methods() -> list[str]:
    """The methods of the path, whatever the request's own was."""
    if "allowed" not in g:
        adapter = current_app.create_url_adapter(request)
        g.allowed = adapter.allowed_methods(request.path) if adapter else []
    return ["OPTIONS", *sorted(set(g.allowed) - {"HEAD", "OPTIONS"})]
