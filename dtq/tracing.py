"""Tracing: the way of a task through all processes, as OpenTelemetry spans. An extra: `dtq[tracing]`.

On where the environment has `DTQ_TRACE_FILE` (JSON lines) or the standard `OTEL_EXPORTER_OTLP_ENDPOINT`; else
nothing is imported, and each hook is one `if`. A submission is one trace, and so is a batch of tasks:

    submit (client) > POST /tasks (gateway) > for each attempt a wait, and a run around the handler

The context travels as `traceparent` (https://www.w3.org/TR/trace-context/), in a header, then in the task.
Who is killed exports nothing more. So a run's id follows from task and attempt, and the worker that recovers
the task writes the lost run from its history, under the id that the dead worker's own spans have as parent.
A run is exported when the queue has heard of its end; one that it refuses as too late is in the trace as lost.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from hashlib import blake2b
from typing import Any

from dtq.errors import ConfigError
from dtq.report import Report, Verdict
from dtq.task import Attempt, Stored

FILE, COLLECTOR = "DTQ_TRACE_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT"
LINE = 2**20  # bytes of buffer: a line is one write, so that processes can share the file
_otel: Any = None  # the module `opentelemetry.trace` while tracing is on
_process, _running = "", dict[tuple[str, int], Any]()
_next_id = ContextVar("_next_id", default=0)  # of the next span; 0: a random one


def start(process: str) -> None:
    """Turns tracing on if the environment asks for it. The first call counts, and names this process."""
    global _otel, _process
    if not _otel and (os.getenv(FILE) or os.getenv(COLLECTOR)):
        try:
            from opentelemetry import trace

            trace.set_tracer_provider(_provider(process))  # it flushes when the process ends
        except (ModuleNotFoundError, OSError) as error:
            raise ConfigError(f"Tracing needs dtq[tracing], and a {FILE} to write to: {error}.") from None
        _otel, _process = trace, process


@contextmanager
def span(name: str, kind: str, headers: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """A span of a SpanKind around a block; its parent is what the headers name, without any the current span.
    Gives what the next process has to know: {"traceparent": …}, or {} while tracing is off.
    """
    if not _otel:
        yield {}
        return
    parent = None if headers is None else _context(headers.get("traceparent"))
    with _otel.get_tracer("dtq").start_as_current_span(name, parent, _otel.SpanKind[kind]) as current:
        own = current.get_span_context()
        yield {"traceparent": f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"}


@contextmanager
def run(task: Stored) -> Iterator[None]:
    """Around a handler: exports the wait, begins the run. A task that was submitted untraced stays so."""
    if not _otel or not task.traceparent:
        yield
        return
    last = task.history[-1] if task.history else None
    name, since = (f"wait after {last.outcome}", last.ended_at) if last else ("wait", task.created_at)
    _begin(name, task, task.attempts, since).end()
    _running[task.id, task.attempts] = begun = _begin(f"run {task.type}", task, task.attempts, None, _process)
    with _otel.use_span(begun, set_status_on_exception=False):
        yield


def end(task: Stored, report: Report | None = None, verdict: Verdict | None = None) -> None:
    """Ends the task's run, where there is one: reported, with this verdict, or given back."""
    begun = _running.pop((task.id, task.attempts), None)
    if begun and not (verdict and verdict.word == "stale"):
        outcome = getattr(report, "outcome", "completed" if report else "given back")
        age = time.monotonic() - report.ended if report else 0
        _end(begun, outcome, getattr(report, "error", None), time.time() - age)


def lost(task: Stored, past: Attempt) -> None:
    """Exports the run of a worker that is gone."""
    if _otel and task.traceparent:
        begun = _begin(f"run {task.type}", task, past.attempt, past.started_at, past.worker)
        _end(begun, past.outcome, past.error, past.ended_at.timestamp())


def _begin(name: str, task: Stored, attempt: int, since: datetime | None, worker: str = "") -> Any:
    """A span of a task: with a worker its run, else its wait."""
    about = {"messaging.message.id": task.id, "dtq.attempt": attempt} | ({"dtq.worker": worker} if worker else {})
    began = min(since.timestamp() if since else time.time(), time.time())  # `since` is by Redis's clock
    kind = _otel.SpanKind.CONSUMER if worker else _otel.SpanKind.INTERNAL
    run_id = int.from_bytes(blake2b(f"{task.id} {attempt}".encode(), digest_size=8).digest())
    token = _next_id.set(run_id if worker else 0)
    try:
        context, tracer = _context(task.traceparent), _otel.get_tracer("dtq")
        return tracer.start_span(name, context, kind, about, start_time=int(began * 1e9))
    finally:
        _next_id.reset(token)


def _end(begun: Any, outcome: str, error: str | None, at: float) -> None:
    begun.set_attribute("dtq.outcome", outcome)
    if error:
        begun.set_status(_otel.StatusCode.ERROR, error)
    begun.end(int(at * 1e9))


def _context(traceparent: str | None) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _provider(process: str) -> Any:
    from opentelemetry.sdk import resources, trace
    from opentelemetry.sdk.trace import export
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_span_id(self) -> int:
            return _next_id.get() or super().generate_span_id()

    names = {"service.name": os.getenv("OTEL_SERVICE_NAME", "dtq"), "service.instance.id": process}
    provider = trace.TracerProvider(resource=resources.Resource.create(names), id_generator=Ids())
    if path := os.getenv(FILE):
        lines = open(path, "a", LINE)  # noqa: SIM115 - it stays open as long as the process lives
        writer = export.ConsoleSpanExporter(out=lines, formatter=lambda span: f"{span.to_json(None)}\n")
        provider.add_span_processor(export.SimpleSpanProcessor(writer))
    if os.getenv(COLLECTOR):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", "200")  # ms: what a `kill -9` may lose
        provider.add_span_processor(export.BatchSpanProcessor(OTLPSpanExporter()))
    return provider
