"""Makes and exports OpenTelemetry spans. `dtq.observe.tracing` imports this module only if tracing is on."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import datetime

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, StatusCode, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

LINE = 2**20  # bytes of buffer: a line is one write, so that processes can share the file
tracer = trace.get_tracer("dtq")
_next_id = ContextVar("_next_id", default=0)  # id of the next span; 0: a random one


class Ids(RandomIdGenerator):
    """Makes random span ids, except for spans that more than one process must know."""

    def generate_span_id(self) -> int:
        return _next_id.get() or super().generate_span_id()


def export(process: str, file: str | None, collector: bool) -> None:
    """Sends all spans of this process to a file, a collector or both; flushed when the process ends."""
    about = {"service.name": os.getenv("OTEL_SERVICE_NAME", "dtq"), "service.instance.id": process}
    provider = TracerProvider(resource=Resource.create(about), id_generator=Ids())
    if file:
        lines = open(file, "a", LINE)  # noqa: SIM115 - it stays open as long as the process lives
        writer = ConsoleSpanExporter(out=lines, formatter=lambda span: f"{span.to_json(None)}\n")
        provider.add_span_processor(SimpleSpanProcessor(writer))
    if collector:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", "200")  # ms; a `kill -9` loses the spans that wait
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def around(name: str, kind: SpanKind, parent: str | None) -> Iterator[dict[str, str]]:
    """A span around a block. Yields its `traceparent`. See `dtq.observe.tracing.span`."""
    context = None if parent is None else _context(parent)
    with tracer.start_as_current_span(name, context, kind) as span:
        own = span.get_span_context()
        ids = f"{format_trace_id(own.trace_id)}-{format_span_id(own.span_id)}"
        yield {"traceparent": f"00-{ids}-{own.trace_flags:02x}"}


def begin(
    name: str, kind: SpanKind, traceparent: str, about: Mapping[str, str | int],
    since: datetime | None = None, span_id: int = 0,
) -> Span:  # fmt: skip
    """Begins a span now, or at `since`, a time by Redis's clock, which may be ahead."""
    context = _context(traceparent)
    began = min(since.timestamp() if since else time.time(), time.time())
    token = _next_id.set(span_id)
    try:
        return tracer.start_span(name, context, kind, dict(about), start_time=int(began * 1e9))
    finally:
        _next_id.reset(token)


def current(span: Span) -> AbstractContextManager[Span]:
    """Makes a span the parent of those that a block begins; records an exception there as an event."""
    return trace.use_span(span, set_status_on_exception=False)


def end(span: Span, outcome: str, error: str | None, ended: float) -> None:
    """Ends the span of a run, at a `time.time`."""
    span.set_attribute("dtq.outcome", outcome)
    if error:
        span.set_status(StatusCode.ERROR, error)
    span.end(int(ended * 1e9))


def _context(traceparent: str) -> Context:
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
