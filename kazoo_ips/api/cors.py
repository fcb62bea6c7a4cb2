"""CORS: pages of other origins may call the API in a browser, as with Crossbar (`api_util.erl`).

Every origin is allowed. A page must know the token, because no cookie carries it.
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
    """Return the reply to a preflight request; None for other requests and unknown paths."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    path_exists = isinstance(request.routing_exception, MethodNotAllowed)
    return Response(status=200) if path_exists else None


def add_headers(response: Response) -> None:
    """Add the CORS headers to the reply, if the request has an Origin header."""
    if "HTTP_ORIGIN" in request.environ:
        response.headers.update(_HEADERS)
        response.headers["Access-Control-Allow-Methods"] = ", ".join(_methods())


def _methods() -> list[str]:
    """Return the methods that the request's path allows."""
    if "allowed" not in g:
        adapter = current_app.create_url_adapter(request)
        g.allowed = adapter.allowed_methods(request.path) if adapter else []
    return ["OPTIONS", *sorted(set(g.allowed) - {"HEAD", "OPTIONS"})]
