"""Claim: who gets which task when, and the marker that wakes the next worker."""

from collections.abc import Callable

import pytest

from dtq.queue.broker import Broker
from dtq.queue.task import Stored
from tests.helpers import new_task
from tests.steps import (
    awake,
    claim,
    claim_one,
    lose,
    maintain,
    now,
    places,
    submit,
)


def ids(tasks: list[Stored]) -> list[str]:
    return [task.id for task in tasks]


def submit_named(broker: Broker, names: str, **options: str) -> None:
    broker.submit([new_task(id=name, **options) for name in names.split()])


def test_a_claimed_task_is_this_workers_until_its_lease_ends(broker: Broker) -> None:
    task_id, before = submit(broker, data={"a": []}), now(broker)
    task = claim_one(broker, "ann")

    assert (task.id, bytes(task.data)) == (task_id, b'{"a":[]}')
    assert (task.status, task.worker_id, task.attempts) == ("processing", "ann", 1)
    assert places(broker, task_id) == ["processing"]
    assert before - 0.001 <= task.started_at.timestamp() <= now(broker)
    lease_ends = broker.redis.zscore(broker.keys.processing, task_id)
    assert lease_ends == pytest.approx(task.started_at.timestamp() + broker.settings.lease)
    assert broker.get(task_id) == task


def test_nothing_to_claim(broker: Broker) -> None:
    assert claim(broker, n=64) == []


def test_a_task_is_claimed_once(broker: Broker) -> None:
    task_id = submit(broker)
    assert (ids(claim(broker, "ann")), ids(claim(broker, "bob"))) == ([task_id], [])


def test_no_more_than_asked_for(broker: Broker) -> None:
    submit_named(broker, "a b c d e")
    assert [ids(claim(broker, n=n)) for n in (2, 0, 1, 64)] == [["a", "b"], [], ["c"], ["d", "e"]]


def test_first_in_first_out_over_several_submissions(broker: Broker) -> None:
    submit_named(broker, "a b")
    submit_named(broker, "c")
    assert ids(claim(broker, n=3)) == ["a", "b", "c"]


def test_high_before_normal(broker: Broker) -> None:
    submit_named(broker, "a b c")
    submit_named(broker, "x y", priority="high")
    assert ids(claim(broker, n=5)) == ["x", "y", "a", "b", "c"]


@pytest.mark.parametrize("n", [1, 3, 64], ids="{} at once".format)
def test_a_normal_task_has_its_turn_after_a_burst_of_high_ones(
    make_broker: Callable[..., Broker], n: int
) -> None:
    broker = make_broker(high_burst=2)
    submit_named(broker, "a b c")
    submit_named(broker, "q r s t u", priority="high")
    order: list[str] = []
    while claimed := ids(claim(broker, n=n)):
        order += claimed
    assert order == ["q", "r", "a", "s", "t", "b", "u", "c"]


def test_the_default_burst_is_ten(broker: Broker) -> None:
    broker.submit([new_task(), *(new_task(priority="high") for _ in range(12))])
    assert [task.priority for task in claim(broker, n=13)] == ["high"] * 10 + ["normal"] + ["high"] * 2


def test_a_burst_counts_only_while_a_normal_task_looks_on(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(high_burst=2)
    submit_named(broker, "q r", priority="high")
    assert ids(claim(broker, n=2)) == ["q", "r"]
    submit_named(broker, "a")
    submit_named(broker, "t u v", priority="high")
    assert ids(claim(broker, n=4)) == ["t", "u", "a", "v"]


def test_a_burst_begins_anew_where_no_normal_task_looks_on_any_more(
    make_broker: Callable[..., Broker],
) -> None:
    broker = make_broker(high_burst=2)
    submit_named(broker, "a")
    submit_named(broker, "q r", priority="high")
    assert ids(claim(broker)) == ["q"]
    broker.cancel("a")
    assert ids(claim(broker)) == ["r"]
    submit_named(broker, "b")
    submit_named(broker, "s t u", priority="high")
    assert ids(claim(broker, n=4)) == ["s", "t", "b", "u"]


@pytest.mark.parametrize("before", ["q", "q r"], ids=["before its turn", "in its turn"])
def test_a_burst_begins_anew_after_each_normal_task(make_broker: Callable[..., Broker], before: str) -> None:
    broker = make_broker(high_burst=2)
    submit_named(broker, "a b")
    submit_named(broker, before, priority="high")
    first = [*before.split(), "a"]
    assert [ids(claim(broker)) for _ in first] == [[name] for name in first]
    submit_named(broker, "s t u", priority="high")
    assert ids(claim(broker, n=4)) == ["s", "t", "b", "u"]


def test_the_guard_gives_its_turn_back_where_the_normal_task_is_gone(
    make_broker: Callable[..., Broker],
) -> None:
    broker = make_broker(high_burst=1)
    submit_named(broker, "a")
    submit_named(broker, "q r", priority="high")
    assert ids(claim(broker)) == ["q"]
    broker.cancel("a")
    assert ids(claim(broker)) == ["r"]
    submit_named(broker, "b")
    submit_named(broker, "s", priority="high")
    assert ids(claim(broker, n=2)) == ["s", "b"], "the turn is over"


def test_no_guard_where_the_burst_is_set_to_zero(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(high_burst=0)
    broker.submit([new_task(), *(new_task(priority="high") for _ in range(20))])
    assert [task.priority for task in claim(broker, n=21)] == ["high"] * 20 + ["normal"]


def test_a_suspect_is_handed_out_alone(broker: Broker) -> None:
    submit_named(broker, "a b c")
    claim_one(broker)
    lose(broker, "a")
    assert [ids(claim(broker, n=64)) for _ in range(2)] == [["a"], ["b", "c"]]


def test_a_suspect_in_the_middle_ends_the_batch_before_it(broker: Broker) -> None:
    submit_named(broker, "a")
    claim_one(broker)
    lose(broker, "a")
    submit_named(broker, "q r", priority="high")
    submit_named(broker, "b")
    assert [ids(claim(broker, n=64)) for _ in range(3)] == [["q", "r"], ["a"], ["b"]]


def test_a_normal_suspect_keeps_its_turn_under_a_flood_of_high_tasks(
    make_broker: Callable[..., Broker],
) -> None:
    broker = make_broker(high_burst=2)
    submit_named(broker, "a b")
    claim_one(broker)
    lose(broker, "a")
    submit_named(broker, "p q r s t u v w", priority="high")
    assert [ids(claim(broker, n=4)) for _ in range(3)] == [["p", "q"], ["a"], ["r", "s", "b", "t"]]


def test_an_id_whose_document_is_gone_is_dropped(broker: Broker) -> None:
    submit_named(broker, "a b")
    broker.redis.delete(broker.keys.task + "a")
    assert ids(claim(broker, n=2)) == ["b"]
    assert places(broker, "a") == []


def test_the_marker_is_back_while_work_remains_and_only_then(broker: Broker) -> None:
    submit_named(broker, "a b")
    submit_named(broker, "x", priority="high")
    seen = []
    for _ in range(4):
        broker.wait(1)
        assert not awake(broker)
        claim(broker)
        seen.append(awake(broker))
        if not seen[-1]:
            break
    assert seen == [True, True, False]


@pytest.mark.parametrize("priority", ["high", "normal"])
def test_the_marker_is_back_whichever_queue_has_the_rest(broker: Broker, priority: str) -> None:
    submit_named(broker, "a b", priority=priority)
    broker.wait(1)
    claim(broker)
    assert awake(broker)


def test_there_is_one_marker_however_many_tasks(broker: Broker) -> None:
    broker.submit([new_task() for _ in range(10)])
    assert broker.redis.zcard(broker.keys.wake) == 1
    assert broker.redis.zscore(broker.keys.wake, "work") <= now(broker)


def test_waiting_ends_when_work_comes_and_when_time_is_up(broker: Broker) -> None:
    submit(broker)
    broker.wait(600)  # the marker is there: this returns at once, else the test would take too long
    before = now(broker)
    broker.wait(0.05)  # is rounded up
    assert now(broker) - before >= 0.99
    assert not awake(broker)


def test_scheduled_tasks_cannot_be_claimed(broker: Broker) -> None:
    submit(broker, delay=60.0)
    maintain(broker)
    assert claim(broker, n=10) == []
