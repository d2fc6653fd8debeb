"""Redis goes away, or refuses for a while: workers say so once, wait, and go on where they were."""

import logging
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import redis

from dtq.config import Settings
from dtq.queue.broker import Broker
from dtq.queue.reports import Report, Verdict
from dtq.queue.task import Stored
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from dtq.tasks import Context, TaskType
from dtq.worker.worker import Worker
from tests.helpers import new_task, wait_until
from tests.worker.conftest import Gate, Started, shows

StartWorker = Callable[..., Started]


@pytest.fixture
def own(server: RedisServer) -> Iterator[Broker]:
    """A queue on a server that comes and goes."""
    broker = Broker(server.url, Settings(_env_file=None, heartbeat=0.2, lease=20))
    yield broker
    broker.close()


def changes(worker: Started) -> list[str]:
    """What it said of Redis: `away`, `back`."""
    return re.findall(r"Redis is (away|back)", worker.log())


def test_an_idle_worker_waits_until_redis_is_back(
    server: RedisServer, own: Broker, start_worker: StartWorker
) -> None:
    worker = start_worker(own)
    server.stop()
    worker.says("Redis is away, trying again until it is back")
    server.start()
    worker.says("Redis is back after")

    task = new_task()
    own.submit([task])
    worker.says(f"task {task.id} completed in")
    assert changes(worker) == ["away", "back"]
    assert "Traceback" not in worker.log()


def test_what_was_done_while_redis_was_away_is_reported_when_it_is_back(
    server: RedisServer, own: Broker, start_worker: StartWorker, gate: Gate
) -> None:
    worker = start_worker(own)
    task = new_task("gate", str(gate.folder))
    own.submit([task])
    wait_until(gate.started)
    server.stop()
    gate.open()
    worker.says("Redis is away")
    server.start()

    worker.says(f"task {task.id} completed in")
    done = own.get(task.id)
    assert done is not None
    assert (done.status, done.attempts, done.crashes) == ("completed", 1, 0)


class Failing(Broker):
    """Counts what both threads of a worker try in vain."""

    beats = looks = 0

    def heartbeat(self, worker: WorkerInfo, held: Sequence[Stored] = (), instead_of: str = "") -> set[str]:
        try:
            return super().heartbeat(worker, held, instead_of)
        except redis.RedisError:
            self.beats += 1
            raise

    def wait(self, seconds: float) -> None:
        try:
            super().wait(seconds)
        except redis.RedisError:
            self.looks += 1
            raise


@pytest.mark.timeout(method="thread")
def test_both_threads_of_a_worker_meet_an_outage_and_one_tells_of_it(
    server: RedisServer,
    own: Broker,
    run_until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Failing(server.url, own.settings)

    def go_and_come() -> bool:
        server.stop()
        wait_until(lambda: broker.beats >= 2 and broker.looks >= 2, what="both have met it")
        server.start()
        task = new_task()
        own.submit([task])
        wait_until(lambda: own.counts()["completed"] == 1, what="one thread works again")
        wait_until(lambda: shows(own, tasks_processed=1), what="so does the other")
        return True

    with caplog.at_level(logging.WARNING):
        run_until(Worker(broker, "worker-1"), go_and_come)

    assert [message.split(" (")[0].split(" after")[0] for message in caplog.messages] == [
        "Redis is away, trying again until it is back",
        "Redis is back",
    ]


def test_a_worker_may_start_before_redis_does(
    server: RedisServer, own: Broker, start_worker: StartWorker
) -> None:
    server.stop()
    worker = start_worker(own, ready="Redis is away")
    server.start()

    worker.says("ready, knows")
    assert changes(worker) == ["away", "back"]
    assert worker.is_registered()


def test_a_worker_can_be_stopped_while_redis_is_away(
    server: RedisServer, own: Broker, start_worker: StartWorker
) -> None:
    worker = start_worker(own)
    server.stop()
    worker.says("Redis is away")
    worker.signal(signal.SIGTERM)

    assert worker.exit_code() == 0
    assert "stopped without goodbye, others take over when the lease ends" in worker.log()
    server.start()


def refuse_by_role(client: Any) -> None:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


def accept_by_role(client: Any) -> None:
    client.execute_command("REPLICAOF", "NO", "ONE")


def refuse_for_replicas(client: Any) -> None:
    client.config_set("min-replicas-to-write", 1)


def accept_for_replicas(client: Any) -> None:
    client.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize(
    ("refuse", "accept"),
    [(refuse_by_role, accept_by_role), (refuse_for_replicas, accept_for_replicas)],
    ids=["replica", "too few replicas"],
)
def test_a_worker_outlives_a_server_that_takes_no_writes(
    own: Broker,
    start_worker: StartWorker,
    refuse: Callable[[Any], None],
    accept: Callable[[Any], None],
) -> None:
    worker = start_worker(own)
    wait_until(lambda: own.redis.info("clients")["blocked_clients"] == 1, what="it is asleep")
    refuse(own.redis)
    worker.says("Redis is away, trying again until it is back")
    accept(own.redis)
    worker.says("Redis is back after")

    task = new_task()
    own.submit([task])
    worker.says(f"task {task.id} completed in")
    assert "Traceback" not in worker.log()


class Forgetful(Broker):
    """Loses the first reply that carries verdicts."""

    lost = False

    def report_and_claim(
        self, worker_id: str, reports: Sequence[Report], n: int, types: Iterable[str] = ()
    ) -> tuple[list[Verdict], list[Stored]]:
        if not reports or self.lost:
            return super().report_and_claim(worker_id, reports, n, types)
        super().report_and_claim(worker_id, reports, 0)
        self.lost = True
        raise redis.ConnectionError("the reply was lost")


@pytest.mark.timeout(method="thread")
@pytest.mark.parametrize(
    ("error", "says", "processed"),
    [
        (None, "completed in", 1),
        (ValueError("no"), "failed (ValueError: no), as it was reported before", 0),
    ],
    ids=["completed", "failed"],
)
def test_a_report_whose_reply_is_lost_is_sent_again(
    broker: Broker,
    redis_url: str,
    caplog: pytest.LogCaptureFixture,
    error: Exception | None,
    says: str,
    processed: int,
) -> None:
    def handler(data: Any, context: Context) -> None:
        if error:
            raise error

    def stop(data: Any, context: Context) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    task = new_task("it")
    broker.submit([task, new_task("stop")])
    types = {"it": TaskType("it", handler), "stop": TaskType("stop", stop)}
    worker = Worker(Forgetful(redis_url, broker.settings), "worker-1", types)
    with caplog.at_level(logging.INFO):
        worker.run()

    said = [message for message in caplog.messages if task.id in message]
    assert len(said) == 2, "it was claimed, and it ended"
    assert said[1].startswith(f"task {task.id} {says}")
    assert worker.processed == processed + 1
