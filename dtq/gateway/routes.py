"""The calls, a method each, and the table of all of them."""

import hashlib
import re
import secrets
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from flask import Response, abort, g, request
from prometheus_client import CONTENT_TYPE_LATEST

from dtq.gateway import errors, models, openapi
from dtq.gateway.access import Scope
from dtq.gateway.models import answer
from dtq.gateway.openapi import Call
from dtq.observe import metrics, tracing
from dtq.observe.stats import Stats
from dtq.queue.broker import Broker
from dtq.queue.task import NewTask, Status, Stored
from dtq.transient import TRANSIENT

KEYS = uuid.UUID("5f0f5bb4-4f5c-4a0e-9d0c-8a3c1f8f2d11")  # namespace of ids made from Idempotency-Keys
members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode  # of two with one name the last, as in Python


class Gateway:
    """Answers the calls for one queue."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.name = broker, f"gateway-{secrets.token_hex(3)}"

    def submit_task(self) -> Response:
        """Submit a task; 200 where it was submitted before with the same Idempotency-Key"""
        body, asked = models.read_body(models.TaskRequest, around=1)
        (task_id,), status = self._submit(body, [asked], [body])
        message = "Task submitted successfully" if status == 201 else "Task was submitted before"
        return answer({"success": True, "task_id": task_id, "message": message}, status)

    def submit_batch(self) -> Response:
        """Submit up to 1,000 tasks, all or none; 200 where they all were submitted before"""
        body, batch = models.read_body(models.BatchRequest, around=3)
        texts = msgspec.json.decode(members(body)["tasks"], type=list[msgspec.Raw])
        task_ids, status = self._submit(body, batch.tasks, texts)
        return answer({"success": True, "task_ids": task_ids, "count": len(task_ids)}, status)

    def _submit(
        self, body: bytes, asked: list[models.TaskRequest], texts: Sequence[bytes | msgspec.Raw]
    ) -> tuple[list[str], int]:
        """Stores tasks, each with the payload that stands in its text; returns their ids and the status."""
        parent, by = request.headers.get("traceparent", ""), g.key and g.key.name
        with tracing.span(f"POST {request.path}", "SERVER", parent) as context:
            g.traceparent = context.get("traceparent")
            tasks = [
                NewTask(data=members(text)["data"], submitted_by=by, **models.given(one) | identity | context)
                for one, text, identity in zip(asked, texts, _identities(body, len(asked)), strict=True)
            ]
            # Nothing new is a replay only under a key: else the first answer of Redis was lost on its way.
            new = self.broker.submit(tasks) or "Idempotency-Key" not in request.headers
            return [task.id for task in tasks], 201 if new else 200

    def list_tasks(self) -> Response:
        """List tasks, newest first"""
        asked = models.checked(models.TasksQuery, request.args.to_dict(), 400)
        if asked.ids is None:
            return _list(self.broker.tasks(asked.status, asked.type, asked.limit))
        if asked.status or asked.type:
            abort(400, "ids says already which tasks: leave status and type out.")
        return _list(self.broker.get_many(asked.ids))

    def get_task(self, task_id: str) -> Response:
        """Get a task"""
        return answer(self.broker.get(task_id) or abort(404, f"There is no task {task_id} (any more)."))

    def cancel_task(self, task_id: str) -> Response:
        """Cancel a task that was not started, and all that depend on it"""
        word = self.broker.cancel(task_id)
        if word == "unknown":
            abort(404, f"There is no task {task_id} (any more).")
        if word != Status.CANCELLED:
            abort(409, f"Task {task_id} is {word} and cannot be cancelled any more.")
        return answer({"success": True, "task_id": task_id, "message": "Task cancelled"})

    def list_workers(self) -> Response:
        """List the live workers"""
        workers = self.broker.workers()
        return answer({"workers": workers, "count": len(workers)})

    def get_health(self) -> Response:
        """Tell how the system is"""
        about: dict[str, Any] = {"gateway": self.name, "timestamp": datetime.now(UTC)}
        try:
            self.broker.once.ping()  # fails at once, where other commands try again for a while
            counts, workers, persistent = (
                self.broker.counts(),
                self.broker.workers(),
                self.broker.persistent(),
            )
        except TRANSIENT:
            about |= {"status": "unhealthy", "reasons": [errors.AWAY], "error": errors.AWAY}
            return answer(about, 503, errors.RETRY)
        reasons = (
            [] if workers else ["No worker is there: tasks wait until one is started with `dtq worker`."]
        )
        reasons += [] if persistent else ["Redis writes nothing to disk: when it stops, all tasks are lost."]
        about |= {"status": "degraded" if reasons else "healthy", "reasons": reasons, "workers": len(workers)}
        about |= {f"{name}_tasks": counts.pop(name) for name in ("pending", "completed")}
        return answer(about | counts)

    def get_stats(self) -> Response:
        """Tell throughput, run times and waits of the last seconds"""
        asked = models.checked(models.StatsQuery, request.args.to_dict(), 400)
        return answer(metrics.stats(self.broker, asked.window))

    def get_metrics(self) -> Response:
        """Tell Prometheus how the queue is"""
        text = metrics.exposition(self.broker)
        return Response(text, headers=models.NOSNIFF, content_type=CONTENT_TYPE_LATEST)

    def list_dead(self) -> Response:
        """List up to 1,000 tasks that failed for good and wait for a decision"""
        return _list(self.broker.tasks(Status.FAILED, limit=1000))

    def retry_dead(self, task_id: str | None = None) -> Response:
        """Give a dead task, or all of them, a fresh start"""
        return _decided(task_id, self.broker.requeue([task_id] if task_id else None))

    def discard_dead(self, task_id: str | None = None) -> Response:
        """Cancel a dead task, or all of them, with all that depend on them"""
        return _decided(task_id, self.broker.discard([task_id] if task_id else None))

    def get_contract(self) -> Response:
        """Get this contract"""
        return answer(openapi.document(CALLS))


def _identities(body: bytes, n: int) -> list[dict[str, str]]:
    """Ids that follow from the Idempotency-Key, so that a request sent again finds its tasks; the fingerprint
    tells it from another one. Without a key nothing: `NewTask` makes random ids.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return [{}] * n
    if not re.fullmatch("[!-~]{1,255}", key):
        abort(400, "Idempotency-Key must be 1 to 255 visible ASCII characters.")
    fingerprint = hashlib.sha256(body).hexdigest()
    return [{"id": str(uuid.uuid5(KEYS, f"{key} {i}")), "fingerprint": fingerprint} for i in range(n)]


def _list(tasks: list[Stored]) -> Response:
    return answer({"tasks": tasks, "count": len(tasks)})


def _decided(task_id: str | None, done: list[str]) -> Response:
    if task_id and not done:
        abort(404, f"There is no task {task_id} in the dead letter (any more).")
    return answer({"success": True, "task_ids": done, "count": len(done)})


CALLS = (
    Call("POST", "/tasks", Gateway.submit_task, models.Done, body=models.TaskRequest, scope=Scope.SUBMIT),
    Call(
        "POST",
        "/tasks/batch",
        Gateway.submit_batch,
        models.DoneToMany,
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
