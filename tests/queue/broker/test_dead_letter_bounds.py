"""The dead letter is kept for ever, or as long and as large as the settings say."""

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

import dtq.queue.maintenance
from dtq.config import Settings
from dtq.queue import bounds
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests.helpers import wait_until
from tests.steps import (
    bury,
    claim_one,
    counters,
    fail,
    maintain,
    now,
    places,
    status,
    stored,
    submit,
)

DAY = 86400


def died_ago(broker: Broker, task_id: str, seconds: float) -> None:
    """As if it had died so long ago."""
    key = broker.keys.task + task_id
    ended = stored(broker, task_id).history[-1].ended_at.timestamp()
    document, old = broker.redis.get(key).decode(), f'"ended_at":{ended:.14g}'
    assert document.count(old) == 1, (document, old)
    broker.redis.set(key, document.replace(old, f'"ended_at":{now(broker) - seconds:.14g}'))


def dead(broker: Broker) -> list[str]:
    """The oldest first."""
    return [task_id.decode() for task_id in reversed(broker.redis.lrange(broker.keys.dead_letter, 0, -1))]


def test_by_default_everything_is_kept(broker: Broker) -> None:
    ids = [bury(broker) for _ in range(3)]
    for task_id in ids:
        died_ago(broker, task_id, 1000 * DAY)
    assert maintain(broker).dropped == 0
    assert dead(broker) == ids


def test_the_newest_are_kept(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(dead_letter_max=2)
    ids = [bury(broker) for _ in range(5)]
    assert maintain(broker).dropped == 3
    assert dead(broker) == ids[3:]
    assert maintain(broker).dropped == 0
    assert [status(broker, task_id) for task_id in ids] == ["cancelled"] * 3 + ["failed"] * 2


def test_who_died_long_ago_is_dropped(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(dead_letter_ttl=DAY)
    old, older, young = (bury(broker) for _ in range(3))
    died_ago(broker, old, DAY + 1)
    died_ago(broker, older, 2 * DAY)
    died_ago(broker, young, DAY - 60)
    assert maintain(broker).dropped == 2
    assert dead(broker) == [young]


def test_age_is_counted_from_death_and_not_from_submission(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(dead_letter_ttl=DAY)
    task_id = bury(broker)
    died_ago(broker, task_id, 2 * DAY)
    assert broker.requeue() == [task_id]
    assert fail(broker, claim_one(broker), retries=0) == "failed"
    assert maintain(broker).dropped == 0
    assert dead(broker) == [task_id]


def test_time_drops_a_dead_task_by_itself(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(dead_letter_ttl=1)
    task_id = bury(broker)
    assert maintain(broker).dropped == 0
    wait_until(lambda: maintain(broker).dropped == 1)
    assert status(broker, task_id) == "cancelled"


@pytest.mark.parametrize(("settings", "dropped"), [({"dead_letter_max": 3}, 2), ({"dead_letter_max": 1}, 3)])
def test_either_bound_is_enough(
    make_broker: Callable[..., Broker], settings: dict[str, int], dropped: int
) -> None:
    broker = make_broker(dead_letter_ttl=DAY, **settings)
    ids = [bury(broker) for _ in range(4)]
    for task_id in ids[:2]:
        died_ago(broker, task_id, 2 * DAY)
    assert maintain(broker).dropped == dropped
    assert dead(broker) == ids[dropped:]


def test_dropped_is_as_if_somebody_had_discarded_it(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(dead_letter_max=1)
    parent = bury(broker)
    child = submit(broker, depends_on=[parent])
    grandchild = submit(broker, depends_on=[child])
    kept = bury(broker)
    other = submit(broker, depends_on=[kept])
    assert maintain(broker).dropped == 1

    assert [status(broker, task_id) for task_id in (parent, child, grandchild)] == ["cancelled"] * 3
    assert (status(broker, kept), status(broker, other)) == ("failed", "waiting")
    assert places(broker, parent) == places(broker, grandchild) == ["finished"]
    assert stored(broker, parent).error == "boom"
    assert stored(broker, child).error == f"cancelled because it depends on {parent}"
    assert (counters(broker)["discarded"], counters(broker)["cancelled"]) == (1, 2)
    assert 0 < broker.redis.ttl(broker.keys.task + parent) <= broker.settings.result_ttl


def test_an_id_without_a_document_does_not_block_the_way(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(dead_letter_ttl=DAY)
    lost, old = bury(broker), bury(broker)
    broker.redis.delete(broker.keys.task + lost)
    died_ago(broker, old, 2 * DAY)
    maintain(broker)
    assert dead(broker) == []


def test_so_many_at_a_time_and_the_next_caller_goes_on_at_once(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "WORK", 4)
    monkeypatch.setattr(bounds, "SLICES", 1)
    broker = make_broker(dead_letter_max=1)
    ids = [bury(broker) for _ in range(6)]
    monkeypatch.setattr(dtq.queue.maintenance, "INTERVAL", 60)
    assert [broker.maintain().dropped for _ in range(4)] == [2, 2, 1, 0]
    assert dead(broker) == ids[5:]


def test_it_is_told(make_broker: Callable[..., Broker], caplog: pytest.LogCaptureFixture) -> None:
    broker = make_broker(dead_letter_max=1)
    for _ in range(3):
        bury(broker)
    with caplog.at_level(logging.INFO, "dtq"):
        maintain(broker)
        maintain(broker)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "2 dead tasks dropped: the dead letter is bounded")
    ]


@pytest.mark.since(7, 0)  # an older server lets no script write when its memory is full
def test_a_full_server_makes_room(tmp_path: Path) -> None:
    """What deletes must work where nothing more can be stored."""
    with RedisServer(tmp_path) as server:
        settings = Settings(_env_file=None, dead_letter_max=1, result_ttl=1)
        with closing(Broker(server.url, settings)) as broker:
            ids = [bury(broker, data="x" * 1000) for _ in range(3)]
            broker.redis.config_set("maxmemory", 1)
            assert maintain(broker).dropped == 2
            wait_until(lambda: maintain(broker).deleted or not broker.get(ids[0]))
            assert dead(broker) == ids[2:]


def test_the_time_of_death_is_on_record(broker: Broker) -> None:
    task_id = bury(broker)
    [entry] = stored(broker, task_id).history
    assert abs((entry.ended_at - datetime.fromtimestamp(now(broker), UTC)).total_seconds()) < 60
