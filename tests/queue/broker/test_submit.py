"""Submit: all or nothing, safe to repeat, announced to whoever sleeps or watches."""

import pytest

from dtq.errors import Refused
from dtq.queue.broker import Broker
from tests.helpers import PATIENCE, new_task
from tests.steps import (
    awake,
    bury,
    children_left,
    claim_one,
    complete,
    counters,
    now,
    parents_missing,
    places,
    snapshot,
    status,
    stored,
    submit,
)


def test_a_new_task_is_pending_and_as_it_was_asked_for(broker: Broker) -> None:
    before = now(broker)
    task_id = submit(
        broker,
        "resize",
        {"width": 3},
        max_retries=5,
        timeout=1.5,
        traceparent="00-1-2-01",
        submitted_by="ann",
    )

    task = stored(broker, task_id)
    assert (task.type, bytes(task.data), task.priority, task.status) == (
        "resize",
        b'{"width":3}',
        "normal",
        "pending",
    )
    assert (task.max_retries, task.timeout, task.traceparent, task.submitted_by) == (
        5,
        1.5,
        "00-1-2-01",
        "ann",
    )
    assert (task.attempts, task.retry_count, task.crashes, task.worker_id) == (0, 0, 0, None)
    assert before - 0.001 <= task.created_at.timestamp() <= now(broker)
    assert places(broker, task_id) == ["pending"]
    assert counters(broker) == {"submitted": 1}


def test_high_priority_has_its_own_queue(broker: Broker) -> None:
    assert places(broker, submit(broker, priority="high")) == ["pending_high"]


def test_ids_in_order_and_all_of_a_batch(broker: Broker) -> None:
    tasks = [new_task() for _ in range(1000)]
    assert broker.submit(tasks) == [task.id for task in tasks]
    assert broker.counts()["pending"] == 1000


def test_nothing_to_submit(broker: Broker) -> None:
    assert broker.submit([]) == []
    assert snapshot(broker) == {}


def test_repeated_is_a_no_op(broker: Broker) -> None:
    task = new_task(data=1)
    broker.submit([task])
    before = snapshot(broker)
    assert broker.submit([task]) == []
    assert snapshot(broker) == before


@pytest.mark.parametrize("ended", [False, True], ids=["processing", "completed"])
def test_repeated_after_the_task_went_on(broker: Broker, ended: bool) -> None:
    task = new_task()
    broker.submit([task])
    claimed = claim_one(broker)
    if ended:
        complete(broker, claimed)
    before = snapshot(broker)
    assert broker.submit([task]) == []
    assert snapshot(broker) == before


def test_of_a_repeated_batch_only_the_new_ones_are_stored(broker: Broker) -> None:
    old, new = new_task(), new_task()
    broker.submit([old])
    assert broker.submit([old, new, old, new]) == [new.id]
    assert broker.counts()["pending"] == 2


def test_same_fingerprint_is_the_same_request(broker: Broker) -> None:
    submit(broker, id="key", fingerprint="a")
    assert broker.submit([new_task(id="key", fingerprint="a")]) == []


@pytest.mark.parametrize("other", ["b", None])
def test_another_fingerprint_under_the_same_id_is_refused(broker: Broker, other: str | None) -> None:
    submit(broker, data="first", id="key", fingerprint="a")
    before = snapshot(broker)
    with pytest.raises(Refused, match="task key was submitted before with other content") as refused:
        broker.submit([new_task(), new_task(data="second", id="key", fingerprint=other)])
    assert (refused.value.reason, refused.value.task_id) == ("conflict", "key")
    assert snapshot(broker) == before


def test_another_fingerprint_within_one_batch_is_refused(broker: Broker) -> None:
    with pytest.raises(Refused) as refused:
        broker.submit([new_task(id="key", fingerprint="a"), new_task(id="key", fingerprint="b")])
    assert refused.value.reason == "conflict"
    assert snapshot(broker) == {}


def test_unknown_parent_refuses_the_whole_batch(broker: Broker) -> None:
    with pytest.raises(Refused, match="depends_on names ghost, which does not exist") as refused:
        broker.submit([new_task(), new_task(depends_on=["ghost"])])
    assert (refused.value.reason, refused.value.task_id) == ("unknown", "ghost")
    assert snapshot(broker) == {}


def test_cancelled_parent_refuses_the_whole_batch(broker: Broker) -> None:
    parent = submit(broker)
    broker.cancel(parent)
    before = snapshot(broker)
    with pytest.raises(Refused, match=f"depends_on names {parent}, which was cancelled") as refused:
        broker.submit([new_task(), new_task(depends_on=[parent])])
    assert (refused.value.reason, refused.value.task_id) == ("cancelled", parent)
    assert snapshot(broker) == before


@pytest.mark.parametrize("first", [["b"], ["a"]], ids=["later in the batch", "itself"])
def test_a_parent_must_come_before_its_child(broker: Broker, first: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        broker.submit([new_task(id="a", depends_on=first), new_task(id="b", depends_on=["a"])])
    assert (refused.value.reason, refused.value.task_id) == ("unknown", first[0])
    assert snapshot(broker) == {}


def test_a_child_waits_for_its_unmet_parents_only(broker: Broker) -> None:
    done, open_ = submit(broker), submit(broker)
    assert complete(broker, claim_one(broker)) == "completed"
    child = submit(broker, depends_on=[done, open_])

    assert (status(broker, child), places(broker, child)) == ("waiting", ["waiting"])
    assert parents_missing(broker, child) == {open_}
    assert children_left(broker, open_) == children_left(broker, done) == {child}


def test_a_child_of_completed_parents_is_free_at_once(broker: Broker) -> None:
    parent = submit(broker)
    complete(broker, claim_one(broker))
    child = submit(broker, depends_on=[parent])
    assert (status(broker, child), parents_missing(broker, child)) == ("pending", set())


def test_a_child_of_a_failed_parent_waits_for_a_human(broker: Broker) -> None:
    parent = bury(broker)
    child = submit(broker, depends_on=[parent])
    assert (status(broker, child), parents_missing(broker, child)) == ("waiting", {parent})


def test_a_parent_named_twice_counts_once(broker: Broker) -> None:
    parent = submit(broker)
    child = submit(broker, depends_on=[parent, parent])
    complete(broker, claim_one(broker))
    assert status(broker, child) == "pending"


def test_a_child_may_have_very_many_parents(broker: Broker) -> None:
    parents = [new_task() for _ in range(10_000)]
    broker.submit(parents)
    child = submit(broker, depends_on=[parent.id for parent in parents])
    assert len(parents_missing(broker, child)) == 10_000


def test_delay(broker: Broker) -> None:
    task_id = submit(broker, delay=60.0)
    task = stored(broker, task_id)
    assert (task.status, places(broker, task_id)) == ("scheduled", ["delayed"])
    assert (task.due - task.created_at).total_seconds() == pytest.approx(60)
    assert broker.redis.zscore(broker.keys.delayed, task_id) == pytest.approx(task.due.timestamp())


def test_submissions_are_announced_and_wake_a_worker(broker: Broker) -> None:
    with broker.redis.pubsub(ignore_subscribe_messages=True) as watcher:
        watcher.subscribe(broker.keys.new)
        assert watcher.get_message(timeout=PATIENCE) is None  # the confirmation, which is ignored
        task_id = submit(broker)
        message = watcher.get_message(timeout=PATIENCE)
    assert message["data"].decode() == task_id
    assert awake(broker)


@pytest.mark.parametrize("parked", ["scheduled", "waiting"])
def test_what_cannot_start_yet_wakes_nobody(broker: Broker, parked: str) -> None:
    parent = submit(broker)
    claim_one(broker)
    broker.wait(1)
    task_id = submit(broker, delay=60.0) if parked == "scheduled" else submit(broker, depends_on=[parent])
    assert status(broker, task_id) == parked
    assert not awake(broker)
