"""Tasks with a past that a test makes up, in seconds after a start."""

from datetime import UTC, datetime, timedelta
from typing import Any

from dtq.queue.task import Status, Task

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after the start."""
    return START + timedelta(seconds=seconds)


def made(id: str, created: float, **fields: Any) -> Task[Any]:
    """A task that was submitted `created` seconds after the start."""
    return Task(id=id, type="sleep", data=None, created_at=at(created), **fields)


def done(id: str, created: float, started: float, ended: float, **fields: Any) -> Task[Any]:
    """A task whose only or last attempt began and ended so many seconds after the start."""
    own = {"attempts": 1, "worker_id": "worker-1"} | fields
    times = {"started_at": at(started), "completed_at": at(ended), "duration": ended - started}
    return made(id, created, status=Status.COMPLETED, **times, **own)
