"""The ledger: what is lost, what was done twice, and what only needs more time."""

from collections.abc import Callable

from dtq.lab.witness import record
from dtq.lab.witness.audits import audit
from dtq.lab.witness.ledger import claimed, signing
from dtq.queue.broker import Broker
from dtq.queue.task import Status
from dtq.tasks import Context
from tests import steps
from tests.helpers import new_task


def test_nothing_is_lost_where_all_is_completed(broker: Broker) -> None:
    ids = [steps.submit(broker) for _ in range(3)]
    for task_id in ids:
        steps.run(broker, task_id)

    ledger = audit(ids, broker)

    assert ledger.acknowledged == ledger.completed == ids
    assert (ledger.lost, ledger.unfinished, ledger.executed_again, ledger.stored_again) == ([], [], {}, {})
    assert ledger.valid


def test_a_task_that_nobody_remembers_is_lost(broker: Broker) -> None:
    kept, popped, deleted = (steps.submit(broker) for _ in range(3))
    broker.redis.lrem(broker.keys.pending, 1, popped)
    broker.redis.delete(broker.keys.task + deleted)

    ledger = audit([kept, popped, deleted], broker)

    assert ledger.lost == [popped, deleted]
    assert ledger.unfinished == [kept]
    assert not ledger.valid
    assert f"lost                         2  {popped}, {deleted}" in repr(ledger)


def test_a_task_in_the_hands_of_a_dead_worker_is_not_lost_while_its_lease_is_kept(broker: Broker) -> None:
    task_id = steps.submit(broker)
    steps.claim_one(broker)

    assert audit([task_id], broker).unfinished == [task_id]


def test_each_end_and_each_delay_is_told_apart(broker: Broker) -> None:
    dead = steps.bury(broker)
    gone = steps.submit(broker)
    broker.cancel(gone)
    retried = steps.submit(broker)
    steps.fail(broker, steps.claim_one(broker))
    later = steps.submit(broker, delay=60)
    child = steps.submit(broker, depends_on=[later])

    ledger = audit([dead, gone, retried, later, child], broker)

    assert ledger.ended_as(Status.FAILED) == [dead]
    assert ledger.ended_as(Status.CANCELLED) == [gone]
    assert ledger.unfinished == [retried, later, child]
    assert f"{retried} (retrying), {later} (scheduled), {child} (waiting)" in repr(ledger)
    assert ledger.valid


def test_a_result_that_was_stored_over_another_is_found(broker: Broker) -> None:
    once, twice = steps.submit(broker), steps.submit(broker)
    steps.run(broker, once)
    steps.run(broker, twice)
    key = broker.keys.task + twice
    broker.redis.set(key, broker.redis.get(key))

    ledger = audit([once, twice], broker)

    assert ledger.stored_again == {twice: 2}
    assert not ledger.valid
    assert f"{twice} (2 times)" in ledger._repr_html_()


def test_executions_are_counted_by_the_handlers_themselves(broker: Broker) -> None:
    task_id = steps.submit(broker)
    handler = signing(lambda data, context: data, broker.redis)
    assert [handler(1, Context(task_id, attempt)) for attempt in (1, 2)] == [1, 1]
    steps.run(broker, task_id)

    assert audit([task_id], broker).executed_again == {task_id: 2}


def test_the_logs_of_workers_tell_of_executions_that_redis_forgot(broker: Broker) -> None:
    first, again = steps.submit(broker), steps.submit(broker)
    steps.run(broker, first)
    steps.run(broker, again)
    line = "12:00:00.000 worker-1 INFO task {} (noop) {}"
    logs = [line.format(first, "claimed, attempt 1"), line.format(again, "claimed, attempt 1")]
    logs += [line.format(again, "claimed, attempt 2") + "\n" + line.format(again, "completed in 0.00 s")]

    assert audit([first, again], broker, claimed(logs)).executed == {first: 1, again: 2}


def test_attempts_count_where_no_handler_signs(broker: Broker) -> None:
    task_id = steps.submit(broker)
    steps.claim_one(broker)
    steps.lose(broker, task_id)
    steps.run(broker, task_id)

    ledger = audit([task_id], broker)

    assert (ledger.executed_again, ledger.valid) == ({task_id: 2}, True)


def test_a_result_that_was_kept_long_enough_is_no_loss(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(result_ttl=1)
    task_id = steps.submit(broker)
    steps.run(broker, task_id)
    steps.make_old(broker, task_id)
    steps.maintain(broker)
    assert broker.get(task_id) is None

    assert audit([task_id], broker).completed == [task_id]


def test_an_id_that_is_named_twice_counts_once_and_long_lists_are_cut(broker: Broker) -> None:
    ids = broker.submit([new_task() for _ in range(12)])
    broker.redis.delete(broker.keys.pending)

    ledger = audit(ids + ids, broker)

    assert ledger.lost == ids
    assert repr(ledger).count(" and 2 more") == 1


def test_its_figures_are_kept_in_the_record(broker: Broker) -> None:
    task_id = steps.submit(broker)
    steps.run(broker, task_id)

    counts = audit([task_id], broker).counts()

    assert record.session.now.audits == [counts]
    assert counts == record.Counts(
        queue="dtq", acknowledged=1, completed=1, lost=0, executed_again=0, stored_again=0
    )
