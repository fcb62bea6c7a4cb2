"""Tracing: whether this process makes spans of its work, and where they go.

Spans are made if OpenTelemetry's own environment variables name an endpoint for them. Only then is
OpenTelemetry imported, by `spans.py`. Otherwise `tracer` and every `Work.span` are None, and the
checks for that are all that tracing costs.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from kazoo_ips.observability.request_context import Work

if TYPE_CHECKING:
    from kazoo_ips.observability.spans import Tracer

log = logging.getLogger(__name__)

_MAX_WAIT = 2.0
"""Seconds that the end of a process may be delayed, to export the last spans."""

tracer: "Tracer | None" = None
"""Makes the spans of this process, if there are any."""


def start() -> None:
    """Make spans of the work of this process from now on, if the environment asks for them.

    A worker calls it after the fork, because the thread that exports the spans would not survive
    that. Raises nothing: the service works without spans.
    """
    global tracer  # noqa: PLW0603 - one for each process
    if not _is_wanted(os.environ):
        return
    try:
        from kazoo_ips.observability.spans import Tracer  # noqa: PLC0415 - only if it is wanted

        tracer = Tracer()
        # OpenTelemetry would log a warning for each attempt while the collector is unreachable.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    except ImportError:
        log.error("no spans are made: OpenTelemetry is missing; install kazoo_ips[otel]")
    except Exception:  # OpenTelemetry raises various errors for values that it cannot use
        log.exception("no spans are made: OpenTelemetry cannot use the variables OTEL_...")


def stop() -> None:
    """Export the last spans, and make no more. Returns after 2 s at most."""
    global tracer  # noqa: PLW0603
    if tracer is not None:
        last = Thread(target=tracer.shut_down, name="last spans", daemon=True)
        tracer = None
        last.start()
        last.join(_MAX_WAIT)
        if last.is_alive():
            log.warning("the last spans were not exported: the collector does not accept them")


@contextmanager
def span(work: Work, name: str) -> Iterator[None]:
    """Make a span of work that is no request, inside this context, if spans are made.

    :param name: the same for all work of this kind
    """
    if tracer is not None:
        tracer.begin(work, name)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        if not isinstance(raised, SystemExit) or raised.code:
            error = raised
        raise
    finally:
        if work.span is not None:
            work.span.end(work, error)


def _is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for spans that this service can export."""
    if not (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    ):
        return False
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    protocol = (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    if (exporter, protocol) == ("otlp", "http/protobuf"):
        return True
    if exporter != "none":
        log.error("no spans are made: the only exporter is otlp, by http/protobuf")
    return False
