"""No script does more than a fixed amount of work: what is more is done in slices, by `maintain`."""

from collections.abc import Callable

import pytest

from dtq.queue import bounds
from dtq.queue.broker import Broker
from tests.helpers import new_task, wait_until
from tests.steps import (
    bury,
    children_left,
    claim,
    claim_one,
    complete,
    lose,
    maintain,
    places,
    run,
    snapshot,
    status,
    stored,
    submit,
)

MANY = 30
CALLS_FOR_EACH = 40  # commands that a script needs for one unit of its work, at most


@pytest.fixture
def broker(make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch) -> Broker:
    """Its scripts do very little at a time."""
    monkeypatch.setattr(bounds, "WORK", 4)
    return make_broker()


def fan_out(broker: Broker, n: int = MANY) -> tuple[str, list[str]]:
    parent, children = submit(broker), [new_task(depends_on=["?"]) for _ in range(n)]
    for child in children:
        child.depends_on = [parent]
    for start in range(0, n, 10):
        broker.submit(children[start : start + 10])
    return parent, [child.id for child in children]


def all_are(broker: Broker, ids: list[str], wanted: str) -> bool:
    maintain(broker)
    return {status(broker, task_id) for task_id in ids} == {wanted}


def test_children_are_released_in_slices_the_oldest_first(broker: Broker) -> None:
    parent, children = fan_out(broker)
    run(broker, parent)
    freed = [child for child in children if status(broker, child) == "pending"]
    assert freed == children[: len(freed)]
    assert 0 < len(freed) < 6, "one script frees a few"
    wait_until(lambda: all_are(broker, children, "pending"), what="maintenance frees the others")
    assert [claim_one(broker).id for _ in children] == children
    assert not broker.redis.exists(broker.keys.unsettled)


def test_children_are_cancelled_in_slices_with_their_children(broker: Broker) -> None:
    parent, children = fan_out(broker)
    last, grandchildren = children[-1], [submit(broker, depends_on=[children[-1]]) for _ in range(9)]
    assert broker.cancel(parent) == "cancelled"
    assert status(broker, last) == "waiting"
    wait_until(lambda: all_are(broker, children + grandchildren, "cancelled"), what="maintenance goes on")
    assert stored(broker, grandchildren[-1]).error == f"cancelled because it depends on {parent}"
    assert (places(broker, last), children_left(broker, parent)) == (["finished"], set())


def test_a_child_that_comes_in_between_is_told_too(broker: Broker) -> None:
    parent, children = fan_out(broker)
    run(broker, parent)
    late = submit(broker, depends_on=[parent])
    assert status(broker, late) == "pending", "its parent is completed"
    wait_until(lambda: all_are(broker, children, "pending"))
    assert children_left(broker, parent) == {*children, late}


def test_a_fan_in_is_freed_by_its_last_parent(broker: Broker) -> None:
    parents = [submit(broker) for _ in range(3)]
    child = submit(broker, depends_on=parents)
    for parent in parents:
        assert status(broker, child) == "waiting"
        run(broker, parent)
    assert status(broker, child) == "pending"


def commands(broker: Broker) -> int:
    stats = broker.redis.info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name != "cmdstat_info")


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_the_work_of_one_script_does_not_grow_with_the_children(broker: Broker, end: str) -> None:
    parent, _ = fan_out(broker, 20)
    other, _ = fan_out(broker, 200)
    used = []
    for task_id in (parent, other):
        before = commands(broker)
        if end == "cancel":
            broker.cancel(task_id)
        else:
            complete(broker, next(t for t in iter(lambda: claim_one(broker), None) if t.id == task_id))
        used.append(commands(broker) - before)
    assert max(used) < 10 * bounds.WORK * CALLS_FOR_EACH
    assert used[1] < 2 * used[0]


def test_the_dead_letter_is_emptied_in_slices(broker: Broker) -> None:
    dead = [bury(broker) for _ in range(MANY)]
    assert broker.requeue(["ghost", *dead[:10]]) == dead[:10]
    assert broker.requeue() == dead[10:]
    assert broker.counts()["dead_letter"] == 0
    assert broker.counts()["pending"] == MANY


def test_the_work_of_one_call_of_maintain_is_bounded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SLICES", 1)
    broker.submit([new_task(delay=0.001) for _ in range(MANY)])
    freed = []
    wait_until(lambda: sum(freed) == MANY, in_vain=lambda: freed.append(maintain(broker).due))
    assert max(freed) <= bounds.WORK
    assert broker.counts()["pending"] == MANY


def test_a_parents_payload_is_not_read(make_broker: Callable[..., Broker]) -> None:
    """A hundred children name a parent of 1 MB, ten times each: that would be a gigabyte."""
    broker = make_broker()
    parent = submit(broker, data="x" * 2**20)
    before = broker.redis.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]
    broker.submit([new_task(depends_on=[parent] * 10) for _ in range(100)])
    assert broker.redis.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"] == before
    assert len(children_left(broker, parent)) == 100


def test_an_id_used_again_after_its_result_expired_is_a_new_task(make_broker: Callable[..., Broker]) -> None:
    """The entry of the old one is still in the list of finished tasks when the new one comes."""
    broker = make_broker(result_ttl=1)
    run(broker, submit(broker, id="again"))
    wait_until(lambda: broker.get("again") is None, what="the result expires")
    submit(broker, data="new", id="again")
    for _ in range(3):
        maintain(broker)
    assert (status(broker, "again"), places(broker, "again")) == ("pending", ["pending"])
    run(broker, "again")
    wait_until(lambda: maintain(broker).deleted == 1, what="its own time is up")
    assert not [key for key in snapshot(broker) if b"again" in key]


def test_recovered_tasks_keep_their_order_over_slices(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "WORK", 4)
    broker = make_broker()
    ids = [submit(broker) for _ in range(10)]
    assert [task.id for _ in range(3) for task in claim(broker, n=4)] == ids
    assert lose(broker, *ids).recovered == 10
    assert [claim(broker)[0].id for _ in ids] == ids
