"""When the time of all results is up, nothing of the tasks is left: memory does not grow with them."""

from collections.abc import Callable

import pytest

import dtq.queue.maintenance
from dtq.queue import bounds
from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import new_task, wait_until
from tests.steps import bury, claim, claim_one, complete, counters, fail, maintain, run, submit


def names(broker: Broker) -> set[str]:
    """All keys of this queue, as they would be called without a prefix."""
    prefix = broker.settings.key_prefix
    return {key.decode().removeprefix(prefix) for key in broker.redis.scan_iter(match=prefix + "*")}


def every_fate(broker: Broker) -> int:
    """Tasks of all kinds that come to all ends; returns how many were completed."""
    run(broker, submit(broker))
    broker.cancel(submit(broker))
    broker.cancel(submit(broker, delay=60.0, priority="high"))

    parent = submit(broker)
    child = submit(broker, depends_on=[parent])
    grandchild = submit(broker, depends_on=[parent, child])
    for task_id in (parent, child, grandchild):
        run(broker, task_id)

    unlucky = submit(broker)
    assert fail(broker, claim_one(broker)) == "retry"
    submit(broker, depends_on=[unlucky])
    broker.cancel(unlucky)  # and its child

    waits_for_two = [submit(broker), submit(broker)]
    broker.cancel(submit(broker, depends_on=waits_for_two))
    for task_id in waits_for_two:
        run(broker, task_id)

    dead = bury(broker)
    submit(broker, depends_on=[submit(broker, depends_on=[dead])])
    assert broker.discard([dead]) == [dead]
    again = bury(broker)
    assert broker.requeue() == [again]
    run(broker, again)
    return 7


@pytest.mark.parametrize(
    ("settings", "kept"), [({}, 5), ({"dead_letter_max": 3}, 3), ({"dead_letter_ttl": 1}, 0)], ids=str
)
def test_only_figures_workers_and_the_dead_letter_are_left(
    make_broker: Callable[..., Broker], settings: dict[str, int], kept: int
) -> None:
    broker = make_broker(result_ttl=1, **settings)
    completed = sum(every_fate(broker) for _ in range(3))
    dead = [bury(broker) for _ in range(5)][5 - kept :]
    assert "metrics:completed_at" in names(broker)

    left = {"tasks:completed", "metrics:run_seconds", "metrics:counters", "workers:active", "worker:worker-1"}
    left |= {f"task:{task_id}" for task_id in dead} | ({"tasks:dead_letter"} if dead else set())
    passing = {"tasks:maintained", "tasks:wake", "tasks:high_streak"}  # a key each, however many tasks

    def only_these() -> bool:
        broker.heartbeat(WorkerInfo(id="worker-1", status="idle"))
        maintain(broker)
        return names(broker) - passing == left

    wait_until(only_these, what=f"only {left} are left")
    assert broker.counts()["completed"] == completed
    assert counters(broker)["submitted"] == 3 * 15 + 5
    assert [task.id for task in broker.tasks()] == dead[::-1]


def test_the_deletion_of_many_is_done_in_bounded_steps(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "WORK", 100)
    monkeypatch.setattr(bounds, "SAMPLE", 10)
    monkeypatch.setattr(bounds, "SLICES", 1)
    broker = make_broker(result_ttl=1)
    broker.submit([new_task() for _ in range(250)])
    while tasks := claim(broker, n=250):
        for task in tasks:
            complete(broker, task)
    monkeypatch.setattr(dtq.queue.maintenance, "INTERVAL", 60)
    wait_until(lambda: broker.redis.zcount(broker.keys.finished, 0, _ttl_ago(broker)) == 250)
    broker.redis.delete(broker.keys.maintained)
    assert [broker.maintain().deleted for _ in range(4)] == [110, 110, 30, 0]
    assert not {"tasks:finished", "metrics:task_times", "metrics:completed_at"} & names(broker)


def _ttl_ago(broker: Broker) -> float:
    return float(broker.redis.time()[0] - broker.settings.result_ttl)
