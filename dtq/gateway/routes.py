"""The methods that answer the calls. The table in `calls` says which of them answers which."""

import hashlib
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import redis
from flask import Response, abort, g, request
from prometheus_client import CONTENT_TYPE_LATEST

from dtq.gateway import errors, models
from dtq.gateway.models import answer
from dtq.observe import metrics, tracing, unknown_types
from dtq.queue.broker import Broker
from dtq.queue.task import NewTask, Status, Stored

KEYS = uuid.UUID("5f0f5bb4-4f5c-4a0e-9d0c-8a3c1f8f2d11")  # namespace of ids made from Idempotency-Keys
NO_WORKER = "No worker is there: tasks wait until one is started with `dtq worker`."
NOT_PERSISTENT = "Redis writes nothing to disk: when it stops, all tasks are lost."


class Gateway:
    """Answers the calls for one queue.

    Args:
        broker: of the queue.
        contract: the description of the calls that `get_contract` answers with.
    """

    def __init__(self, broker: Broker, contract: Mapping[str, Any]) -> None:
        self.broker, self.name, self._contract = broker, f"gateway-{secrets.token_hex(3)}", contract

    def submit_task(self) -> Response:
        """Submit a task; 200 where it was submitted before with the same Idempotency-Key"""
        body, task = models.read_body(models.TaskRequest, around=1)
        (task_id,), status = self._submit([task], body)
        message = "Task submitted successfully" if status == 201 else "Task was submitted before"
        said = {"success": True, "task_id": task_id, "message": message}
        return answer(said | self._warning([task.type]), status)

    def submit_batch(self) -> Response:
        """Submit up to 1,000 tasks, all or none; 200 where they all were submitted before"""
        body, batch = models.read_body(models.BatchRequest, around=3)
        task_ids, status = self._submit(batch.tasks, body)
        said = {"success": True, "task_ids": task_ids, "count": len(task_ids)}
        return answer(said | self._warning(one.type for one in batch.tasks), status)

    def _submit(self, requests: Sequence[models.TaskRequest], body: bytes) -> tuple[list[str], int]:
        """Stores what the body asks for; returns the ids of the tasks and the HTTP status."""
        parent, by = request.headers.get("traceparent", ""), g.key and g.key.name
        with tracing.span(f"POST {request.path}", "SERVER", parent) as context:
            g.traceparent = context.get("traceparent")
            key = _idempotency_key()
            fingerprint = hashlib.sha256(body).hexdigest() if key else None
            tasks = [
                NewTask(submitted_by=by, fingerprint=fingerprint, **one.given() | _id(key, place) | context)
                for place, one in enumerate(requests)
            ]
            # No new task is a replay only under a key. Without one, Redis's first answer was lost on its way.
            new = self.broker.submit(tasks) or key is None
            return [task.id for task in tasks], 201 if new else 200

    def _warning(self, types: Iterable[str]) -> dict[str, str]:
        """What to add to the answer if no live worker knows these types."""
        try:
            sentence = unknown_types.warning(self.broker, types)
        except redis.RedisError:  # the tasks are stored all the same
            return {}
        return {"warning": sentence} if sentence else {}

    def list_tasks(self) -> Response:
        """List tasks, newest first; of many scheduled or retrying ones, some of those due last"""
        asked = models.check(models.TasksQuery, request.args.to_dict(), 400)
        if asked.ids is None:
            return _answer_tasks(self.broker.tasks(asked.status, asked.type, asked.limit))
        if asked.status or asked.type:
            abort(400, "ids says already which tasks: leave status and type out.")
        return _answer_tasks(self.broker.get_many(asked.ids))

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
        """Report the health of the system"""
        about: dict[str, Any] = {"gateway": self.name, "timestamp": datetime.now(UTC)}
        try:
            self.broker.once.ping()  # fails at once, where other commands try again for a while
            counts, workers = self.broker.counts(), self.broker.workers()
            persistent = self.broker.persistent()
        except redis.RedisError as error:
            sentence = errors.refusal(error)
            about |= {"status": "unhealthy", "reasons": [sentence], "error": sentence}
            return answer(about, 503, errors.RETRY)
        reasons = [] if workers else [NO_WORKER]
        reasons += [] if persistent else [NOT_PERSISTENT]
        about |= {"status": "degraded" if reasons else "healthy", "reasons": reasons, "workers": len(workers)}
        about |= {f"{name}_tasks": counts.pop(name) for name in ("pending", "completed")}
        return answer(about | counts)

    def get_stats(self) -> Response:
        """Report throughput, run times and waits of the last seconds"""
        asked = models.check(models.StatsQuery, request.args.to_dict(), 400)
        return answer(metrics.stats(self.broker, asked.window))

    def get_metrics(self) -> Response:
        """Report metrics for Prometheus"""
        text = metrics.exposition(self.broker)
        return Response(text, headers=models.NOSNIFF, content_type=CONTENT_TYPE_LATEST)

    def list_dead(self) -> Response:
        """List up to 1,000 tasks that failed for good and wait for a decision"""
        return _answer_tasks(self.broker.tasks(Status.FAILED, limit=1000))

    def retry_dead(self, task_id: str | None = None) -> Response:
        """Give a dead task, or all of them, a fresh start"""
        return _answer_decision(task_id, self.broker.requeue([task_id] if task_id else None))

    def discard_dead(self, task_id: str | None = None) -> Response:
        """Cancel a dead task, or all of them, with all that depend on them"""
        return _answer_decision(task_id, self.broker.discard([task_id] if task_id else None))

    def get_contract(self) -> Response:
        """Get this contract"""
        return answer(self._contract)


def _idempotency_key() -> str | None:
    """The key that the client gave to this request, so that it may send it again."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch("[!-~]{1,255}", key):
        abort(400, "Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return key


def _id(key: str | None, place: int) -> dict[str, str]:
    """The id of the task at this place of a request. It follows from the Idempotency-Key, so that a request
    that is sent again finds its tasks. Without a key this is empty, and `NewTask` makes a random id.
    """
    return {"id": str(uuid.uuid5(KEYS, f"{key} {place}"))} if key else {}


def _answer_tasks(tasks: list[Stored]) -> Response:
    return answer({"tasks": tasks, "count": len(tasks)})


def _answer_decision(task_id: str | None, done: list[str]) -> Response:
    if task_id and not done:
        abort(404, f"There is no task {task_id} in the dead letter (any more).")
    return answer({"success": True, "task_ids": done, "count": len(done)})
