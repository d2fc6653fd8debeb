"""What the calls take and give. Pydantic checks what they take; msgspec writes what they give, and keeps the
bytes of each payload.
"""

import re
from collections import Counter
from datetime import datetime
from itertools import accumulate
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from flask import Response, abort, request
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from dtq.queue.bounds import PARENTS
from dtq.queue.task import Priority, Status, Stored
from dtq.queue.worker_info import WorkerInfo

BODY_LIMIT, DEPTH_LIMIT = 2**20, 32  # bytes of a body, levels of a payload
STRING, NO_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL), bytes(set(range(256)) - set(b"[]{}"))
NOSNIFF = {"X-Content-Type-Options": "nosniff"}
OWN_WORDS = ("missing", "extra_forbidden", "value_error")  # errors whose texts need no value beside them
M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", "TaskRequest", "BatchRequest")


def _each_once(parents: list[str]) -> list[str]:
    [(most, times)] = Counter(parents).most_common(1) or [("", 1)]
    if times > 1:
        raise ValueError(f"Each task may be named once, and {most} is named {times} times")
    return parents


Name = Annotated[str, Field(min_length=1, max_length=100)]
Ids = Annotated[list[Name], BeforeValidator(lambda text: text.split(",")), Field(max_length=1000)]
Parents = Annotated[
    list[Name],
    Field(max_length=PARENTS, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_each_once),
]
members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode  # of two with one name the last, as in Python


class TaskRequest(BaseModel, extra="forbid", strict=True):
    """A task to submit."""

    type: Name = Field(description="name of a handler")
    data: Any = Field(description="any JSON, at most 32 levels deep, kept byte for byte")
    priority: Priority = "normal"
    depends_on: Parents = Field([], description="ids of tasks to be completed before, each once")
    delay: float = Field(0.0, ge=0, le=30 * 86400, description="seconds before it may start")
    max_retries: int | None = Field(None, ge=0, le=100, description="instead of its type's")
    timeout: float | None = Field(None, gt=0, le=86400, description="seconds, instead of its type's")

    def keep_bytes(self, text: bytes | msgspec.Raw) -> None:
        """Makes `data` the bytes in this text of the task: decoding and encoding would change them."""
        self.data = members(text)["data"]

    def given(self) -> dict[str, Any]:
        """The fields that the client has set."""
        return self.model_dump(exclude={"data"}, exclude_defaults=True) | {"data": self.data}


class BatchRequest(BaseModel, extra="forbid", strict=True):
    """Tasks to submit, all or none."""

    tasks: list[TaskRequest] = Field(min_length=1, max_length=1000)

    def keep_bytes(self, text: bytes) -> None:
        """Does the same for each task in this text of the batch."""
        texts = msgspec.json.decode(members(text)["tasks"], type=list[msgspec.Raw])
        for task, its_text in zip(self.tasks, texts, strict=True):
            task.keep_bytes(its_text)


class TasksQuery(BaseModel, extra="forbid"):
    """Says which tasks to list."""

    status: Status | None = None
    type: Name | None = None
    limit: int = Field(50, ge=1, le=1000)
    ids: Ids | None = Field(None, description="comma-separated: these in this order, unknown ones left out")


class StatsQuery(BaseModel, extra="forbid"):
    """Says which time the figures cover."""

    window: float = Field(60, ge=1, le=3600, description="seconds")


class Submitted(msgspec.Struct, kw_only=True):
    """What became of a task; `warning` is left out where there is nothing to warn of."""

    success: bool
    task_id: str
    message: str
    warning: str | msgspec.UnsetType = msgspec.UNSET


class SubmittedMany(msgspec.Struct, kw_only=True):
    """What became of a batch; `warning` is left out where there is nothing to warn of."""

    success: bool
    task_ids: list[str]
    count: int
    warning: str | msgspec.UnsetType = msgspec.UNSET


def _shape(name: str, **fields: Any) -> Any:
    return msgspec.defstruct(name, fields.items())


Error = _shape("Error", error=str)
Done = _shape("Done", success=bool, task_id=str, message=str)
DoneToMany = _shape("DoneToMany", success=bool, task_ids=list[str], count=int)
Tasks = _shape("Tasks", tasks=list[Stored], count=int)
Workers = _shape("Workers", workers=list[WorkerInfo], count=int)
FIGURES = (
    "workers", "pending_tasks", "parked", "completed_tasks", "processing", "delayed", "waiting",
    "dead_letter", "unreadable",
)  # fmt: skip
STATUS = {
    "status": Literal["healthy", "degraded"],
    "reasons": list[str],
    "gateway": str,
    "timestamp": datetime,
}
Health = _shape("Health", **STATUS, **dict.fromkeys(FIGURES, int))


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response; the line break is for terminals."""
    headers = NOSNIFF | (headers or {})
    return Response(msgspec.json.encode(value) + b"\n", status, headers, mimetype="application/json")


def read_body(model: type[S], around: int) -> tuple[bytes, S]:
    """The request's body, and the model of it, in which each payload is the bytes that the client sent.

    Args:
        model: what the body must be.
        around: levels of JSON around a payload.
    """
    if request.mimetype != "application/json":
        abort(415, "The body must be JSON, sent with the header Content-Type: application/json.")
    body = request.get_data()
    brackets = STRING.sub(b"", body).translate(None, NO_BRACKETS)
    if max(accumulate(1 if b in b"[{" else -1 for b in brackets), default=0) > DEPTH_LIMIT + around:
        abort(422, f"data must not be nested deeper than {DEPTH_LIMIT} levels.")
    try:
        values = msgspec.json.decode(body)  # also refuses what others cannot read: 1e400, half characters
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        abort(400, f"The body is not JSON that everybody can read: {error}.")
    if not isinstance(values, dict):
        abort(400, 'The body must be a JSON object, such as {"type": "noop", "data": null}.')
    submitted = check(model, values, 422)
    submitted.keep_bytes(body)
    return body, submitted


def check(model: type[M], values: dict[str, Any], status: int) -> M:
    """The values as a model; where they do not fit, the request ends with this HTTP status."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where, given = ".".join(map(str, first["loc"])), msgspec.json.encode(first["input"]).decode()
        given = "" if first["type"] in OWN_WORDS else f", not {given:.100}"
        abort(status, f"{where:.100}: {first['msg'].removeprefix('Value error, ')}{given}.")
