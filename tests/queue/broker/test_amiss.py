"""What people do to Redis by hand: broken documents, ids in wrong places, the clean-up with KEYS and DEL."""

import pytest

from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import wait_until
from tests.steps import (
    awake,
    bury,
    children_left,
    claim,
    claim_new,
    complete,
    counters,
    end_leases,
    fail,
    maintain,
    make_due,
    make_old,
    places,
    run,
    status,
    stored,
    submit,
)

BROKEN = {
    "no JSON": b'{"id":1,oops,"data":1}',
    "an id that is no text": b'{"id":1,"type":"noop","data":1}',
    "random bytes": bytes(range(128, 256)),
    "an unknown priority": None,
    "a number as its type": None,
}
SLOTS = ("pending", "scheduled", "retrying", "waiting", "processing", "failed", "completed")


def place(broker: Broker, where: str) -> str:
    """A task that is there."""
    if where == "failed":
        return bury(broker, priority="high")
    if where == "waiting":
        return submit(broker, depends_on=[submit(broker, delay=60.0)])
    if where in ("processing", "retrying", "completed"):
        task = claim_new(broker, priority="high")
        if where == "retrying":
            fail(broker, task)
        if where == "completed":
            complete(broker, task)
        return task.id
    return submit(broker, delay=60.0 if where == "scheduled" else 0.0)


def scribble(broker: Broker, task_id: str, how: str) -> None:
    key, document = broker.keys.task + task_id, BROKEN[how]
    if document is None:
        old = b'"type":"noop"' if how == "a number as its type" else None
        text = broker.redis.get(key)
        priority = b'"priority":"high"' if b'"priority":"high"' in text else b'"priority":"normal"'
        new = b'"type":7' if old else b'"priority":"urgent"'
        document = text.replace(old or priority, new)
        assert document != text
    broker.redis.set(key, document)


def unreadable(broker: Broker) -> list[str]:
    return [task_id.decode() for task_id in broker.redis.lrange(broker.keys.unreadable, 0, -1)]


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("where", SLOTS)
def test_a_broken_document_is_set_aside_and_costs_nobody_else_anything(
    broker: Broker, where: str, how: str
) -> None:
    broken = place(broker, where)
    scribble(broker, broken, how)
    good = submit(broker)
    wait_until(lambda: maintain(broker) and unreadable(broker) == [broken], what="it is set aside")
    assert places(broker, broken) == ["unreadable"]
    assert [task.id for task in claim(broker, n=5)] == [good]
    assert complete(broker, stored(broker, good)) == "completed"
    broker.redis.delete(broker.keys.task + broken)
    wait_until(lambda: maintain(broker) and unreadable(broker) == [], what="it was deleted, its id goes")


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("where", SLOTS)
def test_nobody_stumbles_over_a_broken_document(broker: Broker, where: str, how: str) -> None:
    broken, good = place(broker, where), submit(broker)
    scribble(broker, broken, how)
    end_leases(broker, *[broken] * (where == "processing"))
    make_due(broker, *[broken] * (where in ("scheduled", "retrying")))
    assert good in [task.id for task in broker.tasks()]
    assert broker.get(broken) is None
    assert broker.cancel(broken) == "unknown"
    assert broken not in broker.requeue()
    assert good in [task.id for task in claim(broker, n=5)]
    maintain(broker)
    assert [task.id for task in broker.tasks() if task.id == broken] == []


def test_an_empty_document_is_none(broker: Broker) -> None:
    task_id, other = submit(broker), submit(broker)
    broker.redis.set(broker.keys.task + other, "")
    assert [task.id for task in claim(broker, n=5)] == [task_id]
    assert (unreadable(broker), places(broker, other)) == ([], [])


def test_a_key_of_another_kind_is_no_document(broker: Broker) -> None:
    task_id, good = submit(broker), submit(broker)
    broker.redis.delete(broker.keys.task + task_id)
    broker.redis.lpush(broker.keys.task + task_id, "not a document")
    assert [task.id for task in claim(broker, n=2)] == [good]
    assert unreadable(broker) == [task_id]


def test_an_id_in_the_queue_that_is_not_pending_is_not_claimed(broker: Broker) -> None:
    done, held = submit(broker), submit(broker, priority="high")
    [task] = claim(broker)
    assert task.id == held
    run(broker, done)
    broker.redis.lpush(broker.keys.pending, done, held, done, "ghost")
    assert claim(broker, n=5) == []
    assert (status(broker, done), status(broker, held)) == ("completed", "processing")
    assert complete(broker, task) == "completed"
    assert broker.counts() | {"completed": 0} == dict.fromkeys(broker.counts(), 0)


def documents(broker: Broker) -> list[bytes]:
    return list(broker.redis.scan_iter(match=broker.keys.task + "*", count=1000))


def test_after_keys_and_del_the_counts_are_true(broker: Broker) -> None:
    for where in SLOTS:
        place(broker, where)
    parent = submit(broker)
    child = submit(broker, depends_on=[parent])
    submit(broker, depends_on=[child])
    for _ in range(250):
        submit(broker, delay=60.0)
        submit(broker)
    broker.redis.delete(*documents(broker))

    def nothing_is_left() -> bool:
        maintain(broker)
        counts = broker.counts()
        keys = broker.redis.scan_iter(match=broker.settings.key_prefix + "*depend*", count=1000)
        return not any(counts[name] for name in counts if name != "completed") and not list(keys)

    wait_until(nothing_is_left)
    assert broker.redis.zcard(broker.keys.finished) == 0


def test_a_child_whose_parent_is_gone_is_cancelled_for_that_reason(broker: Broker) -> None:
    parent, other = submit(broker, delay=60.0), submit(broker, delay=60.0)
    child = submit(broker, depends_on=[parent, other])
    grandchild = submit(broker, depends_on=[child])
    broker.redis.delete(broker.keys.task + parent)
    wait_until(lambda: maintain(broker) and status(broker, grandchild) == "cancelled")
    reason = f"cancelled because it depends on {parent}, which is gone"
    assert [stored(broker, one).error for one in (child, grandchild)] == [reason] * 2
    assert counters(broker)["cancelled"] == 2
    assert places(broker, child) == ["finished"]


def test_also_where_the_keys_of_its_dependencies_are_gone_with_it(broker: Broker) -> None:
    parent = submit(broker, delay=60.0)
    child = submit(broker, depends_on=[parent])
    broker.redis.delete(broker.keys.task + parent, broker.keys.dependents + parent)
    wait_until(lambda: maintain(broker) and status(broker, child) == "cancelled")


def test_no_lease_ends_while_redis_is_back_for_less_than_a_lease(broker: Broker) -> None:
    """While it was away, nobody could send a heartbeat."""
    task_id = submit(broker)
    [task] = claim(broker)
    end_leases(broker, task_id)
    broker.redis.set(broker.keys.maintained, broker.redis.time()[0] - 60)
    assert broker.maintain().recovered == 0
    assert 0 < broker.redis.pttl(broker.keys.grace) <= 1000 * broker.settings.lease
    assert complete(broker, task) == "completed"

    lost = submit(broker)
    claim(broker)
    end_leases(broker, lost)
    broker.redis.delete(broker.keys.grace)  # a lease later
    assert maintain(broker).recovered == 1
    assert not awake(broker) or status(broker, lost) == "pending"


def test_a_result_expires_when_nobody_needs_it_because_the_child_was_deleted(broker: Broker) -> None:
    parent = submit(broker)
    run(broker, parent)
    child = submit(broker, depends_on=[parent])
    broker.redis.delete(broker.keys.task + child)
    make_old(broker, parent)
    maintain(broker)
    assert children_left(broker, parent) == set()
    assert broker.redis.ttl(broker.keys.task + parent) > 0


def test_children_of_an_unreadable_task_that_is_deleted_are_told_at_once(broker: Broker) -> None:
    broken, *others = [submit(broker) for _ in range(30)]
    children = [submit(broker, depends_on=[broken, *others]) for _ in range(3)]
    broker.redis.set(broker.keys.task + broken, "no JSON")
    maintain(broker)
    assert places(broker, broken) == ["unreadable"]
    broker.redis.delete(broker.keys.task + broken)
    maintain(broker)
    maintain(broker)
    assert [status(broker, child) for child in children] == ["cancelled"] * 3


@pytest.mark.parametrize(
    "document", ["", "no JSON", "[]", "1", '{"id":"ann"}', '{"instance":1,"pid":"x"}', None]
)
def test_a_worker_described_by_hand_is_left_out_and_stops_no_other(
    broker: Broker, document: str | None
) -> None:
    key = broker.keys.worker + "ann"
    broker.redis.sadd(broker.keys.workers, "ann", "bob")
    if document is None:
        broker.redis.lpush(key, "of another type")
    else:
        broker.redis.set(key, document)
    assert broker.heartbeat(WorkerInfo(id="bob", status="idle", instance="b")) == set()
    assert [worker.id for worker in broker.workers()] == ["bob"]
    broker.deregister("ann", "a")
    assert broker.heartbeat(WorkerInfo(id="ann", status="idle", instance="a")) == set()
    assert [worker.id for worker in broker.workers()] == ["ann", "bob"]
