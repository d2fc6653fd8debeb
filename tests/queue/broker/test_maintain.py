"""Maintain: what time brings about, done by whoever comes first, so much at a time."""

from collections.abc import Callable

import pytest

import dtq.queue.maintenance
from dtq.queue import bounds
from dtq.queue.broker import Broker, Maintained
from tests.helpers import new_task, wait_until
from tests.steps import (
    awake,
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
    now,
    places,
    run,
    snapshot,
    status,
    stored,
    submit,
)


def test_nothing_to_do(broker: Broker) -> None:
    assert maintain(broker) == Maintained(0, 0, 0, 0, 0, 0)


def test_only_the_first_of_several_processes_does_it(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtq.queue.maintenance, "INTERVAL", 60)
    one, other = make_broker(), make_broker()
    assert one.maintain() == Maintained()
    make_due(one, submit(one, delay=60.0))
    assert [broker.maintain() for broker in (one, other)] == [Maintained()] * 2
    assert maintain(other).due == 1


def test_it_is_done_again_after_the_interval(broker: Broker) -> None:
    broker.maintain()
    make_due(broker, submit(broker, delay=60.0))
    wait_until(lambda: broker.maintain().due == 1)
    assert broker.counts()["pending"] == 1


# ---------------------------------------------------------------- due tasks


def test_due_tasks_go_to_the_end_of_their_queues_the_earliest_first(broker: Broker) -> None:
    later, sooner, high = (submit(broker, delay=60.0, priority=p) for p in ("normal", "normal", "high"))
    waiting = submit(broker)
    broker.wait(1)
    make_due(broker, sooner, later, high)
    assert maintain(broker).due == 3
    assert awake(broker)
    task = stored(broker, sooner)
    assert (task.status, task.due, places(broker, sooner)) == ("pending", None, ["pending"])
    assert [task.id for task in claim(broker, n=4)] == [high, waiting, sooner, later]


def test_what_is_not_due_stays(broker: Broker) -> None:
    early, late = submit(broker, delay=60.0), submit(broker, delay=60.0)
    make_due(broker, early)
    assert maintain(broker).due == 1
    assert (status(broker, early), status(broker, late)) == ("pending", "scheduled")


def test_a_delayed_task_runs_when_its_time_has_come(broker: Broker) -> None:
    task_id = submit(broker, delay=0.05)
    assert claim(broker) == []
    wait_until(lambda: maintain(broker).due)
    run(broker, task_id)
    assert status(broker, task_id) == "completed"


# ---------------------------------------------------------------- lost workers


def test_tasks_of_a_silent_worker_go_to_the_front_the_oldest_first(broker: Broker) -> None:
    broker.submit([new_task(id=name) for name in "abcd"])
    claim(broker, n=3)
    assert lose(broker, "a", "b", "c").recovered == 3
    order = [claim_one(broker, "worker-2").id for _ in range(4)]
    assert order == list("abcd")
    assert counters(broker)["recovered"] == 3


def test_a_lost_attempt_is_on_record(broker: Broker) -> None:
    task_id = submit(broker)
    broker.wait(1)
    claimed = claim_one(broker, "ann")
    lose(broker, task_id)

    task = stored(broker, task_id)
    assert (task.status, task.crashes, task.retry_count, task.worker_id) == ("pending", 1, 0, None)
    [entry] = task.history
    assert (entry.attempt, entry.worker, entry.outcome) == (1, "ann", "worker lost")
    assert entry.error == task.error == "ann was silent for 15 s"
    assert entry.started_at == claimed.started_at
    assert entry.ended_at >= entry.started_at
    assert places(broker, task_id) == ["pending"]
    assert awake(broker)


def test_a_lease_ends_by_itself(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(lease=0.1)
    task_id = submit(broker)
    claim_one(broker)
    ends = broker.redis.zscore(broker.keys.processing, task_id)
    wait_until(lambda: maintain(broker).recovered == 1)
    assert now(broker) >= ends
    assert claim_one(broker, "worker-2").id == task_id


def test_three_crashes_and_a_task_is_dead(broker: Broker) -> None:
    task_id = submit(broker)
    for crashes in (1, 2):
        claim_one(broker)
        assert lose(broker, task_id)[1:3] == (1, 0)
        assert stored(broker, task_id).crashes == crashes
    claim_one(broker)
    assert lose(broker, task_id)[1:3] == (0, 1)

    task = stored(broker, task_id)
    assert (task.status, task.crashes, task.attempts) == ("failed", 3, 3)
    assert [entry.outcome for entry in task.history] == ["worker lost"] * 3
    assert places(broker, task_id) == ["dead_letter"]
    assert (counters(broker)["recovered"], counters(broker)["dead_lettered"]) == (2, 1)
    assert broker.requeue() == [task_id]
    assert stored(broker, task_id).crashes == 0


def test_failures_between_crashes_do_not_reset_them(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(max_crashes=2)
    task_id = submit(broker)
    claim_one(broker)
    lose(broker, task_id)
    fail(broker, claim_one(broker))
    make_due(broker, task_id)
    maintain(broker)
    claim_one(broker)
    assert lose(broker, task_id).dead == 1
    [entry, *rest] = stored(broker, task_id).history
    assert [entry.outcome, *(other.outcome for other in rest)] == ["worker lost", "failed", "worker lost"]


def test_neighbours_of_a_poisonous_task_survive(broker: Broker) -> None:
    """The worker dies of `bad` each time, whatever else it had claimed; all else gets done."""
    names = ["a", "bad", "b", "c"]
    broker.submit([new_task(id=name) for name in names])
    while tasks := claim(broker, n=64):
        for task in tasks:
            if task.id == "bad":
                lose(broker, *(other.id for other in tasks if status(broker, other.id) == "processing"))
                break
            complete(broker, task)
    assert {name: status(broker, name) for name in names} == {
        "a": "completed", "bad": "failed", "b": "completed", "c": "completed",
    }  # fmt: skip


# ---------------------------------------------------------------- clean-up


def test_old_results_are_deleted_with_all_that_belongs_to_them(broker: Broker) -> None:
    done, cancelled, young = submit(broker), submit(broker), submit(broker)
    run(broker, done)
    broker.cancel(cancelled)
    run(broker, young)
    make_old(broker, done, cancelled)
    assert maintain(broker).deleted == 2

    assert [status(broker, task_id) for task_id in (done, cancelled, young)] == [None, None, "completed"]
    assert places(broker, done) == places(broker, cancelled) == []
    traces = [key for key in snapshot(broker) if done in key.decode() or cancelled in key.decode()]
    assert traces == []
    assert broker.redis.zrange(broker.keys.task_times, 0, -1) == [young.encode()]
    assert broker.counts()["completed"] == 2


def test_a_result_goes_when_its_time_is_up(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(result_ttl=1)
    task_id = submit(broker)
    run(broker, task_id)
    assert maintain(broker).deleted == 0
    wait_until(lambda: maintain(broker).deleted == 1)
    assert broker.get(task_id) is None
    assert broker.counts()["completed"] == 1


def test_unfinished_tasks_are_kept_for_ever(broker: Broker) -> None:
    dead = bury(broker)
    kept = {dead: "failed"}
    kept |= {submit(broker, depends_on=[dead]): "waiting", submit(broker, delay=60.0): "scheduled"}
    kept |= {submit(broker): "pending"}
    maintain(broker)
    assert {task_id: status(broker, task_id) for task_id in kept} == kept
    assert {broker.redis.ttl(broker.keys.task + task_id) for task_id in kept} == {-1}


# ---------------------------------------------------------------- bounds


@pytest.fixture
def two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "WORK", 2)
    monkeypatch.setattr(bounds, "SLICES", 1)


@pytest.mark.usefixtures("two_at_a_time")
def test_one_call_does_so_much_and_the_next_caller_goes_on_at_once(broker: Broker) -> None:
    delayed = [submit(broker, delay=60.0) for _ in range(5)]
    make_due(broker, *delayed)
    assert [broker.maintain().due for _ in range(4)] == [2, 2, 1, 0]
    assert broker.counts()["pending"] == 5


@pytest.mark.usefixtures("two_at_a_time")
def test_kept_parents_do_not_block_the_clean_up_of_others(broker: Broker) -> None:
    parents = [submit(broker) for _ in range(3)]
    for parent in parents:
        run(broker, parent)
    submit(broker, depends_on=parents)
    old = submit(broker, priority="high")
    run(broker, old)
    make_old(broker, *parents, old)
    deleted = sum(maintain(broker).deleted for _ in range(4))
    assert (deleted, status(broker, old)) == (1, None)
    assert [status(broker, parent) for parent in parents] == ["completed"] * 3


@pytest.mark.usefixtures("two_at_a_time")
def test_the_whole_dead_letter_is_dealt_with_however_long(broker: Broker) -> None:
    dead = [bury(broker) for _ in range(5)]
    assert broker.requeue() == dead
    while tasks := claim(broker, n=5):
        assert {fail(broker, task, retries=0) for task in tasks} == {"failed"}
    assert broker.discard() == dead
    assert broker.counts()["dead_letter"] == 0
