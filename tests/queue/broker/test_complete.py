"""Complete: one result, stored by the owner; children released; the result kept as long as it is needed."""

from collections.abc import Callable

import pytest

from dtq.queue.broker import Broker
from tests.helpers import new_task, wait_until
from tests.steps import (
    awake,
    bury,
    children_left,
    claim,
    claim_one,
    complete,
    completed,
    counters,
    fail,
    failed,
    lose,
    maintain,
    make_due,
    make_old,
    now,
    parents_missing,
    places,
    report,
    run,
    snapshot,
    status,
    stored,
    submit,
)


def test_the_result_is_stored_and_the_task_counted(broker: Broker) -> None:
    task_id = submit(broker)
    claimed = claim_one(broker, "ann")
    assert report(broker, completed(claimed, b'{"sum":3}', seconds=0.25), "ann")[1:] == ("completed", 0, 0)

    task = stored(broker, task_id)
    assert (task.status, task.worker_id, task.attempts, task.error) == ("completed", "ann", 1, None)
    assert (bytes(task.result), task.duration) == (b'{"sum":3}', 0.25)
    assert places(broker, task_id) == ["finished"]
    assert broker.counts()["completed"] == 1
    assert broker.redis.zscore(broker.keys.task_times, task_id) == 0.25
    assert broker.redis.zscore(broker.keys.finished, task_id) == pytest.approx(
        task.completed_at.timestamp(), abs=2e-4
    )


def test_times_are_those_of_the_handler_not_of_the_batch(broker: Broker) -> None:
    broker.submit([new_task(), new_task()])
    first, second = claim(broker, n=2)
    ended = completed(second, seconds=0.002)
    report(broker, ended._replace(ended=ended.ended - 0.001))
    task = stored(broker, second.id)
    assert task.started_at >= first.started_at
    assert task.completed_at.timestamp() <= now(broker) - 0.0009


def test_repeated_says_so_and_changes_nothing(broker: Broker) -> None:
    submit(broker)
    task = claim_one(broker)
    complete(broker, task, result=b"1")
    before = snapshot(broker)
    assert complete(broker, task, result=b"2") == "repeated"
    assert snapshot(broker) == before


def test_late_result_is_refused_and_counted_while_another_works(broker: Broker) -> None:
    task_id = submit(broker)
    slow = claim_one(broker, "slow")
    lose(broker, task_id)
    quick = claim_one(broker, "quick")

    assert complete(broker, slow, "slow", b'"late"') == "stale"
    assert (places(broker, task_id), counters(broker)["stale"]) == (["processing"], 1)
    assert complete(broker, quick, "quick", b'"good"') == "completed"
    assert complete(broker, slow, "slow", b'"late"') == "stale"

    task = stored(broker, task_id)
    assert (bytes(task.result), task.worker_id, task.attempts) == (b'"good"', "quick", 2)
    assert broker.counts()["completed"] == 1


def test_late_result_is_refused_while_the_task_waits_for_another(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker)
    lose(broker, task_id)
    assert complete(broker, task) == "stale"
    assert (status(broker, task_id), places(broker, task_id)) == ("pending", ["pending"])


def test_an_older_attempt_of_the_same_worker_is_refused(broker: Broker) -> None:
    task_id = submit(broker)
    first = claim_one(broker)
    lose(broker, task_id)
    second = claim_one(broker)
    assert [complete(broker, task) for task in (first, second, first)] == ["stale", "completed", "stale"]


def test_another_workers_task_is_refused(broker: Broker) -> None:
    submit(broker)
    task = claim_one(broker, "ann")
    assert complete(broker, task, "bob") == "stale"
    assert complete(broker, task, "ann") == "completed"
    assert complete(broker, task, "bob") == "stale"


def test_a_task_nobody_knows_is_refused(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker)
    broker.redis.delete(broker.keys.task + task_id)
    assert complete(broker, task) == "stale"
    assert broker.counts()["completed"] == 0


def test_a_lease_that_ended_unnoticed_does_not_cost_the_result(broker: Broker) -> None:
    task_id = submit(broker)
    task = claim_one(broker)
    broker.redis.zadd(broker.keys.processing, {task_id: 1})
    assert complete(broker, task) == "completed"
    assert maintain(broker).recovered == 0


def test_reports_of_all_kinds_and_a_claim_in_one_call(broker: Broker) -> None:
    broker.submit([new_task(id=name) for name in "abcdefg"])
    a, b, c, d, e = claim(broker, n=5)
    lose(broker, "e")
    complete(broker, b)
    reports = [failed(c, retries=0), completed(a), completed(b), failed(d), completed(e)]
    verdicts, claimed = broker.report_and_claim("worker-1", reports, 2)
    assert [verdict.word for verdict in verdicts] == ["failed", "completed", "repeated", "retry", "stale"]
    assert [task.id for task in claimed] == ["e"]  # lost once: alone
    assert [status(broker, name) for name in "abcde"] == [
        "completed",
        "completed",
        "failed",
        "retrying",
        "processing",
    ]


def test_an_error_of_an_earlier_attempt_is_no_longer_shown(broker: Broker) -> None:
    task_id = submit(broker)
    fail(broker, claim_one(broker))
    make_due(broker, task_id)
    maintain(broker)
    complete(broker, claim_one(broker))
    task = stored(broker, task_id)
    assert (task.error, [attempt.error for attempt in task.history]) == (None, ["boom"])


# ---------------------------------------------------------------- children


def test_fan_in_waits_for_the_last_parent(broker: Broker) -> None:
    parents = [submit(broker) for _ in range(3)]
    child = submit(broker, depends_on=parents)
    for i, parent in enumerate(parents):
        assert status(broker, child) == "waiting"
        assert parents_missing(broker, child) == set(parents[i:])
        run(broker, parent)
    assert (status(broker, child), places(broker, child)) == ("pending", ["pending"])
    run(broker, child)


def test_fan_out_frees_all_children(broker: Broker) -> None:
    parent = submit(broker)
    children = {submit(broker, depends_on=[parent]) for _ in range(3)}
    [task] = claim(broker, n=10)
    assert task.id == parent
    broker.wait(1)
    complete(broker, task)
    assert awake(broker)
    assert {task.id for task in claim(broker, n=10)} == children


def test_a_diamond_runs_in_its_order(broker: Broker) -> None:
    broker.submit(
        [
            new_task(id="top"),
            new_task(id="left", depends_on=["top"]),
            new_task(id="right", depends_on=["top"]),
            new_task(id="bottom", depends_on=["left", "right"]),
        ]
    )
    order = []
    while tasks := claim(broker, n=10):
        order.append({task.id for task in tasks})
        assert [complete(broker, task) for task in tasks] == ["completed"] * len(tasks)
    assert order == [{"top"}, {"left", "right"}, {"bottom"}]


def test_a_child_keeps_its_priority(broker: Broker) -> None:
    parent = submit(broker)
    child = submit(broker, depends_on=[parent], priority="high")
    run(broker, parent)
    assert places(broker, child) == ["pending_high"]


def test_a_childs_delay_runs_from_its_submission(broker: Broker) -> None:
    parent = submit(broker)
    late = submit(broker, depends_on=[parent], delay=60.0)
    soon = submit(broker, depends_on=[parent], delay=0.0001)
    wait_until(lambda: now(broker) > stored(broker, soon).due.timestamp() + 0.0002)
    run(broker, parent)
    assert (status(broker, late), places(broker, late)) == ("scheduled", ["delayed"])
    assert (status(broker, soon), places(broker, soon)) == ("pending", ["pending"])
    task = stored(broker, late)
    assert (task.due - task.created_at).total_seconds() == pytest.approx(60)


def test_a_failed_parent_keeps_its_children_waiting_until_it_is_requeued(broker: Broker) -> None:
    parent = submit(broker)
    child = submit(broker, depends_on=[parent])
    fail(broker, claim_one(broker), retries=0)
    assert status(broker, child) == "waiting"
    broker.requeue([parent])
    run(broker, parent)
    run(broker, child)
    assert status(broker, child) == "completed"


def test_a_failed_parent_that_is_discarded_takes_its_children_along(broker: Broker) -> None:
    parent = submit(broker)
    child = submit(broker, depends_on=[parent])
    fail(broker, claim_one(broker), retries=0)
    broker.discard([parent])
    assert (status(broker, parent), status(broker, child)) == ("cancelled", "cancelled")


# ---------------------------------------------------------------- how long results are kept


def document_life(broker: Broker, task_id: str) -> int:
    """Seconds until Redis deletes the document; -1 for never, -2 where it is gone."""
    return int(broker.redis.ttl(broker.keys.task + task_id))


def test_a_result_lives_for_its_time(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(result_ttl=100)
    task_id = submit(broker)
    assert document_life(broker, task_id) == -1
    run(broker, task_id)
    assert 90 < document_life(broker, task_id) <= 100


def test_parents_results_are_kept_until_their_children_ended(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(result_ttl=100)
    early, later = submit(broker), submit(broker)
    run(broker, early)
    child = submit(broker, depends_on=[early, later])
    run(broker, later)
    assert [document_life(broker, task_id) for task_id in (early, later)] == [-1, -1]

    make_old(broker, early, later)
    assert maintain(broker).deleted == 0
    assert fail(broker, claim_one(broker)) == "retry"
    assert [document_life(broker, task_id) for task_id in (early, later)] == [-1, -1]

    make_due(broker, child)
    maintain(broker)
    run(broker, child)
    assert all(90 < document_life(broker, task_id) <= 100 for task_id in (early, later))
    assert children_left(broker, early) == children_left(broker, later) == set()
    make_old(broker, early, later)
    assert maintain(broker).deleted == 2


def test_a_parents_result_is_given_free_when_the_child_is_cancelled(broker: Broker) -> None:
    done, open_ = submit(broker), submit(broker)
    run(broker, done)
    child = submit(broker, depends_on=[done, open_])
    assert document_life(broker, done) == -1
    broker.cancel(child)
    assert document_life(broker, done) > 0
    assert children_left(broker, done) == children_left(broker, open_) == set()


def test_a_parents_result_outlives_a_child_that_failed(broker: Broker) -> None:
    parent = submit(broker)
    run(broker, parent)
    child = bury(broker, depends_on=[parent])
    assert document_life(broker, parent) == -1
    broker.discard([child])
    assert document_life(broker, parent) > 0


def test_several_children_keep_a_result_until_the_last(broker: Broker) -> None:
    parent = submit(broker)
    run(broker, parent)
    children = [submit(broker, depends_on=[parent]) for _ in range(2)]
    run(broker, children[0])
    assert (document_life(broker, parent), children_left(broker, parent)) == (-1, {children[1]})
    run(broker, children[1])
    assert document_life(broker, parent) > 0
