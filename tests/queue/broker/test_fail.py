"""Fail: 2, 4, 8 seconds and then the dead letter; what went wrong stays on record."""

from collections.abc import Callable

import pytest

from dtq.queue.broker import Broker
from dtq.queue.task import Stored
from tests.steps import (
    awake,
    claim_one,
    complete,
    counters,
    fail,
    failed,
    lose,
    maintain,
    make_due,
    now,
    places,
    report,
    snapshot,
    status,
    stored,
    submit,
)


def again(broker: Broker, task_id: str, worker: str = "worker-1") -> Stored:
    """Claims the task as soon as it is due, which is now."""
    make_due(broker, task_id)
    assert maintain(broker).due == 1
    return claim_one(broker, worker)


def waits(broker: Broker, retries: int) -> list[float]:
    """Fails one task until it is dead; the waits that were announced."""
    task_id = submit(broker)
    task, found = claim_one(broker), []
    while (verdict := report(broker, failed(task, retries))).word == "retry":
        assert verdict.retry == len(found) + 1
        found.append(verdict.wait)
        task = again(broker, task_id)
    assert verdict[1:] == ("failed", 0, 0)
    return found


def test_waits_double_from_two_seconds(make_broker: Callable[..., Broker]) -> None:
    assert waits(make_broker(backoff_jitter=0), retries=3) == [2, 4, 8]


def test_waits_are_capped(make_broker: Callable[..., Broker]) -> None:
    assert waits(make_broker(backoff_base=1, backoff_cap=5, backoff_jitter=0), retries=5) == [1, 2, 4, 5, 5]


def test_waits_vary_so_that_a_herd_does_not_come_back_at_once(make_broker: Callable[..., Broker]) -> None:
    found = waits(make_broker(backoff_base=1, backoff_cap=1, backoff_jitter=0.5), retries=20)
    assert all(1 <= wait <= 1.5 for wait in found)
    assert len(set(found)) > 10


def test_a_retry_is_due_when_it_was_said(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(backoff_jitter=0)
    task_id = submit(broker)
    task, before = claim_one(broker), now(broker)
    assert report(broker, failed(task))[1:] == ("retry", 1, 2)

    assert (status(broker, task_id), places(broker, task_id)) == ("retrying", ["delayed"])
    due = broker.redis.zscore(broker.keys.delayed, task_id)
    assert before + 1.999 <= due <= now(broker) + 2
    task = stored(broker, task_id)
    assert task.due.timestamp() == pytest.approx(due, abs=2e-4)
    assert (task.retry_count, task.worker_id, task.error) == (1, None, "boom")
    assert counters(broker)["retried"] == 1


def test_the_wait_begins_with_the_report_however_late_it_comes(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(backoff_jitter=0)
    task_id = submit(broker)
    late, before = failed(claim_one(broker)), now(broker)
    assert report(broker, late._replace(ended=late.ended - 60))[1:] == ("retry", 1, 2)

    due = broker.redis.zscore(broker.keys.delayed, task_id)
    assert before + 1.999 <= due <= now(broker) + 2
    ended_at = stored(broker, task_id).history[-1].ended_at.timestamp()
    assert ended_at <= due - 61.999, "the record says when the attempt ended"


def test_the_dead_letter_after_the_last_retry(broker: Broker) -> None:
    assert len(waits(broker, retries=3)) == 3
    [task] = broker.tasks()
    assert (task.status, task.attempts, task.retry_count, task.error) == ("failed", 4, 3, "boom")
    assert places(broker, task.id) == ["dead_letter"]
    assert (counters(broker)["retried"], counters(broker)["dead_lettered"]) == (3, 1)


def test_hopeless_failures_are_dead_at_once(broker: Broker) -> None:
    task_id = submit(broker)
    assert fail(broker, claim_one(broker), retries=0) == "failed"
    assert (status(broker, task_id), places(broker, task_id)) == ("failed", ["dead_letter"])


def test_a_failure_that_waits_wakes_nobody(broker: Broker) -> None:
    submit(broker)
    broker.wait(1)
    fail(broker, claim_one(broker))
    assert not awake(broker)


def test_history_has_an_entry_for_each_attempt_that_ended_badly(broker: Broker) -> None:
    task_id = submit(broker)
    report(broker, failed(claim_one(broker, "ann"), error="first"), "ann")
    report(broker, failed(again(broker, task_id, "bob"), outcome="timeout", error="second"), "bob")
    complete(broker, again(broker, task_id, "ann"), "ann")

    task = stored(broker, task_id)
    assert [(entry.attempt, entry.worker, entry.outcome, entry.error) for entry in task.history] == [
        (1, "ann", "failed", "first"),
        (2, "bob", "timeout", "second"),
    ]
    moments = [moment for entry in task.history for moment in (entry.started_at, entry.ended_at)]
    assert [*moments, task.started_at] == sorted([*moments, task.started_at])


def test_history_shows_the_time_in_the_handler(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker)
    ended = failed(task)
    report(broker, ended._replace(duration=0.002, ended=ended.ended - 0.5))  # ended before it began: clocks
    [entry] = stored(broker, task_id).history
    assert entry.ended_at.timestamp() <= now(broker) - 0.499
    assert entry.started_at >= task.started_at


def test_history_keeps_the_last_fifty(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(backoff_base=0.001, backoff_cap=0.001)
    assert len(waits(broker, retries=60)) == 60
    [task] = broker.tasks()
    assert [entry.attempt for entry in task.history] == list(range(12, 62))


@pytest.mark.parametrize("retries", [3, 0], ids=["retrying", "dead"])
def test_repeated_says_so_and_changes_nothing(broker: Broker, retries: int) -> None:
    submit(broker)
    task = claim_one(broker)
    fail(broker, task, retries=retries)
    before = snapshot(broker)
    assert fail(broker, task, retries=retries) == "repeated"
    assert snapshot(broker) == before


def test_repeated_after_another_worker_has_begun(broker: Broker) -> None:
    task_id = submit(broker)
    first = claim_one(broker, "ann")
    fail(broker, first, "ann")
    again(broker, task_id, "bob")
    assert fail(broker, first, "ann") == "repeated"
    assert (places(broker, task_id), stored(broker, task_id).worker_id) == (["processing"], "bob")


def test_late_failure_is_refused_and_counted(broker: Broker) -> None:
    task_id = submit(broker)
    slow = claim_one(broker, "slow")
    lose(broker, task_id)
    quick = claim_one(broker, "quick")
    assert fail(broker, slow, "slow") == "stale"
    assert complete(broker, quick, "quick") == "completed"
    assert fail(broker, slow, "slow", retries=0) == "stale"
    assert (status(broker, task_id), counters(broker)["stale"]) == ("completed", 2)


def test_another_workers_task_is_refused(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker, "ann")
    assert fail(broker, task, "bob") == "stale"
    assert places(broker, task_id) == ["processing"]


def test_a_failure_after_the_result_is_refused(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker)
    complete(broker, task)
    assert fail(broker, task) == "stale"
    assert status(broker, task_id) == "completed"


def test_a_failure_is_no_crash(broker: Broker) -> None:
    submit(broker)
    fail(broker, claim_one(broker))
    [task] = broker.tasks()
    assert (task.crashes, task.retry_count) == (0, 1)
