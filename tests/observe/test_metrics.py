"""The figures, held against the documents from which anybody can compute them."""

import math
import re
import time
from collections.abc import Sequence
from contextlib import closing

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from dtq.observe.metrics import COUNTERS, exposition, stats, totals
from dtq.observe.stats import Spread, rank, spread
from dtq.queue.broker import Broker
from dtq.queue.reports import Completed, Failed
from dtq.queue.task import Stored
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import ROOT, held, new_task, wait_until
from tests.steps import (
    bury,
    claim,
    claim_one,
    complete,
    counters,
    fail,
    lose,
    maintain,
    make_due,
    make_old,
    report,
    stored,
    submit,
)

NOTHING = Spread(None, None, None, None)


def nearest_rank(values: Sequence[float], percent: int) -> float:
    """By its definition: the smallest value that at least so many per cent do not exceed."""
    return min(v for v in values if 100 * sum(other <= v for other in values) >= percent * len(values))


def by_hand(values: Sequence[float]) -> Spread:
    """The documents keep 14 digits of a duration, the sorted set all of them."""
    figures = [nearest_rank(values, percent) for percent in (50, 95, 99)]
    figures.append(math.fsum(values) / len(values))
    return Spread(*(pytest.approx(figure, rel=1e-12) for figure in figures))


def finish(
    broker: Broker, task: Stored, seconds: float, worker: str = "worker-1", result: bytes = b"1"
) -> None:
    """Completes a claimed task that took this long."""
    done = Completed(task, seconds, time.monotonic(), result)
    assert report(broker, done, worker).word == "completed"


def run_tasks(broker: Broker, seconds: Sequence[float], type: str = "noop", worker: str = "worker-1") -> None:
    """Tasks that took this long, submitted and completed in batches."""
    for start in range(0, len(seconds), 200):
        batch = seconds[start : start + 200]
        broker.submit([new_task(type) for _ in batch])
        tasks = claim(broker, worker, len(batch))
        now = time.monotonic()
        reports = [Completed(held(t.id, 1), s, now, b"1") for t, s in zip(tasks, batch, strict=True)]
        verdicts, _ = broker.report_and_claim(worker, reports, 0)
        assert {verdict.word for verdict in verdicts} == {"completed"}


def families(broker: Broker) -> dict[str, Metric]:
    text = exposition(broker).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(broker: Broker) -> dict[tuple[str, str], float]:
    """Name and label's value -> value of each line."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in families(broker).values()
        for sample in family.samples
    }


# ---------------------------------------------------------------- percentiles


@pytest.mark.parametrize("n", [*range(1, 41), 99, 100, 101, 1000])
def test_a_rank_is_the_nearest_one(n: int) -> None:
    values = list(range(n))
    assert [values[rank(n, percent)] for percent in (50, 95, 99)] == [
        nearest_rank(values, percent) for percent in (50, 95, 99)
    ]


def test_a_spread_of_nothing_is_nothing_and_order_does_not_matter() -> None:
    assert (spread([]), rank(0, 50)) == (NOTHING, -1)
    assert spread([0.3, 0.1, 0.2]) == Spread(0.2, 0.3, 0.3, pytest.approx(0.2))


# ---------------------------------------------------------------- an empty queue


def test_an_empty_queue_has_zeros_and_no_percentiles(broker: Broker) -> None:
    told = stats(broker)
    assert (told.completed, told.throughput_per_s, told.bounded, told.workers) == (0, 0.0, False, 0)
    assert told.run_s == told.wait_s == NOTHING
    assert (told.by_type, told.by_worker, told.oldest_pending_s, told.run_seconds_total) == ([], [], 0.0, 0.0)
    assert told.counters == dict.fromkeys(COUNTERS, 0)
    assert set(told.counts.values()) == {0}

    lines = samples(broker)
    assert lines.pop(("dtq_redis_memory_bytes", "")) > 0
    assert set(lines.values()) == {0.0}
    assert {("dtq_tasks_completed_total", ""), ("dtq_tasks", "pending"), ("dtq_workers", "")} <= lines.keys()
    assert not [label for name, label in lines if name == "dtq_task_run_seconds"]


# ---------------------------------------------------------------- time in the handler, and waits


def test_figures_are_those_of_the_documents(broker: Broker) -> None:
    run_tasks(broker, [0.001 * (n % 37) for n in range(150)], "short", "ann")
    run_tasks(broker, [0.5, 0.25, 4.0], "long", "bob")
    run_tasks(broker, [0.125], "short", "bob")
    told, documents = stats(broker), broker.tasks(limit=1000)
    durations = [task.duration or 0.0 for task in documents]

    assert (told.completed, told.throughput_per_s, told.window_s) == (154, 154 / 60, 60.0)
    assert told.run_s == by_hand(durations)
    assert told.run_seconds_total == pytest.approx(math.fsum(durations))
    assert told.wait_s == by_hand([wait(task) for task in documents])
    kinds = [(group.type, group.completed, group.failed) for group in told.by_type]
    assert kinds == [("long", 3, 0), ("short", 151, 0)]
    assert [(group.worker, group.completed) for group in told.by_worker] == [("ann", 150), ("bob", 4)]
    for group in told.by_type + told.by_worker:
        its = [task for task in documents if group.type in (None, task.type)]
        its = [task for task in its if group.worker in (None, task.worker_id)]
        assert group.run_s == by_hand([task.duration or 0.0 for task in its])
        assert group.wait_s == by_hand([wait(task) for task in its])


def wait(task: Stored) -> float:
    assert task.started_at
    assert task.created_at
    return (task.started_at - task.created_at).total_seconds()


def test_prometheus_hears_the_same(broker: Broker) -> None:
    run_tasks(broker, [0.01 * n for n in range(1, 31)])
    bury(broker)
    submit(broker, priority="high")
    submit(broker, delay=60)
    broker.heartbeat(WorkerInfo(id="ann", status="idle"))
    told, lines = stats(broker), samples(broker)
    for name, percent in (("0.5", 50), ("0.95", 95), ("0.99", 99)):
        assert lines["dtq_task_run_seconds", name] == getattr(told.run_s, f"p{percent}")
    assert lines["dtq_task_run_seconds_count", ""] == lines["dtq_tasks_completed_total", ""] == told.completed
    assert lines["dtq_task_run_seconds_sum", ""] == told.run_seconds_total == pytest.approx(4.65)
    assert lines["dtq_workers", ""] == told.workers == 1
    for place in ("pending", "processing", "delayed", "waiting", "dead_letter"):
        assert lines["dtq_tasks", place] == told.counts[place] == broker.counts()[place]
    for name in COUNTERS:
        assert lines[f"dtq_tasks_{name}_total", ""] == told.counters[name]
    assert (told.counts["pending"], told.counts["delayed"], told.counts["dead_letter"]) == (1, 1, 1)


def test_a_wait_ends_with_the_first_start(broker: Broker) -> None:
    task_id = submit(broker)
    fail(broker, claim_one(broker))
    make_due(broker, task_id)
    wait_until(lambda: maintain(broker).due or broker.counts()["pending"])
    complete(broker, claim_one(broker))
    task = stored(broker, task_id)
    assert task.created_at
    first = (task.history[0].started_at - task.created_at).total_seconds()
    assert stats(broker).wait_s.p50 == first < wait(task)


def test_the_age_of_what_is_claimed_next(broker: Broker) -> None:
    oldest = submit(broker)
    submit(broker, priority="high")
    created = stored(broker, oldest).created_at
    told = totals(broker)
    assert created
    assert told.oldest_pending_s == (told.at - created).total_seconds() > 0
    claim(broker, n=2)
    assert totals(broker).oldest_pending_s == 0.0


def test_a_result_that_is_reported_twice_counts_once(broker: Broker) -> None:
    submit(broker)
    task = claim_one(broker)
    done = Completed(held(task.id, 1), 0.25, time.monotonic(), b"1")
    assert [report(broker, done).word for _ in range(2)] == ["completed", "repeated"]
    told = stats(broker)
    assert (told.completed, told.run_seconds_total, told.run_s) == (1, 0.25, Spread(0.25, 0.25, 0.25, 0.25))


# ---------------------------------------------------------------- what is counted, and what is not


def test_only_completed_tasks_are_throughput(broker: Broker) -> None:
    parent, unwanted = submit(broker), submit(broker)
    submit(broker, depends_on=[bury(broker, priority="high")])
    broker.cancel(unwanted)
    broker.discard()
    assert claim_one(broker).id == parent
    finish(broker, stored(broker, parent), 0.5)
    assert broker.redis.zcard(broker.keys.finished) == 4
    assert stats(broker).completed == totals(broker).counts["completed"] == 1


def test_a_result_that_is_kept_for_a_child_is_not_counted_again(broker: Broker) -> None:
    parent = submit(broker)
    submit(broker, depends_on=[parent, bury(broker, priority="high")])
    finish(broker, claim_one(broker), 0.5)
    make_old(broker, parent)
    broker.redis.zadd(broker.keys.completed_at, {parent: 1.0}, xx=True)
    assert maintain(broker).deleted == 0
    assert broker.redis.zscore(broker.keys.finished, parent) > 1.0
    assert (stats(broker).completed, totals(broker).counts["completed"]) == (0, 1)


def test_the_window_ends_where_it_should(broker: Broker) -> None:
    run_tasks(broker, [0.5, 0.25, 0.125])
    first, *_ = broker.redis.zrange(broker.keys.completed_at, 0, 0)
    moment = broker.redis.zscore(broker.keys.completed_at, first)
    broker.redis.zadd(broker.keys.completed_at, {first: moment - 100})
    assert [stats(broker, window).completed for window in (60, 3600)] == [2, 3]
    assert stats(broker, 60).throughput_per_s == 2 / 60
    assert [group.completed for group in stats(broker, 60).by_type] == [2]


def test_more_tasks_than_are_read_are_counted_all_the_same(broker: Broker) -> None:
    run_tasks(broker, [1.0] * 200, "old")
    run_tasks(broker, [0.001] * 1000, "new")
    told = stats(broker)
    assert (told.completed, told.bounded) == (1200, True)
    assert [(group.type, group.completed) for group in told.by_type] == [("new", 1000)]
    assert told.run_s == Spread(0.001, 1.0, 1.0, pytest.approx(201 / 1200))
    assert samples(broker)["dtq_task_run_seconds_count", ""] == told.counts["completed"] == 1200


def test_the_dead_are_told_by_type_and_by_worker_while_the_window_lasts(broker: Broker) -> None:
    bury(broker, type="fail")
    run_tasks(broker, [0.5], "noop", "bob")
    told = stats(broker)
    assert [(g.type, g.completed, g.failed) for g in told.by_type] == [("fail", 0, 1), ("noop", 1, 0)]
    assert [(g.worker, g.completed, g.failed) for g in told.by_worker] == [("bob", 1, 0), ("worker-1", 0, 1)]
    assert told.by_type[0].run_s == told.by_type[0].wait_s == NOTHING
    wait_until(lambda: not stats(broker, 0.01).by_type)
    broker.requeue()
    assert [(g.type, g.failed) for g in stats(broker).by_type] == [("noop", 0)]


def test_what_was_deleted_stays_in_the_totals(broker: Broker) -> None:
    run_tasks(broker, [0.5, 0.25])
    for task_id in broker.redis.zrange(broker.keys.finished, 0, -1):
        make_old(broker, task_id.decode())
    assert maintain(broker).deleted == 2
    told, lines = stats(broker, 3600), samples(broker)
    assert (told.completed, told.counts["completed"], told.run_seconds_total) == (0, 2, 0.75)
    assert told.run_s == Spread(None, None, None, 0.375)
    assert lines["dtq_task_run_seconds_sum", ""] == 0.75
    assert ("dtq_task_run_seconds", "0.5") not in lines
    assert not broker.redis.exists(broker.keys.completed_at)


# ---------------------------------------------------------------- counters


def test_every_counter_of_the_scripts_has_a_help_text() -> None:
    scripts = (ROOT / "dtq/queue/lua").glob("*.lua")
    counted = {name for script in scripts for name in re.findall(r"\bcount\('(\w+)'", script.read_text())}
    assert counted == COUNTERS.keys()


def test_every_event_is_counted(broker: Broker) -> None:
    bury(broker)
    broker.requeue()
    fail(broker, claim_one(broker), retries=0)
    broker.discard()
    retried = submit(broker)
    fail(broker, claim_one(broker))
    broker.cancel(retried)
    lost = submit(broker)
    late = claim_one(broker)
    assert lose(broker, lost).recovered == 1
    assert complete(broker, late) == "stale"
    broker.release("worker-1", claim(broker))
    told = stats(broker).counters
    assert told == dict.fromkeys(COUNTERS, 1) | {"submitted": 3, "dead_lettered": 2}
    assert told == counters(broker)


def test_a_counter_that_is_not_known_here_is_told_all_the_same(broker: Broker) -> None:
    broker.redis.hincrby(broker.keys.counters, "of a newer version", 3)
    assert stats(broker).counters["of a newer version"] == 3
    assert samples(broker)["dtq_tasks_submitted_total", ""] == 0


# ---------------------------------------------------------------- documents of any size


def test_payloads_are_not_read(broker: Broker) -> None:
    submit(broker, data="x" * 500_000)
    finish(broker, claim_one(broker), 0.5, result=b'"' + b"y" * 500_000 + b'"')
    before = broker.redis.info("stats")["total_net_output_bytes"]
    assert stats(broker).by_type[0].run_s.p50 == 0.5
    assert broker.redis.info("stats")["total_net_output_bytes"] - before < 100_000


def test_a_task_with_a_long_history_is_read_whole(broker: Broker) -> None:
    task_id = submit(broker, max_retries=100)
    for attempt in range(1, 31):
        task = claim_one(broker)
        assert task.attempts == attempt
        error = "\N{SNOWMAN}" * 1000
        report(broker, Failed(held(task_id, attempt), 0.0, time.monotonic(), "failed", error, 100))
        make_due(broker, task_id)
        wait_until(lambda: maintain(broker).due or broker.counts()["pending"])
    finish(broker, claim_one(broker), 0.5)
    assert [(group.completed, group.run_s.p99) for group in stats(broker).by_type] == [(1, 0.5)]


def test_a_document_that_somebody_deleted_is_left_out(broker: Broker) -> None:
    run_tasks(broker, [0.5, 0.25])
    gone, _ = broker.redis.zrange(broker.keys.completed_at, 0, -1)
    broker.redis.delete(broker.keys.task + gone.decode())
    told = stats(broker)
    assert (told.completed, [group.completed for group in told.by_type]) == (2, [1])


def test_each_queue_has_its_own_figures(broker: Broker, redis_url: str) -> None:
    run_tasks(broker, [0.5])
    prefix = broker.settings.key_prefix + "other:"
    with closing(Broker(redis_url, broker.settings.model_copy(update={"key_prefix": prefix}))) as other:
        assert (stats(broker).completed, stats(other).completed) == (1, 0)
