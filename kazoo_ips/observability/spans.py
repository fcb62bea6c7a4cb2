"""Spans of OpenTelemetry: of requests, of background rounds and commands, and of their requests to
CouchDB.

The only module that imports OpenTelemetry. `tracing.py` imports it if spans are wanted. Names of
attributes are those of OpenTelemetry's semantic conventions, or begin with `kazoo_ips.`. Spans
contain no secret: no header, no body, no query.

The spans of requests to CouchDB have their parent from `Work`, which threads that help with a
request share. OpenTelemetry's own current span is not used.
"""

from collections.abc import Sequence
from importlib.metadata import version
from time import time_ns
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace import Tracer as OTelTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from kazoo_ips.observability import metrics
from kazoo_ips.observability.request_context import Work

_W3C = TraceContextTextMapPropagator()
_FAILED = frozenset({"refused", "failed", "no_answer"})
"""Outcomes of requests to CouchDB that are errors. Missing documents and conflicts are not errors:
the service expects them."""


class Tracer:
    """Makes spans, and exports them in a thread of its own, in batches.

    That thread alone waits for the collector. If spans end faster than it takes them, spans are
    dropped. The variables `OTEL_…` of the environment configure everything.
    """

    def __init__(self) -> None:
        ours = version("kazoo_ips")
        named = OTELResourceDetector().detect().attributes
        resource = Resource.create({"service.name": "kazoo_ips", "service.version": ours, **named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("kazoo_ips", ours)

    def begin_request(  # noqa: PLR0913, PLR0917 - one for each part of a request
        self, work: Work, method: str, scheme: str, path: str, traceparent: str, tracestate: str
    ) -> None:
        """Begin the span of a request, if it is sampled.

        The sampler sees the flag of `traceparent`. If the client has named no trace, the request's
        trace is that of the span.

        :param path: without query
        """
        parent = Context()
        if work.trace_id:  # the header is valid
            carrier = {"traceparent": traceparent, "tracestate": tracestate}
            parent = _W3C.extract(carrier, parent)
        known = method in metrics.METHODS
        attributes = {
            "http.request.method": method if known else "_OTHER",
            "url.scheme": scheme,
            "url.path": path,
        }
        if not known:
            attributes["http.request.method_original"] = method
        span = self._tracer.start_span(
            method if known else "HTTP", parent, SpanKind.SERVER, attributes
        )
        if span.is_recording():
            work.span = WorkSpan(self._tracer, span)
            if not work.trace_id:
                work.trace_id = format_trace_id(span.get_span_context().trace_id)
                work.rename(work.request_id)

    def begin(self, work: Work, name: str) -> None:
        """Begin the span of work that is no request, if it is sampled. It begins a trace."""
        span = self._tracer.start_span(name, Context())
        if span.is_recording():
            work.span = WorkSpan(self._tracer, span)

    def shut_down(self) -> None:
        """Export the spans that have ended, and end the thread."""
        self._provider.shutdown()


class WorkSpan:
    """The span of a unit of work. Threads that help with the work may use it."""

    def __init__(self, tracer: OTelTracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())
        self.id = format_span_id(span.get_span_context().span_id)
        """16 hexadecimal digits."""

    def add_call(  # noqa: PLR0913, PLR0917 - one for each part of a request
        self,
        method: str,
        address: tuple[str, int],
        path: str,
        request_id: str,
        status: int,
        seconds: float,
    ) -> None:
        """Add a request to CouchDB that has just ended.

        :param address: CouchDB's host and port
        :param path: below CouchDB's root, with the query
        :param request_id: its id in CouchDB's log
        :param status: as for `Metrics.count_call`
        """
        path = "/" + path.partition("?")[0]
        kind = metrics.kind(method, path)
        outcome = metrics.outcome(kind, status)
        database, route = _route(path)
        operation = f"{method} {route}"
        attributes: dict[str, AttributeValue] = {
            "db.system.name": "couchdb",
            "db.operation.name": operation,
            "server.address": address[0],
            "server.port": address[1],
            "kazoo_ips.couchdb.kind": kind,
            "kazoo_ips.couchdb.outcome": outcome,
            "kazoo_ips.couchdb.request_id": request_id,
        }
        if database:
            attributes["db.namespace"] = database
        if status > 0:
            attributes["db.response.status_code"] = str(status)
        self._add_child(operation, SpanKind.CLIENT, attributes, seconds, outcome in _FAILED)

    def add_shared(self, sent_as: str, sender: "WorkSpan | None", seconds: float) -> None:
        """Add the wait for a request to CouchDB that another unit of work has sent.

        :param sent_as: the beginning of that request's id in CouchDB's log
        :param sender: the span of the other work, if it has one
        """
        attributes: dict[str, AttributeValue] = {"kazoo_ips.couchdb.request_id": sent_as}
        links = [Link(sender._span.get_span_context())] if sender else []
        self._add_child("shared request", SpanKind.INTERNAL, attributes, seconds, links=links)

    def end_request(
        self, work: Work, method: str, route: str | None, status: int, client: str
    ) -> None:
        """End the span of a request.

        :param route: the rule of the route, if there is one
        """
        attributes: dict[str, AttributeValue] = {
            "http.response.status_code": status,
            "client.address": client,
        }
        if route:
            attributes["http.route"] = route
            self._span.update_name(f"{method} {route}")
        self._span.set_attributes(attributes)
        self._end(work, str(status) if status >= 500 else None)

    def end(self, work: Work, error: BaseException | None) -> None:
        """End the span of work that is no request.

        It is exported only if it has sent a request to CouchDB, or has failed: the background
        worker looks for work every second.
        """
        if work.calls or error is not None:
            self._end(work, type(error).__qualname__ if error is not None else None)

    def _end(self, work: Work, error: str | None) -> None:
        attributes: dict[str, AttributeValue] = {"kazoo_ips.request_id": work.request_id}
        for name in ("account_id", "user_id", "command"):
            value = getattr(work, name)
            if value:
                attributes[f"kazoo_ips.{name}"] = value
        if work.notes:
            attributes["kazoo_ips.notes"] = work.notes
        self._span.set_attributes(attributes)
        _mark(self._span, error)
        self._span.end()

    def _add_child(  # noqa: PLR0913, PLR0917
        self,
        name: str,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        seconds: float,
        failed: bool = False,
        links: Sequence[Link] = (),
    ) -> None:
        now = time_ns()
        span = self._tracer.start_span(
            name, self._context, kind, attributes, links, now - int(seconds * 1e9)
        )
        if failed:
            code = attributes.get("db.response.status_code")
            _mark(span, str(code or attributes["kazoo_ips.couchdb.outcome"]))
        span.end(now)


def _mark(span: Span, error: str | None) -> None:
    """Mark a span as failed, if there is an error.

    :param error: its class, or a status
    """
    if error:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)


def _route(path: str) -> tuple[str, str]:
    """Return the database of a path of CouchDB, and its route as CouchDB documents it.

    >>> _route("/account%2F31%2Fb6%2F0f/_design/ips/_view/by_zone")
    ('account/31/b6/0f', '/{db}/_design/{ddoc}/_view/{view}')
    """
    database, *rest = path.strip("/").split("/")
    if not database or database.startswith("_"):
        return "", f"/{database}"
    route = "/{db}"
    match rest:
        case []:
            pass
        case ["_design", _, "_view", *_]:
            route += "/_design/{ddoc}/_view/{view}"
        case ["_design", *_]:
            route += "/_design/{ddoc}"
        case ["_local", *_]:
            route += "/_local/{docid}"
        case [name, *_] if name.startswith("_"):
            route += f"/{name}"
        case _:
            route += "/{docid}"
    return unquote(database), route
