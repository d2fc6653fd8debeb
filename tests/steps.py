"""One step of a task's life in one line, and a look at where the task is then."""

import time
from collections.abc import Mapping
from typing import Any

from dtq.queue.broker import PARKED_ID, Broker, Maintained
from dtq.queue.reports import Completed, Failed, Outcome, Verdict
from dtq.queue.task import Status, Stored
from tests.helpers import new_task

WORKER = "worker-1"


def submit(broker: Broker, type: str = "noop", data: Any = None, **options: Any) -> str:
    """Submits one task and returns its id."""
    task = new_task(type, data, **options)
    assert broker.submit([task]) == [task.id]
    return task.id


def claim(broker: Broker, worker: str = WORKER, n: int = 1) -> list[Stored]:
    verdicts, tasks = broker.report_and_claim(worker, [], n)
    assert verdicts == []
    return tasks


def claim_one(broker: Broker, worker: str = WORKER) -> Stored:
    """Claims a task where there must be one."""
    [task] = claim(broker, worker)
    return task


def claim_new(broker: Broker, type: str = "noop", data: Any = None, **options: Any) -> Stored:
    """Submits a task and claims it."""
    task_id = submit(broker, type, data, **options)
    task = claim_one(broker)
    assert task.id == task_id
    return task


def completed(task: Stored, result: bytes = b"null", seconds: float = 0.0) -> Completed:
    """The report of a worker whose handler returned a moment ago."""
    return Completed(task, seconds, time.monotonic(), result)


def failed(task: Stored, retries: int = 3, outcome: Outcome = "failed", error: str = "boom") -> Failed:
    return Failed(task, 0.0, time.monotonic(), outcome, error, retries)


def report(broker: Broker, what: Completed | Failed, worker: str = WORKER) -> Verdict:
    [verdict], _ = broker.report_and_claim(worker, [what], 0)
    return verdict


def complete(broker: Broker, task: Stored, worker: str = WORKER, result: bytes = b"null") -> str:
    return report(broker, completed(task, result), worker).word


def fail(broker: Broker, task: Stored, worker: str = WORKER, retries: int = 3) -> str:
    return report(broker, failed(task, retries), worker).word


def run(broker: Broker, task_id: str, worker: str = WORKER, result: bytes = b"null") -> Stored:
    """Claims what comes next, which must be this task, and completes it."""
    task = claim_one(broker, worker)
    assert task.id == task_id
    assert complete(broker, task, worker, result) == "completed"
    return task


def bury(broker: Broker, type: str = "noop", data: Any = None, error: str = "boom", **options: Any) -> str:
    """A task in the dead letter. It must be the next to be claimed: where others are pending, make its
    priority high.
    """
    return bury_next(broker, submit(broker, type, data, **options), error)


def bury_next(broker: Broker, task_id: str, error: str = "boom") -> str:
    """Lets what comes next, which must be this task, fail for good."""
    task = claim_one(broker)
    assert (task.id, report(broker, failed(task, 0, error=error)).word) == (task_id, "failed")
    return task_id


def lose(broker: Broker, *task_ids: str) -> Maintained:
    """Lets the leases run out, the first one first, and has that noticed."""
    end_leases(broker, *task_ids)
    return maintain(broker)


def end_leases(broker: Broker, *task_ids: str) -> None:
    _rescore(broker, broker.keys.processing, task_ids)


def make_due(broker: Broker, *task_ids: str) -> None:
    _rescore(broker, broker.keys.delayed, task_ids)


def make_old(broker: Broker, *task_ids: str) -> None:
    """As if these had ended long ago."""
    _rescore(broker, broker.keys.finished, task_ids)


def maintain(broker: Broker) -> Maintained:
    """Maintenance now, even if it was done a moment ago."""
    broker.redis.delete(broker.keys.maintained)
    return broker.maintain()


def stored(broker: Broker, task_id: str) -> Stored:
    """The task, which must exist."""
    task = broker.get(task_id)
    assert task is not None, task_id
    return task


def status(broker: Broker, task_id: str) -> str | None:
    task = broker.get(task_id)
    return task.status.value if task else None


def holder(broker: Broker, task_id: str) -> str | None:
    """The worker that holds the task now, if one does."""
    task = broker.get(task_id)
    return task.worker_id if task and task.status == Status.PROCESSING else None


def places(broker: Broker, task_id: str) -> list[str]:
    """Every structure that holds the id, as often as it does; a task that is right is in one."""
    k, member = broker.keys, task_id.encode()
    lists = {name: getattr(k, name) for name in ("pending", "pending_high", "dead_letter", "unreadable")}
    zsets = {name: getattr(k, name) for name in ("processing", "delayed", "waiting", "finished")}
    found = [
        name for name, key in lists.items() for other in broker.redis.lrange(key, 0, -1) if other == member
    ]
    found += ["parked" for other in broker.redis.zrange(k.parked, 0, -1) if other[PARKED_ID:] == member]
    return found + [name for name, key in zsets.items() if broker.redis.zscore(key, member) is not None]


def parents_missing(broker: Broker, task_id: str) -> set[str]:
    return {parent.decode() for parent in broker.redis.smembers(broker.keys.dependencies + task_id)}


def children_left(broker: Broker, task_id: str) -> set[str]:
    return {child.decode() for child in broker.redis.zrange(broker.keys.dependents + task_id, 0, -1)}


def counters(broker: Broker) -> Mapping[str, int]:
    return {name.decode(): int(n) for name, n in broker.redis.hgetall(broker.keys.counters).items()}


def snapshot(broker: Broker) -> dict[bytes, bytes]:
    """All keys of this queue with their values, to see whether anything changed."""
    keys = sorted(broker.redis.scan_iter(match=broker.settings.key_prefix + "*", count=1000))
    return {key: broker.redis.dump(key) for key in keys}


def awake(broker: Broker) -> bool:
    """Whether the wake-up marker is there."""
    return bool(broker.redis.exists(broker.keys.wake))


def now(broker: Broker) -> float:
    """Seconds since the epoch on Redis's clock."""
    seconds, microseconds = broker.redis.time()
    return float(seconds + microseconds / 1e6)


def _rescore(broker: Broker, key: str, task_ids: tuple[str, ...]) -> None:
    if scores := {task_id: float(n) for n, task_id in enumerate(task_ids, 1)}:
        assert broker.redis.zadd(key, scores, xx=True, ch=True) == len(task_ids)
