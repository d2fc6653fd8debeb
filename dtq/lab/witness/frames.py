"""Tasks as pandas frames. Times are UTC, durations seconds, and the unit is in the column's name."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from dtq.queue.task import Status, Task

ATTEMPT_COLUMNS = [
    "number", "task_id", "type", "priority", "attempt", "worker", "created_at", "started_at", "ended_at",
    "outcome",
]  # fmt: skip
TASK_COLUMNS = [
    "number", "task_id", "type", "priority", "status", "attempts", "retry_count", "crashes", "worker",
    "created_at", "started_at", "completed_at", "run_s",
]  # fmt: skip
NEVER = datetime.max.replace(tzinfo=UTC)


def attempts(tasks: Iterable[Task[Any]]) -> pd.DataFrame:
    """One row per attempt, in order of start: those of the history that ended badly, and the last one.

    Args:
        tasks: in the order of their submission, which decides between those with the same time.

    Returns:
        A frame with number (1 is the task submitted first), task_id, type, priority, attempt, worker,
        created_at, started_at, ended_at (UTC), outcome (completed, failed, timeout, worker lost, processing),
        wait_s (from submission, or from the end of the attempt before, to the start), run_s, and start_s and
        end_s, which count from the frame's first submission. An attempt that has not ended has no end.
    """
    rows = [(number, *row) for number, task in _numbered(tasks) for row in _attempts(task)]
    frame = _framed(rows, ATTEMPT_COLUMNS).sort_values(["started_at", "number"], ignore_index=True)
    zero = frame["created_at"].min()
    ready = frame.groupby("task_id")["ended_at"].shift().fillna(frame["created_at"])
    frame["wait_s"] = _seconds(frame["started_at"] - ready)
    frame["run_s"] = _seconds(frame["ended_at"] - frame["started_at"])
    frame["start_s"] = _seconds(frame["started_at"] - zero)
    frame["end_s"] = _seconds(frame["ended_at"] - zero)
    return frame


def tasks(tasks: Iterable[Task[Any]]) -> pd.DataFrame:
    """One row per task, in order of submission.

    Args:
        tasks: in the order of their submission, which decides between those with the same time.

    Returns:
        A frame with number (1 is the task submitted first), task_id, type, priority, status, attempts,
        retry_count, crashes, worker (of the last attempt), created_at, started_at (of the first attempt),
        completed_at (UTC), run_s (in the handler), wait_s (from submission to the first start) and latency_s
        (from submission to the end).
    """
    frame = _framed([(number, *_task(task)) for number, task in _numbered(tasks)], TASK_COLUMNS)
    frame["run_s"] = frame["run_s"].astype("float64")
    frame["wait_s"] = _seconds(frame["started_at"] - frame["created_at"])
    frame["latency_s"] = _seconds(frame["completed_at"] - frame["created_at"])
    return frame


def _numbered(tasks: Iterable[Task[Any]]) -> Iterator[tuple[int, Task[Any]]]:
    return enumerate(sorted(tasks, key=lambda task: task.created_at or NEVER), 1)


def _attempts(task: Task[Any]) -> Iterator[tuple[object, ...]]:
    for past in task.history:
        yield (
            *(task.id, task.type, task.priority, past.attempt, past.worker),
            *(task.created_at, past.started_at, past.ended_at, past.outcome),
        )
    if task.status in (Status.COMPLETED, Status.PROCESSING):
        yield (
            *(task.id, task.type, task.priority, task.attempts, task.worker_id),
            *(task.created_at, task.started_at, task.completed_at, str(task.status)),
        )


def _task(task: Task[Any]) -> tuple[object, ...]:
    started = task.history[0].started_at if task.history else task.started_at
    return (
        *(task.id, task.type, task.priority, str(task.status), task.attempts, task.retry_count, task.crashes),
        *(task.worker_id, task.created_at, started, task.completed_at, task.duration),
    )


def _framed(rows: list[tuple[object, ...]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns)
    for name in columns:
        if name.endswith("_at"):  # also if no row has a time, or there is no row
            frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame


def _seconds(delta: "pd.Series[pd.Timedelta]") -> "pd.Series[float]":
    return delta.dt.total_seconds()
