"""A worker starts no task that may be another's by now; its steps one by one, in this thread."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from dtq.queue.broker import Broker
from dtq.worker.worker import Worker
from tests.helpers import wait_until
from tests.steps import claim_one, lose, submit


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
