"""Figures of the queue, as JSON (`stats`) and for Prometheus (`exposition`).

They are read from Redis when somebody asks: so every gateway process says the same, and none has to remember
anything. Percentiles are by nearest rank: the smallest value that so many per cent do not exceed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Sample, SummaryMetricFamily
from prometheus_client.registry import Collector

from dtq.broker import Broker
from dtq.task import Stored, parse

NEWEST = 1000  # documents that one question reads, at most, of completed tasks and of dead ones
HEADER, SPLIT = 8192, b',"data":'  # bytes that nearly always hold a document's header, and what follows it
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}
PLACES = ("pending", "processing", "delayed", "waiting", "dead_letter")
COUNTERS = {
    "submitted": "Tasks accepted.",
    "retried": "Failed attempts after which the task is tried again.",
    "recovered": "Tasks taken back from lost workers and queued again.",
    "released": "Tasks that workers gave back.",
    "stale": "Reports refused because the task was no longer the worker's.",
    "dead_lettered": "Tasks that failed for good.",
    "requeued": "Dead tasks that were given a fresh start.",
    "discarded": "Dead tasks that were given up.",
    "cancelled": "Tasks cancelled before they started.",
}


class Spread(msgspec.Struct):
    """Percentiles and mean, in seconds; nulls where there was nothing to measure."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean: float | None = None


class Group(msgspec.Struct, kw_only=True):
    """Completed tasks: how many, how long they waited for their first start, how long their handlers ran."""

    completed: int
    wait_s: Spread
    run_s: Spread


class OfType(Group, kw_only=True):
    """Tasks of one type. `failed` are those that went to the dead letter in the window and are still there."""

    type: str
    failed: int


class OfWorker(Group, kw_only=True):
    """Tasks that one worker completed."""

    worker: str


class Totals(msgspec.Struct, kw_only=True):
    """Figures that cost the same however many tasks there are. Of `run_s`, the percentiles are of all results
    still kept, the mean is of all tasks ever completed. `oldest_pending_s` is the age of what is claimed next.
    """

    at: datetime  # on Redis's clock
    counts: dict[str, int]
    counters: dict[str, int]
    workers: int
    run_s: Spread
    run_seconds_total: float
    oldest_pending_s: float


class Stats(Totals, kw_only=True):
    """What `GET /stats` answers. `completed` and `throughput_per_s` are always exact. `wait_s`, `by_type` and
    `by_worker` tell of the window's newest 1,000 tasks; `bounded` says whether it had more.
    """

    window_s: float
    completed: int
    throughput_per_s: float
    bounded: bool
    wait_s: Spread
    by_type: list[OfType]
    by_worker: list[OfWorker]


def rank(n: int, percent: int) -> int:
    """Where the percentile stands among `n` sorted values, from 0; -1 where there are none."""
    return -(-n * percent // 100) - 1


def spread(seconds: Sequence[float]) -> Spread:
    """The percentiles and the mean of some durations."""
    if not seconds:
        return Spread()
    values = sorted(seconds)
    ranks = {name: values[rank(len(values), percent)] for name, percent in PERCENTILES.items()}
    return Spread(**ranks, mean=sum(values) / len(values))


def totals(broker: Broker) -> Totals:
    """The figures that need no window."""
    k, counts = broker.keys, broker.counts()
    with broker.redis.pipeline() as pipe:
        pipe.time().hgetall(k.counters).get(k.completed).get(k.run_seconds).zcard(k.task_times)
        pipe.lindex(k.pending, -1).lindex(k.pending_high, -1)
        (seconds, micros), counted, completed, run_seconds, kept, *heads = pipe.execute()
        for place in (rank(kept, percent) for percent in PERCENTILES.values()):
            pipe.zrange(k.task_times, place, place, withscores=True)
        ranks = [found[0][1] if found else None for found in pipe.execute()]
    at = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)
    ages = [_seconds(task.created_at, at) for task in _headers(broker, [head for head in heads if head])]
    total = float(run_seconds or 0)
    return Totals(
        at=at,
        counts=counts | {"completed": int(completed or 0)},  # of the same moment as their run time
        counters=dict.fromkeys(COUNTERS, 0) | {name.decode(): int(n) for name, n in counted.items()},
        workers=len(broker.workers()),
        run_s=Spread(*ranks, mean=total / int(completed) if completed else None),
        run_seconds_total=total,
        oldest_pending_s=max(ages, default=0.0),
    )


def stats(broker: Broker, window: float = 60.0) -> Stats:
    """The figures, those of the last `window` seconds among them. What is older than `DTQ_RESULT_TTL` was
    deleted, and is in none of them but the totals.
    """
    now, k = totals(broker), broker.keys
    until = now.at.timestamp()
    since = until - window
    with broker.redis.pipeline() as pipe:
        pipe.zcount(k.completed_at, f"({since}", until)
        pipe.zrevrangebyscore(k.completed_at, until, f"({since}", 0, NEWEST)
        completed, newest = pipe.execute()
    done, dead = _headers(broker, newest), _died(broker, since)
    by_type, failed = _grouped(done, lambda task: task.type), _grouped(dead, lambda task: task.type)
    by_worker = _grouped(done, lambda task: task.worker_id or "")
    return Stats(
        **msgspec.structs.asdict(now),
        window_s=window,
        completed=completed,
        throughput_per_s=completed / window,
        bounded=completed > NEWEST,
        wait_s=spread(list(map(_wait, done))),
        by_type=[
            OfType(type=name, failed=len(failed[name]), **_figures(by_type[name]))
            for name in sorted(by_type.keys() | failed.keys())
        ],
        by_worker=[OfWorker(worker=name, **_figures(tasks)) for name, tasks in sorted(by_worker.items())],
    )


class Exporter(Collector):
    """Reads the totals when Prometheus asks (https://prometheus.io/docs/instrumenting/writing_exporters/)."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def collect(self) -> Iterator[Metric]:
        """The families. The percentiles stand in a summary, whose count and sum never go back."""
        now = totals(self.broker)
        tasks = GaugeMetricFamily("dtq_tasks", "Tasks that are not finished, by place.", labels=["place"])
        for place in PLACES:
            tasks.add_metric([place], now.counts[place])
        yield tasks
        completed = now.counts["completed"]
        yield CounterMetricFamily("dtq_tasks_completed", "Tasks whose result was stored.", completed)
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"dtq_tasks_{name}", text, now.counters[name])
        yield GaugeMetricFamily("dtq_workers", "Live workers.", now.workers)
        text = "Seconds since the submission of the task that is claimed next."
        yield GaugeMetricFamily("dtq_oldest_pending_seconds", text, now.oldest_pending_s)
        text = "Seconds in handlers: quantiles of the results that are kept; sum and count of all ever completed."
        run = SummaryMetricFamily("dtq_task_run_seconds", text, completed, now.run_seconds_total)
        for name, percent in PERCENTILES.items():
            if (value := getattr(now.run_s, name)) is not None:
                run.samples.append(Sample(run.name, {"quantile": f"{percent / 100:g}"}, value))
        yield run


def exposition(broker: Broker) -> bytes:
    """The figures as Prometheus reads them: of the queue only, not of the process that answers."""
    registry = CollectorRegistry()
    registry.register(Exporter(broker))
    return generate_latest(registry)


def _headers(broker: Broker, task_ids: Sequence[bytes]) -> list[Stored]:
    """The tasks without their payloads, which may be large; deleted ones are left out."""
    with broker.redis.pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.getrange(broker.keys.task + task_id.decode(), 0, HEADER - 1)
        starts = zip(task_ids, map(bytes.partition, pipe.execute(), [SPLIT] * len(task_ids)), strict=True)
    found = [
        parse(header + b',"data":null}') if split else broker.get(task_id.decode())
        for task_id, (header, split, _) in starts
    ]
    return [task for task in found if task]


def _died(broker: Broker, since: float) -> list[Stored]:
    """Dead tasks whose last attempt ended after that: the newest come first in the dead letter."""
    found: list[Stored] = []
    for start in range(0, NEWEST, 100):
        tasks = _headers(broker, broker.redis.lrange(broker.keys.dead_letter, start, start + 99))
        late = [task for task in tasks if task.history and task.history[-1].ended_at.timestamp() > since]
        found += late
        if len(late) < 100:
            break
    return found


def _grouped(tasks: Sequence[Stored], key: Callable[[Stored], str]) -> defaultdict[str, list[Stored]]:
    groups = defaultdict[str, list[Stored]](list)
    for task in tasks:
        groups[key(task)].append(task)
    return groups


def _figures(tasks: Sequence[Stored]) -> dict[str, Any]:
    runs = spread([task.duration or 0.0 for task in tasks])
    return {"completed": len(tasks), "wait_s": spread(list(map(_wait, tasks))), "run_s": runs}


def _wait(task: Stored) -> float:
    """Seconds from the submission to the first start."""
    return _seconds(task.created_at, task.history[0].started_at if task.history else task.started_at)


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0
