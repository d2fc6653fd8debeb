"""A worker claims only the types that it knows; other tasks wait for a worker that knows theirs."""

from collections.abc import Sequence

import pytest

from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import new_task
from tests.steps import (
    awake,
    completed,
    end_leases,
    maintain,
    places,
    status,
    stored,
    submit,
)


def claims(broker: Broker, worker: str, *types: str, n: int = 10) -> list[str]:
    return [task.id for task in broker.report_and_claim(worker, [], n, types)[1]]


def one_by_one(broker: Broker, *types: str) -> list[str]:
    found: list[str] = []
    while some := claims(broker, "ann", *types, n=1):
        found += some
    return found


def named(broker: Broker, names: Sequence[str], type: str, **options: str) -> None:
    broker.submit([new_task(type, id=name, **options) for name in names])


def test_what_a_worker_does_not_know_stays_pending(broker: Broker) -> None:
    named(broker, "ab", "rare")
    named(broker, "cd", "noop")
    assert claims(broker, "ann", "noop") == ["c", "d"]
    task = stored(broker, "a")
    assert (task.status, task.attempts, places(broker, "a")) == ("pending", 0, ["parked"])
    counts = broker.counts()
    assert (counts["pending"], counts["parked"], counts["dead_letter"]) == (2, 2, 0)
    assert claims(broker, "bob", "rare", "noop") == ["a", "b"]
    assert broker.counts()["parked"] == 0


def test_who_names_no_types_takes_all_that_is_in_the_queues(broker: Broker) -> None:
    named(broker, "a", "rare")
    named(broker, "b", "noop")
    assert claims(broker, "ann") == ["a", "b"]


def test_order_stays_within_a_type_and_the_oldest_type_comes_first(broker: Broker) -> None:
    named(broker, "abc", "red")
    named(broker, "de", "blue")
    named(broker, "f", "red")
    assert claims(broker, "ann", "noop") == []
    named(broker, "g", "red")
    assert one_by_one(broker, "red", "blue") == list("abcdefg")


def test_priorities_hold_among_the_parked(broker: Broker) -> None:
    named(broker, "ab", "rare")
    named(broker, "xy", "rare", priority="high")
    assert claims(broker, "ann", "noop") == []
    assert claims(broker, "bob", "rare") == ["x", "y", "a", "b"]


@pytest.mark.parametrize("end", ["released", "lost"])
def test_what_comes_back_comes_before_those_that_were_parked_later(broker: Broker, end: str) -> None:
    named(broker, "ab", "rare")
    [first, second] = broker.report_and_claim("bob", [], 2, ["rare"])[1]
    named(broker, "cd", "rare")
    assert claims(broker, "ann", "noop") == []
    if end == "released":
        assert broker.release("bob", [first, second]) == 2
    else:
        end_leases(broker, "a", "b")
        assert maintain(broker).recovered == 2
    assert [places(broker, name) for name in "abcd"] == [["parked"]] * 4
    assert one_by_one(broker, "rare") == list("abcd")


def test_parking_wakes_another_worker(broker: Broker) -> None:
    named(broker, "a", "rare")
    broker.wait(1)
    assert claims(broker, "ann", "noop") == []
    assert awake(broker), "for a worker that may know it"
    broker.wait(1)
    assert claims(broker, "ann", "noop") == []
    assert not awake(broker), "this one has nothing to do: it must not spin"
    named(broker, "b", "rare")
    assert claims(broker, "ann", "noop") == []
    broker.wait(1)
    assert claims(broker, "bob", "rare", n=1) == ["a"]
    assert awake(broker), "the next one has the rest"


def test_high_tasks_of_unknown_types_do_not_count_as_a_burst(broker: Broker) -> None:
    named(broker, [f"rare{n}" for n in range(12)], "rare", priority="high")
    named(broker, "xy", "noop", priority="high")
    named(broker, "a", "noop")
    assert claims(broker, "ann", "noop") == ["x", "y", "a"]


def test_a_parked_task_can_be_cancelled_and_is_listed(broker: Broker) -> None:
    task_id = submit(broker, "rare")
    child = submit(broker, depends_on=[task_id])
    claims(broker, "ann", "noop")
    assert [task.id for task in broker.tasks(type="rare")] == [task_id]
    assert broker.cancel(task_id) == "cancelled"
    assert [status(broker, one) for one in (task_id, child)] == ["cancelled"] * 2
    assert (places(broker, task_id), broker.counts()["parked"]) == (["finished"], 0)


def test_a_parked_task_completes_like_any_other(broker: Broker) -> None:
    task_id = submit(broker, "rare")
    claims(broker, "ann", "noop")
    [task] = broker.report_and_claim("bob", [], 1, ["rare"])[1]
    [verdict], _ = broker.report_and_claim("bob", [completed(task)], 0)
    assert (verdict.word, status(broker, task_id)) == ("completed", "completed")


def test_workers_publish_what_they_know(broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="ann", status="idle", types=["noop", "sleep"]))
    broker.heartbeat(WorkerInfo(id="bob", status="idle"))
    assert [worker.types for worker in broker.workers()] == [["noop", "sleep"], []]
    known = dict(broker.redis.zrange(broker.keys.types, 0, -1, withscores=True))
    assert known.keys() == {b"noop", b"sleep"}
    broker.redis.zadd(broker.keys.types, {"old": 1.0})
    maintain(broker)
    assert broker.redis.zrange(broker.keys.types, 0, -1) == [b"noop", b"sleep"]
