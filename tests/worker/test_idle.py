"""A worker that has nothing to do: it costs next to nothing, and new work wakes one."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

from dtq.config import Settings
from dtq.queue.broker import Broker
from dtq.queue.reports import Report, Verdict
from dtq.queue.task import Stored
from dtq.redis_server import RedisServer
from dtq.worker import worker as worker_module
from dtq.worker.worker import Worker
from tests.helpers import new_task, wait_until
from tests.worker.conftest import Gate, Started

SOUND = {  # asleep longer than a test lasts
    "patch": "import dtq.worker.worker; dtq.worker.worker.IDLE_WAIT = 600",
    "query": "?socket_timeout=1000",
}


@pytest.fixture
def own(server: RedisServer) -> Iterator[Broker]:
    """A queue on a server that nobody else uses."""
    broker = Broker(server.url, Settings(_env_file=None, heartbeat=30, lease=90))
    yield broker
    broker.close()


class Counting(Broker):
    """Counts, and says stop after five waits."""

    waits = claims = 0

    def report_and_claim(
        self, worker_id: str, reports: Sequence[Report], n: int, types: Iterable[str] = ()
    ) -> tuple[list[Verdict], list[Stored]]:
        self.claims += 1
        return super().report_and_claim(worker_id, reports, n, types)

    def wait(self, seconds: float) -> None:
        super().wait(seconds)
        self.waits += 1
        if self.waits == 5:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.timeout(method="thread")
def test_an_idle_worker_looks_once_for_each_wait(
    broker: Broker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_WAIT", 0.02)
    counting = Counting(redis_url, broker.settings)

    Worker(counting, "worker-1").run()

    assert counting.waits == 5
    assert counting.claims == 6, "one before each wait, and the last report when it leaves"


def waiting(broker: Broker) -> int:
    """How many clients are asleep in a blocking command."""
    return int(broker.redis.info("clients")["blocked_clients"])


def test_one_task_wakes_one_worker_and_several_wake_several(
    own: Broker, start_worker: Callable[..., Started], make_gate: Callable[[], Gate]
) -> None:
    names = ["worker-1", "worker-2", "worker-3"]
    for name in names:
        start_worker(own, name, **SOUND, ready="")
    wait_until(lambda: waiting(own) == 3, what="all are asleep")

    with own.redis.monitor() as monitor:
        own.submit([new_task()])
        wait_until(lambda: own.counts()["completed"] == 1 and waiting(own) == 3, what="all sleep again")
        own.redis.echo("the end")
        commands = list(iter(lambda: monitor.next_command()["command"], "ECHO the end"))
    asleep_again = [command for command in commands if command.startswith("BZPOPMIN")]
    assert len(asleep_again) == 1, "only one was awake"

    gates = [make_gate() for _ in names]
    own.submit([new_task("gate", str(gate.folder)) for gate in gates])
    wait_until(lambda: all(gate.started() for gate in gates), what="three tasks run at a time")
    for gate in gates:
        gate.open()
    wait_until(lambda: own.counts()["completed"] == 4)
    assert {task.worker_id for task in own.tasks(type="gate")} == set(names)


def test_a_marker_that_nobody_meant_does_no_harm(
    broker: Broker, start_worker: Callable[..., Started]
) -> None:
    worker = start_worker(broker)
    for _ in range(3):
        broker.redis.zadd(broker.keys.wake, {"work": 0})
        wait_until(lambda: not broker.redis.exists(broker.keys.wake), what="the marker is taken")
    task = new_task()
    broker.submit([task])

    worker.says(f"task {task.id} completed in")


def test_a_lost_marker_delays_a_task_no_longer_than_one_wait(
    broker: Broker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = new_task()

    class Losing(Broker):
        """Loses the marker of the one task that is submitted, as a worker does that dies with it in hand."""

        waits = 0

        def wait(self, seconds: float) -> None:
            self.waits += 1
            if self.waits == 1:
                self.submit([task])
                self.redis.delete(self.keys.wake)
            elif self.waits == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            super().wait(seconds)

    monkeypatch.setattr(worker_module, "IDLE_WAIT", 0.02)
    worker = Worker(Losing(redis_url, broker.settings), "worker-1")
    worker.run()

    assert worker.processed == 1
