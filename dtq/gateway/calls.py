"""The table of calls. Flask's routes, the scopes that calls need and the contract are all made from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from dtq.gateway import models
from dtq.gateway.access import Scope
from dtq.gateway.routes import Gateway
from dtq.observe.stats import Stats
from dtq.queue.task import Stored


class Call(NamedTuple):
    """A call: its address, the method of `Gateway` that answers it, what it gives and takes.

    Args:
        errors: statuses of errors that do not follow from the rest.
        media: type of what it gives. Errors are JSON in any case.
        scope: what it needs of an API key; None is open to everybody.
    """

    method: str
    path: str
    view: Callable[..., Any]
    gives: Any
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    scope: Scope | None = Scope.READ

    @property
    def endpoint(self) -> str:
        return f"{self.method} {self.path}"


CALLS = (
    Call(
        "POST",
        "/tasks",
        Gateway.submit_task,
        models.Submitted,
        body=models.TaskRequest,
        scope=Scope.SUBMIT,
    ),
    Call(
        "POST",
        "/tasks/batch",
        Gateway.submit_batch,
        models.SubmittedMany,
        body=models.BatchRequest,
        scope=Scope.SUBMIT,
    ),
    Call("GET", "/tasks", Gateway.list_tasks, models.Tasks, query=models.TasksQuery),
    Call("GET", "/tasks/<task_id>", Gateway.get_task, Stored),
    Call("DELETE", "/tasks/<task_id>", Gateway.cancel_task, models.Done, errors=(409,), scope=Scope.SUBMIT),
    Call("GET", "/workers", Gateway.list_workers, models.Workers),
    Call("GET", "/health", Gateway.get_health, models.Health, scope=None),
    Call("GET", "/stats", Gateway.get_stats, Stats, query=models.StatsQuery),
    Call("GET", "/metrics", Gateway.get_metrics, str, media="text/plain"),
    Call("GET", "/dead-letter", Gateway.list_dead, models.Tasks),
    Call("DELETE", "/dead-letter", Gateway.discard_dead, models.DoneToMany, scope=Scope.ADMIN),
    Call("POST", "/dead-letter/retry", Gateway.retry_dead, models.DoneToMany, scope=Scope.ADMIN),
    Call("DELETE", "/dead-letter/<task_id>", Gateway.discard_dead, models.DoneToMany, scope=Scope.ADMIN),
    Call("POST", "/dead-letter/<task_id>/retry", Gateway.retry_dead, models.DoneToMany, scope=Scope.ADMIN),
    Call("GET", "/openapi.json", Gateway.get_contract, dict[str, Any]),
)
