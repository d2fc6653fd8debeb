"""A worker starts no task that may be another's by now; its steps one by one, in this thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar

import pytest
import redis

from dtq.queue.broker import Broker
from dtq.queue.task import Stored
from dtq.worker.worker import Worker
from tests.helpers import new_task, wait_until
from tests.steps import claim_one, lose, stored, submit


class Late(Broker):
    """While `late`, its replies come when the leases that they tell of have ended."""

    late = False

    def report_and_claim(self, *arguments: Any) -> Any:
        return self._wait(super().report_and_claim(*arguments))

    def heartbeat(self, *arguments: Any) -> Any:
        return self._wait(super().heartbeat(*arguments))

    def _wait(self, reply: Any) -> Any:
        ended = time.monotonic() + self.settings.lease
        wait_until(lambda: not self.late or time.monotonic() > ended, what="the leases have ended")
        return reply


@pytest.fixture
def late(make_broker: Callable[..., Broker], redis_url: str) -> Iterator[Late]:
    """A queue with short leases. Its replies are in time as yet."""
    with closing(Late(redis_url, make_broker(lease=0.5).settings)) as broker:
        yield broker


class Deaf(Broker):
    """Does not hear the first time that tasks are given back."""

    given_back: ClassVar[list[str]] = []

    def release(self, worker_id: str, tasks: Sequence[Stored], started: bool = False) -> int:
        self.given_back.append(",".join(task.id for task in tasks))
        if len(self.given_back) == 1:
            raise redis.ConnectionError("it was not sent")
        return super().release(worker_id, tasks, started)


def test_what_is_given_back_is_held_until_the_broker_has_it(
    make_broker: Callable[..., Broker], redis_url: str
) -> None:
    """Else its lease would end, and count as a lost worker."""
    broker = make_broker(prefetch_seconds=0)
    worker = Worker(deaf := Deaf(redis_url, broker.settings), "worker-1")
    broker.submit([new_task(id=name) for name in "ab"])
    worker._exchange(2)
    with pytest.raises(redis.ConnectionError):
        worker._relieve()
    assert [task.id for task in worker.claimed.held()] == ["a", "b"]
    worker._relieve()
    assert (deaf.given_back, worker.claimed.held()) == (["a,b", "a,b"], [])
    assert [stored(broker, name).status for name in "ab"] == ["pending", "pending"]


def test_a_worker_that_knows_no_type_claims_nothing(broker: Broker, redis_url: str) -> None:
    broker.submit([new_task()])
    assert Worker(broker, "worker-1", types={})._refill() == 0
    assert broker.counts()["pending"] == 1


def test_what_a_beat_finds_lost_is_not_started(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(lease=600)
    first, second, third = [submit(broker) for _ in range(3)]
    worker = Worker(broker, "worker-1")
    worker._exchange(3)
    lose(broker, second)
    assert claim_one(broker, "worker-2").id == second

    worker._beat()

    assert [task.id for task in iter(worker.claimed.start, None)] == [first, third]


def test_a_lease_counts_from_before_the_claim_is_sent(late: Late) -> None:
    submit(late)
    worker = Worker(late, "worker-1")
    late.late = True

    worker._exchange(1)

    assert len(worker.claimed) == 1
    assert worker.claimed.start() is None, "it may have been given to another worker meanwhile"


def test_a_lease_counts_from_before_the_beat_is_sent(late: Late) -> None:
    submit(late)
    worker = Worker(late, "worker-1")
    worker._exchange(1)
    late.late = True

    worker._beat()

    assert len(worker.claimed) == 1
    assert worker.claimed.start() is None
