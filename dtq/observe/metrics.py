"""Figures of the queue, as JSON and for Prometheus. They are read from Redis at each request, so that all
gateways report the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Sample, SummaryMetricFamily

from dtq.observe import unknown_types
from dtq.observe.stats import PERCENTILES, Group, Memory, Spread, Stats, Totals, rank, spread
from dtq.queue.broker import Broker
from dtq.queue.task import Stored

NEWEST = 1000  # documents that one request reads, at most, of completed tasks and of dead ones
SLICE = 100  # documents that one script reads, at most
COUNTERS = {
    "submitted": "Tasks accepted.", "cancelled": "Tasks cancelled before they started.",
    "retried": "Failed attempts that another follows.", "dead_lettered": "Tasks that failed for good.",
    "requeued": "Dead tasks given a fresh start.", "discarded": "Dead tasks given up.",
    "recovered": "Tasks taken back from lost workers.", "released": "Tasks given back by workers.",
    "stale": "Reports refused because the task was no longer the worker's.",
}  # fmt: skip


def totals(broker: Broker) -> Totals:
    """The figures that depend on no time window."""
    k, counts = broker.keys, broker.counts()
    with broker.redis.pipeline() as pipe:
        pipe.time().hgetall(k.counters).zcard(k.task_times).get(k.completed).get(k.run_seconds)
        pipe.lindex(k.pending, -1).lindex(k.pending_high, -1)
        (seconds, micros), counted, kept, completed, total, *heads = pipe.execute()
        for place in (rank(kept, percent) for percent in PERCENTILES):
            pipe.zrange(k.task_times, place, place, withscores=True)
        p50, p95, p99 = (found[0][1] if found else None for found in pipe.execute())
    at = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)
    first = broker.headers(filter(None, heads))
    return Totals(
        at=at,
        counts=counts | {"completed": int(completed or 0)},  # read at the same moment as their seconds
        counters=dict.fromkeys(COUNTERS, 0) | {name.decode(): int(n) for name, n in counted.items()},
        workers=len(broker.workers()),
        oldest_pending_s=max((_seconds(task.created_at, at) for task in first), default=0.0),
        run_s=Spread(p50, p95, p99, float(total or 0) / int(completed) if completed else None),
        run_seconds_total=float(total or 0),
        memory=memory(broker),
    )


def memory(broker: Broker) -> Memory:
    """How much of its memory the server uses."""
    info = broker.redis.info("memory")
    used, limit = info["used_memory"], info["maxmemory"] or None
    share = used / limit if limit else None
    return Memory(used_bytes=used, limit_bytes=limit, share=share, policy=info["maxmemory_policy"])


def stats(broker: Broker, window: float = 60.0) -> Stats:
    """All figures, with those of the last `window` seconds. Tasks that were deleted after `DTQ_RESULT_TTL`
    count only in the totals.
    """
    now, k = totals(broker), broker.keys
    until, since = now.at.timestamp(), now.at.timestamp() - window
    with broker.redis.pipeline() as pipe:
        pipe.zcount(k.completed_at, f"({since}", until).lrange(k.dead_letter, 0, NEWEST - 1)
        pipe.zrevrangebyscore(k.completed_at, until, f"({since}", 0, NEWEST)
        completed, dead, newest = pipe.execute()
    done, dead_tasks = _headers(broker, newest), _headers(broker, dead)
    died = [task for task in dead_tasks if task.history and task.history[-1].ended_at.timestamp() > since]
    return Stats(
        **msgspec.structs.asdict(now),
        window_s=window,
        completed=completed,
        throughput_per_s=completed / window,
        bounded=completed > NEWEST,
        wait_s=spread(map(_wait, done)),
        by_type=_groups("type", lambda task: task.type, done, died),
        by_worker=_groups("worker", _worker, done, died),
        unknown_types=unknown_types.waiting(broker),
    )


class Exporter:
    """A collector of the totals (https://prometheus.io/docs/instrumenting/writing_exporters/)."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def collect(self) -> Iterator[Metric]:
        """Reads the totals. The summary's quantiles cover the results kept, count and sum all ever."""
        now = totals(self.broker)
        n = now.counts["completed"]
        tasks = GaugeMetricFamily("dtq_tasks", "Tasks that are not finished, by place.", labels=["place"])
        for place in ("pending", "processing", "delayed", "waiting", "dead_letter", "unreadable"):
            tasks.add_metric([place], now.counts[place])
        text = "Seconds in the handlers of completed tasks; quantiles of those whose results are kept."
        run = SummaryMetricFamily("dtq_task_run_seconds", text, n, now.run_seconds_total)
        for percent in PERCENTILES if now.run_s.p50 is not None else ():
            seconds = getattr(now.run_s, f"p{percent}")
            run.samples.append(Sample(run.name, {"quantile": f"{percent / 100}"}, seconds))
        text = "Seconds since the submission of the task that is claimed next; 0 without one."
        yield from (tasks, run, GaugeMetricFamily("dtq_oldest_pending_seconds", text, now.oldest_pending_s))
        text = "Pending tasks of types that a worker did not know."
        yield GaugeMetricFamily("dtq_parked_tasks", text, now.counts["parked"])
        yield GaugeMetricFamily("dtq_workers", "Live workers.", now.workers)
        text, limit = "Bytes that the Redis server uses.", now.memory.limit_bytes or 0
        yield GaugeMetricFamily("dtq_redis_memory_bytes", text, now.memory.used_bytes)
        yield GaugeMetricFamily("dtq_redis_memory_limit_bytes", "Bytes that it may use; 0: no limit.", limit)
        yield CounterMetricFamily("dtq_tasks_completed", "Tasks whose result was stored.", n)
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"dtq_tasks_{name}", text, now.counters[name])


def exposition(broker: Broker) -> bytes:
    """The totals in Prometheus's format: figures of the queue, none of the process that answers."""
    registry = CollectorRegistry()
    registry.register(Exporter(broker))
    return generate_latest(registry)


def _groups(
    kind: str, name: Callable[[Stored], str], done: Iterable[Stored], died: Iterable[Stored]
) -> list[Group]:
    groups = defaultdict[str, tuple[list[Stored], list[Stored]]](lambda: ([], []))
    for which, tasks in enumerate((done, died)):
        for task in tasks:
            groups[name(task)][which].append(task)
    return [
        Group(
            **dict[str, Any]({kind: value}),
            completed=len(ok),
            failed=len(dead),
            wait_s=spread(map(_wait, ok)),
            run_s=spread(task.duration or 0.0 for task in ok),
        )
        for value, (ok, dead) in sorted(groups.items())
    ]


def _headers(broker: Broker, ids: Sequence[bytes]) -> list[Stored]:
    """The tasks without their payloads, in slices: each takes Redis a moment, and others have their turn."""
    slices = (ids[start : start + SLICE] for start in range(0, len(ids), SLICE))
    return [task for part in slices for task in broker.headers(part)]


def _worker(task: Stored) -> str:
    """Who had it last; "" if its document does not say."""
    return task.worker_id or (task.history[-1].worker if task.history else "")


def _wait(task: Stored) -> float:
    return _seconds(task.created_at, task.history[0].started_at if task.history else task.started_at)


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0
