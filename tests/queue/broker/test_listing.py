"""Get, list and count: what the queue tells about itself without changing anything."""

from collections.abc import Callable

import pytest

import dtq.queue.broker
from dtq.queue.broker import Broker
from dtq.queue.task import Status
from tests.helpers import new_task
from tests.steps import (
    bury,
    claim,
    claim_one,
    complete,
    fail,
    lose,
    run,
    snapshot,
    status,
    stored,
    submit,
)


def one_of_each(broker: Broker) -> dict[str, str]:
    """Status → id, for every status there is."""
    ids = {"completed": submit(broker, "a")}
    run(broker, ids["completed"])
    ids["failed"] = bury(broker, type="b")
    ids["retrying"] = submit(broker, "a")
    fail(broker, claim_one(broker))
    ids["cancelled"] = submit(broker, "b")
    broker.cancel(ids["cancelled"])
    ids["processing"] = submit(broker, "a")
    claim_one(broker)
    ids["scheduled"] = submit(broker, "b", delay=60.0)
    ids["waiting"] = submit(broker, "a", depends_on=[ids["processing"]])
    ids["pending"] = submit(broker, "b")
    return ids


def listed(broker: Broker, *args: object, **options: object) -> list[str]:
    return [task.id for task in broker.tasks(*args, **options)]  # type: ignore[arg-type]


def test_an_unknown_task(broker: Broker) -> None:
    assert broker.get("ghost") is None
    assert (broker.tasks(), broker.workers()) == ([], [])


def test_every_status_can_be_listed(broker: Broker) -> None:
    ids = one_of_each(broker)
    assert {name: listed(broker, Status(name)) for name in Status} == {name: [ids[name]] for name in Status}


def test_without_a_filter_all_are_listed_the_newest_first(broker: Broker) -> None:
    ids = one_of_each(broker)
    found = broker.tasks()
    assert {task.id: task.status for task in found} == {task_id: name for name, task_id in ids.items()}
    times = [task.created_at.timestamp() for task in found if task.created_at]
    assert times == sorted(times, reverse=True)


def test_by_type_and_by_both(broker: Broker) -> None:
    ids = one_of_each(broker)
    assert set(listed(broker, type="a")) == {
        ids[name] for name in ("completed", "retrying", "processing", "waiting")
    }
    assert listed(broker, Status.PENDING, "a") == []
    assert listed(broker, Status.PENDING, "b") == [ids["pending"]]


def test_both_priorities_are_pending(broker: Broker) -> None:
    ids = [submit(broker), submit(broker, priority="high")]
    assert sorted(listed(broker, Status.PENDING)) == sorted(ids)


def test_the_limit_counts_what_passed_the_filter(broker: Broker) -> None:
    wanted = [submit(broker, "rare") for _ in range(3)]
    broker.submit([new_task() for _ in range(300)])
    assert sorted(listed(broker, type="rare")) == sorted(wanted)
    assert len(listed(broker, type="rare", limit=2)) == 2
    assert len(listed(broker)) == 50
    assert len(listed(broker, limit=250)) == 250


@pytest.mark.parametrize("place", ["pending", "completed"])
def test_of_many_the_newest_are_listed(broker: Broker, place: str) -> None:
    names = [f"task-{n:03}" for n in range(120)]
    broker.submit([new_task(id=name) for name in names])
    if place == "completed":
        for task in claim(broker, n=120):
            complete(broker, task)
    assert sorted(listed(broker, Status(place), limit=50)) == names[-50:]


def test_a_filtered_listing_looks_at_so_many_and_no_more(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtq.queue.broker, "SCAN_LIMIT", 200)
    buried = submit(broker, "rare")
    broker.submit([new_task() for _ in range(200)])
    assert listed(broker, type="rare") == []
    assert status(broker, buried) == "pending"


def test_counts_of_each_place(broker: Broker) -> None:
    nothing = dict.fromkeys(
        [
            "pending", "pending_high", "parked", "processing", "delayed", "waiting", "dead_letter",
            "unreadable", "completed",
        ],
        0,
    )  # fmt: skip
    assert broker.counts() == nothing
    one_of_each(broker)
    submit(broker, priority="high")
    assert broker.counts() == nothing | {
        "pending": 2, "pending_high": 1, "processing": 1, "delayed": 2, "waiting": 1, "dead_letter": 1,
        "completed": 1,
    }  # fmt: skip


def test_counters_tell_what_ever_happened(broker: Broker) -> None:
    ids = one_of_each(broker)
    lose(broker, ids["processing"])
    counted = {name.decode(): int(n) for name, n in broker.redis.hgetall(broker.keys.counters).items()}
    assert counted == {"submitted": 8, "retried": 1, "dead_lettered": 1, "cancelled": 1, "recovered": 1}


def test_looking_changes_nothing(broker: Broker) -> None:
    ids = one_of_each(broker)
    before = snapshot(broker)
    for task_id in ids.values():
        assert broker.get(task_id)
    assert broker.tasks()
    assert broker.counts()
    assert broker.workers() == []
    assert snapshot(broker) == before


def test_times_are_in_utc(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    task = stored(broker, submit(broker))
    assert task is not None
    assert str(task.created_at.tzinfo) == "UTC"
