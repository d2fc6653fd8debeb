"""Cancel, requeue and discard: what a human decides about a task."""

import pytest

from dtq.queue.broker import Broker
from tests.steps import (
    awake,
    bury,
    children_left,
    claim,
    claim_one,
    complete,
    counters,
    fail,
    maintain,
    make_due,
    parents_missing,
    places,
    run,
    snapshot,
    status,
    stored,
    submit,
)


def parked(broker: Broker, wanted: str) -> str:
    """A task in a state of that name."""
    if wanted == "waiting":
        return submit(broker, depends_on=[submit(broker)])
    if wanted == "failed":
        return bury(broker)
    task_id = submit(broker, delay=60.0 if wanted == "scheduled" else 0.0)
    if wanted in ("processing", "retrying", "completed"):
        task = claim_one(broker)
        if wanted == "retrying":
            fail(broker, task)
        elif wanted == "completed":
            complete(broker, task)
    return task_id


@pytest.mark.parametrize("before", ["pending", "scheduled", "retrying", "waiting"])
def test_what_has_not_started_can_be_cancelled(broker: Broker, before: str) -> None:
    task_id = parked(broker, before)
    assert status(broker, task_id) == before
    assert broker.cancel(task_id) == "cancelled"

    task = stored(broker, task_id)
    assert (task.status, places(broker, task_id)) == ("cancelled", ["finished"])
    assert task.due is None
    assert parents_missing(broker, task_id) == set()
    assert broker.redis.ttl(broker.keys.task + task_id) > 0
    assert counters(broker)["cancelled"] == 1
    assert (maintain(broker).due, task_id in {other.id for other in claim(broker, n=10)}) == (0, False)


@pytest.mark.parametrize("before", ["processing", "completed", "failed"])
def test_what_has_started_cannot_be_cancelled(broker: Broker, before: str) -> None:
    task_id = parked(broker, before)
    unchanged = snapshot(broker)
    assert broker.cancel(task_id) == before
    assert snapshot(broker) == unchanged


def test_cancel_of_an_unknown_task(broker: Broker) -> None:
    assert broker.cancel("ghost") == "unknown"
    assert snapshot(broker) == {}


def test_repeated_cancel_is_a_no_op(broker: Broker) -> None:
    task_id = submit(broker)
    broker.cancel(task_id)
    before = snapshot(broker)
    assert broker.cancel(task_id) == "cancelled"
    assert snapshot(broker) == before


def test_a_high_task_is_taken_out_of_its_own_queue(broker: Broker) -> None:
    normal, high = submit(broker), submit(broker, priority="high")
    broker.cancel(high)
    assert (places(broker, normal), places(broker, high)) == (["pending"], ["finished"])


def test_cancel_takes_all_descendants_along(broker: Broker) -> None:
    root, other = submit(broker), submit(broker)
    child = submit(broker, depends_on=[root, other])
    grandchild = submit(broker, depends_on=[child])
    sibling = submit(broker, depends_on=[other])
    assert broker.cancel(root) == "cancelled"

    assert [status(broker, task_id) for task_id in (child, grandchild)] == ["cancelled"] * 2
    for task_id in (child, grandchild):
        task = stored(broker, task_id)
        assert task.error == f"cancelled because it depends on {root}"
        assert (places(broker, task_id), parents_missing(broker, task_id)) == (["finished"], set())
        assert broker.redis.ttl(broker.keys.task + task_id) > 0
    assert counters(broker)["cancelled"] == 3
    assert [children_left(broker, task_id) for task_id in (root, child, other)] == [set(), set(), {sibling}]
    run(broker, other)
    run(broker, sibling)
    assert status(broker, sibling) == "completed"


def test_cancel_leaves_the_parents_alone(broker: Broker) -> None:
    parent = submit(broker)
    child = submit(broker, depends_on=[parent])
    broker.cancel(child)
    assert children_left(broker, parent) == set()
    run(broker, parent)
    assert (status(broker, parent), status(broker, child)) == ("completed", "cancelled")


# ---------------------------------------------------------------- the dead letter


def test_requeue_gives_a_fresh_start_at_the_end_of_the_queue(broker: Broker) -> None:
    dead = bury(broker, priority="high")
    high = submit(broker, priority="high")
    broker.wait(1)
    assert broker.requeue([dead]) == [dead]

    task = stored(broker, dead)
    assert (task.status, task.retry_count, task.crashes, task.error) == ("pending", 0, 0, None)
    assert (task.attempts, len(task.history)) == (1, 1)  # what happened stays on record
    assert (places(broker, dead), broker.counts()["dead_letter"]) == (["pending_high"], 0)
    assert awake(broker)
    assert [other.id for other in claim(broker, n=2)] == [high, dead]
    assert counters(broker)["requeued"] == 1


def test_a_requeued_task_has_all_its_retries_again(broker: Broker) -> None:
    dead = submit(broker)
    fail(broker, claim_one(broker))
    make_due(broker, dead)
    maintain(broker)
    assert fail(broker, claim_one(broker), retries=1) == "failed"
    broker.requeue([dead])
    assert fail(broker, claim_one(broker), retries=1) == "retry"
    assert stored(broker, dead).retry_count == 1


def test_discard_cancels_for_good_with_all_descendants(broker: Broker) -> None:
    dead = bury(broker)
    child = submit(broker, depends_on=[dead])
    grandchild = submit(broker, depends_on=[child])
    assert broker.discard([dead]) == [dead]

    assert [status(broker, task_id) for task_id in (dead, child, grandchild)] == ["cancelled"] * 3
    assert [places(broker, task_id) for task_id in (dead, child, grandchild)] == [["finished"]] * 3
    task = stored(broker, dead)
    assert task.error == "boom"
    assert broker.redis.ttl(broker.keys.task + dead) > 0
    assert (counters(broker)["discarded"], counters(broker)["cancelled"]) == (1, 2)


@pytest.mark.parametrize("decision", ["requeue", "discard"])
def test_all_of_the_dead_letter_the_oldest_first(broker: Broker, decision: str) -> None:
    dead = [bury(broker) for _ in range(3)]
    assert getattr(broker, decision)() == dead
    assert getattr(broker, decision)() == []


@pytest.mark.parametrize("decision", ["requeue", "discard"])
def test_only_what_is_in_the_dead_letter_is_decided_about(broker: Broker, decision: str) -> None:
    dead, alive, ended = bury(broker), submit(broker), submit(broker)
    complete(broker, claim(broker, n=2)[1])
    assert getattr(broker, decision)([alive, "ghost", dead, ended, dead]) == [dead]
    assert (status(broker, alive), status(broker, ended)) == ("processing", "completed")


@pytest.mark.parametrize("decision", ["requeue", "discard"])
def test_repeated_decisions_are_no_ops(broker: Broker, decision: str) -> None:
    dead = bury(broker)
    getattr(broker, decision)([dead])
    before = snapshot(broker)
    assert getattr(broker, decision)([dead]) == []
    assert getattr(broker, decision)([]) == []
    assert snapshot(broker) == before
