"""The WSGI middleware, and the hooks before and after each handler.

The middleware times, counts and logs the request, and adds the response headers for security and
caches. The log line contains no secret: no header, no body, and of the query only the values of
parameters that are never secret.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from time import perf_counter, time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface

from kazoo_ips.api import cors, envelope, rate_limits, routes
from kazoo_ips.api.client_address import client_address
from kazoo_ips.api.content_coding import compress
from kazoo_ips.observability import request_context, tracing
from kazoo_ips.observability.logs import MASK
from kazoo_ips.observability.request_context import Work

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from kazoo_ips.observability.spans import Tracer, WorkSpan

log = logging.getLogger("kazoo_ips.requests")

Count = Callable[[str, str, str, float], None]

UNMATCHED, UNREADABLE = "unmatched", "unreadable"
"""What the log and the metrics have as the route if no route matches path and method, and if
gunicorn could not read the bytes as an HTTP request."""

HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
"""Headers that are added to every reply that does not have them.

A reply contains the caller's token, so caches must not store it. The reverse proxy, which
terminates TLS, sets `Strict-Transport-Security`.
"""
POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
"""A header for replies that are not a web page. A page sets its own policy."""

PAGES = "/console"
"""The path of the web pages. They have no envelope, and other origins may not call them."""

_LOGGED_PARAMETERS = {
    "zone", "host", "quantity", "page_size", "start_key", "paginate", "force", "verb",
    "dry_run", "status", "account_id", "cidr", "family", "modified_from", "filter_zone",
    "filter_host", "filter_status", "filter_assigned_to", "since", "limit", "feed", "timeout",
}  # fmt: skip
_LINES = {
    level: vars(log.makeRecord(log.name, level, __file__, 0, "request", (), None))
    for level in (logging.INFO, logging.ERROR)
}
"""The members of a log record that are the same for all requests, by level."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_PLAIN = re.compile(r"[a-zA-Z0-9/.:_-]*")
_TOKEN = re.compile(r"eyJ[\w.-]+")


def init_app(app: Flask, clock: Callable[[], float], count: Count) -> None:
    """Add the middleware and the hooks to the application.

    :param clock: returns the time in Unix seconds
    :param count: called with the route, method, status and seconds of each request
    """
    app.extensions["kazoo_ips_count"] = count
    app.session_interface = _NoSessions()
    app.wsgi_app = wrap(app.wsgi_app, count)  # type: ignore[method-assign, assignment]

    # One hook before and one after each request: Flask takes time for every hook.
    @app.before_request
    def before() -> Response | None:
        current = request_context.CURRENT.get()
        assert current is not None
        incoming, state = envelope.request_and_state()
        state.request_id, state.clock = current.request_id, clock
        if _is_page(incoming):
            return None
        reply = cors.preflight() if incoming.method == "OPTIONS" else None
        if reply is None:
            routes.read_request(app)
        return reply

    app.after_request(_after)


def _after(response: Response) -> Response:
    """Complete a reply, and add route and client to the request context."""
    incoming, state = envelope.request_and_state()
    environ, rule = incoming.environ, incoming.url_rule
    if "HTTP_ACCEPT_ENCODING" in environ and not state.get("is_kept_open"):
        compress(incoming, response)
    if "HTTP_ORIGIN" in environ and not _is_page(incoming):
        cors.add_headers(response)
    current = request_context.CURRENT.get()
    if current is not None:
        current.route = _route(rule.rule) if rule else UNMATCHED
        if "HTTP_X_FORWARDED_FOR" in environ or ":" in environ.get("REMOTE_ADDR", ""):
            current.client = client_address(incoming)
        if "balances" in state:
            rate_limits.add_headers(response, state.balances)
    return response


def _is_page(incoming: Request) -> bool:
    return incoming.path == PAGES or incoming.path.startswith(f"{PAGES}/")


class _NoSessions(SessionInterface):
    """Disables Flask's sessions: each request has its token, so cookies need not be read."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the empty session, the same for all requests."""
        return self._empty

    def is_null_session(self, obj: object) -> bool:
        """Return True: no session is ever saved."""
        return True

    _empty = NullSession()


@cache
def _route(rule: str) -> str:
    """Return a Flask rule with its variables in braces, as the documentation writes them."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def log_unreadable(app: Flask, status: int, request_id: str, client: str, error: str) -> None:
    """Count and log bytes that gunicorn could not read as a request.

    :param client: the client's address
    :param error: the name of the error's class; its text could quote a secret
    """
    app.extensions["kazoo_ips_count"](UNREADABLE, "other", str(status), 0.0)
    current = request_context.begin(request_id)
    current.route = UNREADABLE
    current.notes.append(error)
    _write(current, {"REMOTE_ADDR": client}, status, 0.0)


def wrap(wsgi: "WSGIApplication", count: Count) -> "WSGIApplication":
    """Return the application with the middleware around it."""

    def call(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        started, traceparent = perf_counter(), environ.get("HTTP_TRACEPARENT", "")
        current = request_context.begin(_request_id(environ), traceparent=traceparent)
        _keep_encoded_slashes(environ)
        if tracing.tracer is not None:
            _begin_span(tracing.tracer, current, environ)
        status = "500"

        def start_response(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal status
            status = line[:3]
            return start(line, headers + _missing(headers, current.request_id), exc_info)

        def finish() -> None:
            seconds = perf_counter() - started
            route = current.route or UNMATCHED
            count(route, environ["REQUEST_METHOD"], status, seconds)
            if current.span is not None:
                _end_span(current.span, current, environ, int(status))
            _write(current, environ, int(status), seconds)

        try:
            return _Body(wsgi(environ, start_response), current, finish)
        except BaseException:
            finish()
            raise

    return call


def _request_id(environ: "WSGIEnvironment") -> str:
    """Return the client's X-Request-ID if it is valid, or a random id."""
    sent: str = environ.get("HTTP_X_REQUEST_ID", "")
    return sent if _REQUEST_ID.fullmatch(sent) else request_context.random_id()


def _missing(headers: list[tuple[str, str]], request_id: str) -> list[tuple[str, str]]:
    """Return the headers that a reply does not have yet."""
    present = {name for name, _ in headers}
    missing = [header for header in (POLICY, *HEADERS) if header[0] not in present]
    return [*missing, ("X-Request-ID", request_id)]


def _begin_span(tracer: "Tracer", current: Work, environ: "WSGIEnvironment") -> None:
    tracer.begin_request(
        current,
        environ["REQUEST_METHOD"],
        environ["wsgi.url_scheme"],
        _path(environ).partition("?")[0],
        environ.get("HTTP_TRACEPARENT", ""),
        environ.get("HTTP_TRACESTATE", ""),
    )


def _end_span(span: "WorkSpan", current: Work, environ: "WSGIEnvironment", status: int) -> None:
    route = None if current.route == UNMATCHED else current.route
    client = current.client or environ.get("REMOTE_ADDR", "")
    span.end_request(current, environ["REQUEST_METHOD"], route, status, client)


def _keep_encoded_slashes(environ: "WSGIEnvironment") -> None:
    """Keep an encoded slash within its path segment, if the server passes the path undecoded."""
    path = environ.get("RAW_URI", "").partition("?")[0]
    if path.startswith("/") and "%2f" in path.lower():
        kept = re.sub("%2f", "%252F", path, flags=re.IGNORECASE)
        environ["PATH_INFO"] = unquote_to_bytes(kept).decode("latin-1")


class _Body:
    """The parts of a reply. The server calls `close` after the last part or after an error."""

    __slots__ = ("_current", "_finish", "_parts")

    def __init__(self, parts: Iterable[bytes], current: Work, finish: Callable[[], None]) -> None:
        self._parts = parts
        self._current = current
        self._finish = finish

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._parts
        except BaseException:
            self._current.notes.append("aborted")
            raise

    def close(self) -> None:
        """Close the reply, and log the request."""
        try:
            close = getattr(self._parts, "close", None)
            if close:
                close()
        finally:
            self._finish()


def _write(current: Work, environ: "WSGIEnvironment", status: int, seconds: float) -> None:
    level = logging.ERROR if status >= 500 else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "request_id": current.request_id,
        "method": environ.get("REQUEST_METHOD", ""),
        "route": current.route or UNMATCHED,
        "path": _path(environ),
        "status": status,
        "duration_ms": round(seconds * 1000, 3),
        "account_id": current.account_id,
        "user_id": current.user_id,
        "client": current.client or environ.get("REMOTE_ADDR", ""),
        "couchdb_calls": current.calls,
        "couchdb_ms": round(current.seconds * 1000, 3),
    }
    if current.calls and not current.request_id.startswith(current.couchdb_id):
        fields["couchdb_request_id"] = current.couchdb_id
    if current.trace_id:
        fields["trace_id"] = current.trace_id
        if current.parent_id:
            fields["parent_id"] = current.parent_id
        if current.span is not None:
            fields["span_id"] = current.span.id
    if current.shared:
        fields["couchdb_shared"] = current.shared
    if current.notes:
        fields["notes"] = current.notes
    # Like log.log(), but without the search for the calling line and for the parts of its path.
    record = logging.LogRecord.__new__(logging.LogRecord)
    vars(record).update(_LINES[level], created=time(), fields=fields)
    log.handle(record)


def _path(environ: "WSGIEnvironment") -> str:
    """Return the path as it was sent, and the query with values masked."""
    path = environ.get("PATH_INFO", "")
    if not _PLAIN.fullmatch(path):
        path = quote(path, safe="/:@,;+$!*'()~", encoding="latin-1")
    if "eyJ" in path:
        path = _TOKEN.sub(MASK, path)
    query = environ.get("QUERY_STRING")
    return f"{path}?{_masked_query(query)}" if query else path


def _masked_query(query: str) -> str:
    """Return the query, with the values of all parameters masked that could be secret."""
    with suppress(ValueError):
        pairs = parse_qsl(query, keep_blank_values=True)
        return "&".join(_masked_parameter(name, value) for name, value in pairs)
    return MASK


def _masked_parameter(name: str, value: str) -> str:
    if name in _LOGGED_PARAMETERS and "eyJ" not in value:
        return f"{name}={quote(value)}"
    # An unusual name may be a secret that was sent without a parameter name.
    return f"{name}={MASK}" if re.fullmatch("[a-z_]{1,20}", name) else MASK
