"""What a task is, and what is true in Redis in each of its states."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

import msgspec

Priority = Literal["normal", "high"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
J = TypeVar("J")  # how payloads are held: msgspec.Raw (bytes as they came) or Any (Python values)


class Status(StrEnum):
    """The state of a task. Its id is in the Redis structure named beside the state, and in no other."""

    PENDING = "pending"  # tasks:pending, tasks:pending:high or tasks:parked: free to be claimed
    PROCESSING = "processing"  # tasks:processing: a worker holds it until its lease ends
    RETRYING = "retrying"  # tasks:delayed: an attempt failed; the next is due later
    SCHEDULED = "scheduled"  # tasks:delayed: submitted with a delay
    WAITING = "waiting"  # tasks:waiting: a parent is not completed yet
    COMPLETED = "completed"  # tasks:finished: its one result is stored
    CANCELLED = "cancelled"  # tasks:finished: will never run
    FAILED = "failed"  # tasks:dead_letter: a human decides


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt that ended badly."""

    attempt: int
    worker: str
    started_at: Moment
    ended_at: Moment
    outcome: Literal["failed", "timeout", "worker lost"]
    error: str | None = None


class Task(msgspec.Struct, Generic[J], kw_only=True):
    """A task as Redis holds it and as HTTP shows it.

    In Redis it is one JSON object whose last members are `data` and, once completed, `result`: the bytes as
    client and handler gave them. Times are seconds since the epoch in Redis, and ISO 8601 in UTC over HTTP.
    """

    id: str
    type: str
    priority: Priority = "normal"
    status: Status = Status.PENDING
    attempts: int = 0
    retry_count: int = 0
    crashes: int = 0
    worker_id: str | None = None
    created_at: Moment | None = None
    started_at: Moment | None = None
    completed_at: Moment | None = None
    due: Moment | None = None
    duration: float | None = None
    error: str | None = None
    history: list[Attempt] = []
    depends_on: list[str] = []
    max_retries: int | None = None
    timeout: float | None = None
    traceparent: str | None = None
    submitted_by: str | None = None
    data: J
    result: J = cast(Any, None)  # None until there is one; a union would not take raw bytes


Stored = Task[msgspec.Raw]
_stored = msgspec.json.Decoder(Stored, strict=False)
_plain = msgspec.json.Decoder(Task[Any], strict=False)


def parse(document: bytes) -> Stored:
    """A task from its JSON, with `data` and `result` left as the bytes they are."""
    return _stored.decode(document)


def parse_plain(document: bytes) -> Task[Any]:
    """A task from its JSON, with `data` and `result` as Python values."""
    return _plain.decode(document)


class NewTask(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A new task. Its JSON is the first form of the document, to which `submit.lua` adds status and time.

    Args:
        type: name of a handler.
        depends_on: ids of tasks that must be completed before this one starts.
        delay: seconds before it may start.
        max_retries, timeout: override those of its type; timeout in seconds.
        fingerprint: distinguishes different requests that were given the same id.
        data: the payload as JSON, kept byte for byte. It must stay the last member: the scripts split there.
    """

    id: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    type: str
    priority: Priority = "normal"
    depends_on: list[str] = []
    delay: float = 0.0
    max_retries: int | None = None
    timeout: float | None = None
    fingerprint: str | None = None
    traceparent: str | None = None
    submitted_by: str | None = None
    data: msgspec.Raw
