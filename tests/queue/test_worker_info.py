"""What a worker says of itself, on its way through Redis."""

from datetime import UTC, datetime

import pytest

from dtq.queue import worker_info
from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo


def test_what_a_worker_says_comes_back_with_the_times_of_redis(broker: Broker) -> None:
    told = WorkerInfo(
        id="wörker 1", status="busy", current_task="t-1", tasks_processed=2**40, host="h.local", pid=4711
    )
    before, after = broker.redis.time(), None
    broker.heartbeat(told)
    after = broker.redis.time()

    [found] = broker.workers()

    assert found.started_at is not None
    assert found.started_at == found.last_heartbeat
    assert before[0] - 1 <= found.started_at.timestamp() <= after[0] + 1
    assert found.started_at.tzinfo == UTC
    told.started_at, told.last_heartbeat = found.started_at, found.last_heartbeat
    assert found == told


def test_a_later_beat_keeps_the_start_and_moves_the_heartbeat(broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="w", status="idle"))
    [first] = broker.workers()
    broker.redis.wait(0, 1)
    broker.heartbeat(WorkerInfo(id="w", status="busy", current_task="t"))
    [second] = broker.workers()

    assert second.started_at == first.started_at
    assert first.last_heartbeat is not None
    assert second.last_heartbeat is not None
    assert second.last_heartbeat >= first.last_heartbeat
    assert (second.status, second.current_task) == ("busy", "t")


def test_times_are_read_from_seconds() -> None:
    document = b'{"id":"w","status":"idle","started_at":1700000000.5,"last_heartbeat":1700000001}'

    found = worker_info.parse(document)

    assert found
    assert found.started_at == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert found.last_heartbeat == datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC)
    assert (found.current_task, found.tasks_processed, found.host, found.pid) == (None, 0, "", 0)


def test_fields_of_a_newer_version_do_no_harm() -> None:
    assert worker_info.parse(b'{"id":"w","status":"idle","mood":"fine"}') == WorkerInfo(id="w", status="idle")


@pytest.mark.parametrize("document", [b"", b"{}", b'{"id":"w"}', b"[]", b"no json"])
def test_what_says_nothing_of_a_worker_is_none(document: bytes) -> None:
    assert worker_info.parse(document) is None
