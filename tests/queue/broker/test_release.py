"""Release and heartbeat: a worker gives tasks back, or shows that it still works on them."""

from collections.abc import Callable

import pytest

from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import new_task, wait_until
from tests.steps import (
    awake,
    claim,
    claim_one,
    complete,
    counters,
    end_leases,
    lose,
    maintain,
    now,
    places,
    snapshot,
    status,
    stored,
    submit,
)


def test_given_back_tasks_come_first_in_their_old_order(broker: Broker) -> None:
    broker.submit([new_task(id=name) for name in "abcd"])
    tasks = claim(broker, n=3)
    assert broker.release("worker-1", tasks) == 3
    assert [task.id for task in claim(broker, "worker-2", n=4)] == list("abcd")
    assert counters(broker)["released"] == 3


def test_given_back_high_tasks_stay_high(broker: Broker) -> None:
    broker.submit([new_task(id="a"), new_task(id="x", priority="high"), new_task(id="y", priority="high")])
    broker.release("worker-1", claim(broker, n=2))
    assert [task.id for task in claim(broker, n=3)] == ["x", "y", "a"]


@pytest.mark.parametrize(("started", "next_attempt"), [(False, 1), (True, 2)])
def test_only_what_was_started_counts_as_an_attempt(broker: Broker, started: bool, next_attempt: int) -> None:
    task_id = submit(broker)
    broker.wait(1)
    assert broker.release("worker-1", [claim_one(broker)], started) == 1
    task = stored(broker, task_id)
    assert (task.status, task.worker_id, task.crashes, task.history) == ("pending", None, 0, [])
    assert places(broker, task_id) == ["pending"]
    assert awake(broker)
    assert claim_one(broker).attempts == next_attempt


def test_release_of_nothing_or_of_what_is_no_longer_ours(broker: Broker) -> None:
    lost_id, ended_id, held_id = (submit(broker) for _ in range(3))
    lost, ended, held = claim(broker, n=3)
    lose(broker, lost_id)
    complete(broker, ended)
    before = snapshot(broker)
    assert broker.release("worker-1", []) == 0
    assert broker.release("worker-1", [lost, ended]) == 0
    assert broker.release("worker-2", [held]) == 0
    assert snapshot(broker) == before
    assert [status(broker, task_id) for task_id in (lost_id, ended_id, held_id)] == [
        "pending",
        "completed",
        "processing",
    ]


def test_repeated_release_is_a_no_op(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker)
    assert [broker.release("worker-1", [task]) for _ in range(2)] == [1, 0]
    assert places(broker, task_id) == ["pending"]


def test_a_released_task_is_no_longer_the_workers_to_complete(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker, "ann")
    broker.release("ann", [task])
    assert complete(broker, task, "ann") == "stale"
    other = claim_one(broker, "bob")
    assert (other.attempts, complete(broker, task, "ann")) == (1, "stale")
    assert complete(broker, other, "bob") == "completed"
    assert status(broker, task_id) == "completed"


# ---------------------------------------------------------------- heartbeat


def test_a_beat_registers_the_worker(make_broker: Callable[..., Broker]) -> None:
    broker, before = make_broker(heartbeat=200), 0.0
    before = now(broker)
    shown = WorkerInfo(id="ann", status="busy", current_task="t", tasks_processed=7, host="here", pid=42)
    assert broker.heartbeat(shown) == set()

    [worker] = broker.workers()
    assert worker.started_at == worker.last_heartbeat
    assert before - 0.001 <= worker.started_at.timestamp() <= now(broker)
    assert worker == WorkerInfo(
        id="ann", status="busy", current_task="t", tasks_processed=7, host="here", pid=42,
        started_at=worker.started_at, last_heartbeat=worker.last_heartbeat,
    )  # fmt: skip
    assert 500_000 < broker.redis.pttl(broker.keys.worker + "ann") <= 600_000


def test_a_second_beat_keeps_the_start_and_shows_the_new_state(broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="ann", status="idle"))
    [first] = broker.workers()
    wait_until(lambda: now(broker) > first.last_heartbeat.timestamp() + 0.001)
    broker.heartbeat(WorkerInfo(id="ann", status="draining"))
    [second] = broker.workers()
    assert (second.status, second.started_at) == ("draining", first.started_at)
    assert second.last_heartbeat > first.last_heartbeat


def test_a_silent_worker_is_not_shown_and_then_struck_off(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(heartbeat=0.01)
    broker.heartbeat(WorkerInfo(id="ann", status="idle"))
    wait_until(lambda: broker.workers() == [], what="the sign of life expires")
    assert maintain(broker).lost_workers == 1
    assert not broker.redis.exists(broker.keys.workers)


def test_a_worker_that_was_struck_off_comes_back_with_its_next_beat(broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="ann", status="idle"))
    broker.redis.delete(broker.keys.worker + "ann")
    assert maintain(broker).lost_workers == 1
    broker.heartbeat(WorkerInfo(id="ann", status="idle"))
    assert [worker.id for worker in broker.workers()] == ["ann"]
    assert maintain(broker).lost_workers == 0


def test_workers_are_shown_by_id_and_say_goodbye(broker: Broker) -> None:
    for name in ("cid", "ann", "bob"):
        broker.heartbeat(WorkerInfo(id=name, status="idle"))
    broker.deregister("bob")
    broker.deregister("bob")
    assert [worker.id for worker in broker.workers()] == ["ann", "cid"]
    assert maintain(broker).lost_workers == 0


def test_a_beat_extends_the_leases_of_what_is_held(broker: Broker) -> None:
    broker.submit([new_task(), new_task()])
    held = claim(broker, n=2)
    end_leases(broker, *(task.id for task in held))
    before = now(broker)
    assert broker.heartbeat(WorkerInfo(id="worker-1", status="busy"), held) == set()
    ends = [broker.redis.zscore(broker.keys.processing, task.id) for task in held]
    assert all(before + 14.999 <= end <= now(broker) + 15 for end in ends)
    assert maintain(broker).recovered == 0


def test_a_beat_tells_what_was_lost_and_leaves_it_alone(broker: Broker) -> None:
    broker.submit([new_task(id=name) for name in "abcd"])
    held = claim(broker, "slow", n=4)
    complete(broker, held[0], "slow")
    lose(broker, "b", "c")
    claim_one(broker, "quick")
    lease_of_b = broker.redis.zscore(broker.keys.processing, "b")
    assert broker.heartbeat(WorkerInfo(id="slow", status="busy"), held) == {"a", "b", "c"}
    assert broker.redis.zscore(broker.keys.processing, "b") == lease_of_b
    assert [places(broker, name) for name in "abcd"] == [
        ["finished"],
        ["processing"],
        ["pending"],
        ["processing"],
    ]


def test_a_beat_does_not_extend_an_older_attempt(broker: Broker) -> None:
    task_id = submit(broker)
    first = claim_one(broker)
    lose(broker, task_id)
    second = claim_one(broker)
    assert broker.heartbeat(WorkerInfo(id="worker-1", status="busy"), [first]) == {task_id}
    assert broker.heartbeat(WorkerInfo(id="worker-1", status="busy"), [second]) == set()
