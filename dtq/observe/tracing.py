"""Tracing: follows a task through all processes with OpenTelemetry spans. An extra: `dtq[tracing]`.

It is on if the environment has `DTQ_TRACE_FILE` (JSON lines) or the standard `OTEL_EXPORTER_OTLP_ENDPOINT`.
Otherwise dtq does not import OpenTelemetry, and each hook is one `if`. One submission, also of many tasks, is
one trace:

    submit (client) > POST /tasks (gateway) > for each attempt a wait, and a run around the handler

The context travels as `traceparent` (https://www.w3.org/TR/trace-context/), in a header, then in the task.
A killed worker exports no more spans. So the id of a run's span is computed from task and attempt: the worker
that recovers the task exports the lost run from the task's history, under the id that the dead worker's own
spans have as parent. A run is exported when the queue has accepted its report; a run whose report is refused
as too late was already exported as lost.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from hashlib import blake2b
from typing import Any

from dtq.errors import ConfigError
from dtq.queue.reports import Verdict
from dtq.queue.task import Attempt, Stored

FILE, COLLECTOR = "DTQ_TRACE_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT"
_otel: Any = None  # the module `dtq.observe.otel` while tracing is on
_process = ""
_running = dict[tuple[str, int], Any]()  # id, attempt -> span


def start(process: str) -> None:
    """Turns tracing on if the environment asks for it. The first call counts, and names this process.

    Raises:
        ConfigError: OpenTelemetry is not installed, or the file cannot be written.
    """
    global _otel, _process
    file, collector = os.getenv(FILE), os.getenv(COLLECTOR)
    if not _otel and (file or collector):
        try:
            from dtq.observe import otel

            otel.export(process, file, bool(collector))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"Tracing was asked for, but the extra dtq[tracing] is missing: {error}."
            ) from None
        except OSError as error:
            raise ConfigError(f"{FILE}={file!r} cannot be written: {error.strerror}.") from None
        _otel, _process = otel, process


def span(name: str, kind: str, parent: str | None = None) -> AbstractContextManager[dict[str, str]]:
    """A span around a block. Yields the headers for the next process: {"traceparent": …}, or {} if it is off.

    Args:
        kind: its SpanKind.
        parent: a `traceparent`, or "" for a new trace; by default the span around it.
    """
    return _otel.around(name, _otel.SpanKind[kind], parent) if _otel else nullcontext({})


def run(task: Stored) -> AbstractContextManager[None]:
    """A block around a handler: exports the wait, begins the run. A task submitted untraced stays so."""
    return _run(task) if _otel and task.traceparent else nullcontext()


@contextmanager
def _run(task: Stored) -> Iterator[None]:
    last = task.history[-1] if task.history else None
    name, since = (f"wait after {last.outcome}", last.ended_at) if last else ("wait", task.created_at)
    about = {"messaging.message.id": task.id, "dtq.attempt": task.attempts}
    _otel.begin(name, _otel.SpanKind.INTERNAL, task.traceparent, about, since).end()
    _running[task.id, task.attempts] = begun = _begin(task, task.attempts, _process)
    with _otel.current(begun):
        yield


def end_reported(verdict: Verdict) -> None:
    """Ends the run that was reported. If the queue refused the report, the run was exported as lost."""
    report = verdict.report
    begun = _take(report.task)
    if begun and verdict.word != "stale":
        outcome, error = getattr(report, "outcome", "completed"), getattr(report, "error", None)
        _otel.end(begun, outcome, error, time.time() - (time.monotonic() - report.ended))


def end_given_back(task: Stored) -> None:
    """Ends the run of a task that the worker gave back."""
    if begun := _take(task):
        _otel.end(begun, "given back", None, time.time())


def end_lost(task: Stored, past: Attempt) -> None:
    """Exports the run of a lost worker, from the task's history."""
    if _otel and task.traceparent:
        begun = _begin(task, past.attempt, past.worker, past.started_at)
        _otel.end(begun, past.outcome, past.error, past.ended_at.timestamp())


def _take(task: Stored) -> Any:
    """The run of the task in this process, if it is traced."""
    return _otel and _running.pop((task.id, task.attempts), None)


def _begin(task: Stored, attempt: int, worker: str, since: datetime | None = None) -> Any:
    about = {"messaging.message.id": task.id, "dtq.attempt": attempt, "dtq.worker": worker}
    span_id = int.from_bytes(blake2b(f"{task.id} {attempt}".encode(), digest_size=8).digest())
    kind = _otel.SpanKind.CONSUMER
    return _otel.begin(f"run {task.type}", kind, task.traceparent, about, since, span_id)
