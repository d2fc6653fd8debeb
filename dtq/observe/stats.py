"""The figures of a queue. `dtq.observe.metrics` reads them from Redis."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

PERCENTILES = (50, 95, 99)


def rank(n: int, percent: int) -> int:
    """The index of a percentile in `n` sorted values: of the first value such that at least `percent` %
    of all are no greater (the nearest rank). -1 if there are no values.
    """
    return -(-n * percent // 100) - 1


class Spread(msgspec.Struct):
    """Percentiles and mean, in seconds; nulls where there was nothing to measure."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean: float | None = None


class Group(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Tasks of one type, or of one worker. `failed` counts those that died in the window and are still in the
    dead letter. `wait_s` is the time from submission to first start, `run_s` the time in the handler, both of
    the completed tasks.
    """

    type: str | None = None
    worker: str | None = None
    completed: int
    failed: int
    wait_s: Spread
    run_s: Spread


class Memory(msgspec.Struct, kw_only=True):
    """Memory of the whole Redis server. Without a limit, `limit_bytes` and `share` are null."""

    used_bytes: int
    limit_bytes: int | None
    share: float | None  # used_bytes / limit_bytes
    policy: str  # what Redis does at the limit; noeviction refuses new tasks, all others delete some


class Totals(msgspec.Struct, kw_only=True):
    """Figures that cost the same however many tasks there are. The percentiles of `run_s` cover all results
    still kept, its mean all tasks ever completed. `oldest_pending_s` is the age of the older of the two tasks
    that are next, one of each priority.
    """

    at: datetime  # on Redis's clock
    counts: dict[str, int]
    counters: dict[str, int]
    workers: int
    oldest_pending_s: float
    run_s: Spread
    run_seconds_total: float
    memory: Memory


class Stats(Totals, kw_only=True):
    """What `GET /stats` answers. `completed` and `throughput_per_s` are exact. `wait_s`, `by_type` and
    `by_worker` cover the window's newest 1,000 tasks; `bounded` says whether there were more. Tasks of
    `unknown_types` wait until a worker comes that knows them.
    """

    window_s: float
    completed: int
    throughput_per_s: float
    bounded: bool
    wait_s: Spread
    by_type: list[Group]
    by_worker: list[Group]
    unknown_types: list[str]  # of 20 types at most


def spread(seconds: Iterable[float]) -> Spread:
    """The percentiles and the mean of some durations."""
    ordered = sorted(seconds)
    if not ordered:
        return Spread()
    p50, p95, p99 = (ordered[rank(len(ordered), percent)] for percent in PERCENTILES)
    return Spread(p50, p95, p99, sum(ordered) / len(ordered))
