"""A receiver of OpenTelemetry's spans: OTLP over HTTP, on a free port."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.timing import eventually


@dataclass(frozen=True)
class Span:
    """A span as it was received; ids are hexadecimal."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    failed: bool
    begin: int
    end: int
    resource: dict[str, Any]


class Collector:
    """Keeps the spans that it has received."""

    def __init__(self) -> None:
        collector = self
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                collector.bodies.append(body)
                collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that have arrived."""
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def of_work(self, request_id: str) -> tuple[Span, list[Span]]:
        """Wait for the span of a unit of work; return it and its children.

        The children end before it, so they arrive with it or before it.
        """
        found: list[Span] = []

        def has_arrived() -> bool:
            found[:] = [
                span
                for span in list(self.spans)
                if span.attributes.get("kazoo_ips.request_id") == request_id
            ]
            return bool(found)

        assert eventually(has_arrived), f"no span of {request_id}"
        [own] = found
        return own, [span for span in self.spans if span.parent_id == own.span_id]


def _spans(request: ExportTraceServiceRequest) -> Iterable[Span]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    trace_state=span.trace_state,
                    links=tuple(link.span_id.hex() for link in span.links),
                    attributes=_attributes(span.attributes),
                    failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    begin=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    resource=resource,
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
