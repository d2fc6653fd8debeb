"""What handlers, strangers and mistakes can do to a worker: it goes on, or ends and is replaced."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest
import redis

from dtq.config import Settings
from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from dtq.worker.interrupts import HOPELESS
from tests.helpers import ended, new_task, wait_until
from tests.steps import status, stored, submit
from tests.worker.conftest import Gate, Started, shows

StartWorker = Callable[..., Started]


@pytest.fixture
def own(server: RedisServer) -> Iterator[Broker]:
    """A queue on a server that this test may hold up."""
    with closing(Broker(server.url, Settings(_env_file=None, heartbeat=0.2, lease=2))) as broker:
        yield broker


# ---------------------------------------------------------------- handlers


def test_a_handler_that_holds_the_interpreter_ends_its_worker(
    make_broker: Callable[..., Broker], start_worker: StartWorker
) -> None:
    """Neither its alarm nor the second thread can run; the task goes the way of a lost worker."""
    broker = make_broker(lease=1.5, heartbeat=0.5, max_crashes=1)
    task_id = submit(broker, "hold")
    worker = start_worker(broker)
    assert worker.exit_code() == -signal.SIGPROF
    assert "in hold" in worker.log(), "it says where"
    wait_until(lambda: broker.maintain() and stored(broker, task_id).status == "failed")
    assert stored(broker, task_id).history[0].outcome == "worker lost"


def test_a_pause_beyond_the_time_limit_costs_the_task_and_not_the_worker(
    make_broker: Callable[..., Broker], start_worker: StartWorker, make_gate: Callable[[], Gate]
) -> None:
    """Its alarm falls due meanwhile: only the main thread may get it, and it must get its chance."""
    broker = make_broker(lease=60)
    worker = start_worker(broker)
    for limit in (0.2, 0.2, 0.2, 0.5):
        gate = make_gate()
        task_id = submit(broker, "gate", str(gate.folder), timeout=limit, max_retries=0)
        wait_until(lambda gate=gate, task_id=task_id: gate.started() or status(broker, task_id) == "failed")
        worker.signal(signal.SIGSTOP)
        over = time.monotonic() + limit + (HOPELESS + 1 if limit > 0.2 else 0.3)
        wait_until(lambda over=over: time.monotonic() > over, what="its limit is over")
        worker.signal(signal.SIGCONT)
        done = ended(broker, task_id)
        assert (done.status, done.history[0].outcome) == ("failed", "timeout"), worker.log()
    assert shows(broker, pid=worker.pid)


@pytest.mark.parametrize(("end", "code"), [("exit", 3), ("raise", 1), ("return", 0)])
def test_a_process_that_a_handler_forks_is_no_second_worker(
    broker: Broker, start_worker: StartWorker, end: str, code: int
) -> None:
    task_id, other = submit(broker, "fork", end), submit(broker)
    worker = start_worker(broker)
    done = ended(broker, task_id)
    assert (done.status, done.result and msgspec.json.decode(done.result)) == ("completed", code)
    assert ended(broker, other).status == "completed"
    assert worker.log().count(f"task {task_id}") == 2, "claimed and completed: by one process"


def test_a_process_that_a_handler_starts_can_be_terminated(broker: Broker, start_worker: StartWorker) -> None:
    task_id = submit(broker, "terminate")
    start_worker(broker)
    done = ended(broker, task_id)
    assert (done.status, bytes(done.result or b"")) == ("completed", b"-15")


# ---------------------------------------------------------------- its second thread


def test_a_worker_whose_second_thread_ends_ends_itself(broker: Broker, start_worker: StartWorker) -> None:
    """Else it would claim tasks and never beat."""
    patch = "from dtq.queue.broker import Broker; Broker.maintain = lambda self: 1 / 0"
    worker = start_worker(broker, patch=patch)
    assert worker.exit_code() == 70
    assert "the heartbeat ended by a mistake: this worker ends itself" in worker.log()
    assert "ZeroDivisionError" in worker.log()


# ---------------------------------------------------------------- Redis


@pytest.fixture
def impatient(server: RedisServer) -> RedisServer:
    """Says BUSY after a moment of a long script."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("lua-time-limit", 50)
    return server


def test_a_script_of_somebody_else_is_waited_for(
    impatient: RedisServer, own: Broker, start_worker: StartWorker, gate: Gate
) -> None:
    held = new_task("gate", str(gate.folder))
    own.submit([held])
    worker = start_worker(own)
    wait_until(gate.started)
    with redis.Redis.from_url(impatient.url, socket_timeout=None) as stranger:
        connection = stranger.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)
        worker.says("Redis is away, trying again until it is back (")
        gate.open()
        assert "BUSY" in worker.log()
        with redis.Redis.from_url(impatient.url) as other:
            other.script_kill()
        with pytest.raises(redis.ResponseError):
            connection.read_response()
        stranger.connection_pool.release(connection)
    worker.says("Redis is back")
    assert ended(own, held.id).status == "completed"
    task = new_task()
    own.submit([task])
    assert ended(own, task.id).worker_id == "worker-1"


def test_a_key_of_the_wrong_kind_is_waited_for(
    server: RedisServer, own: Broker, start_worker: StartWorker
) -> None:
    worker = start_worker(own)
    own.redis.delete(own.keys.pending)
    own.redis.set(own.keys.pending, "no list")
    worker.says("Redis refuses this, trying again until it is back")
    own.redis.delete(own.keys.pending)
    worker.says("Redis is back")
    task = new_task()
    own.submit([task])
    assert ended(own, task.id).status == "completed"


# ---------------------------------------------------------------- names


def test_a_second_worker_of_one_name_is_refused(broker: Broker, start_worker: StartWorker) -> None:
    first = start_worker(broker)
    second = start_worker(broker, ready="is at work already", process="twin")
    assert second.exit_code() == 1
    line = f"Error: A worker called worker-1 is at work already (process {first.pid} on "
    assert line in second.log()
    assert "Traceback" not in second.log()
    assert shows(broker, id="worker-1", pid=first.pid)
    task_id = submit(broker)
    assert ended(broker, task_id).worker_id == "worker-1"


def test_a_killed_worker_leaves_its_name_to_the_next_at_once(
    make_broker: Callable[..., Broker], start_worker: StartWorker
) -> None:
    broker = make_broker(heartbeat=100, lease=300)
    first = start_worker(broker)
    first.signal(signal.SIGKILL)
    assert first.exit_code() == -signal.SIGKILL
    assert shows(broker, id="worker-1", pid=first.pid), "for three beats"
    second = start_worker(broker, process="next")
    assert shows(broker, id="worker-1", pid=second.pid)


def test_a_worker_that_was_away_gives_up_a_name_that_another_has_by_now(
    make_broker: Callable[..., Broker], start_worker: StartWorker
) -> None:
    broker = make_broker(heartbeat=0.2)
    first = start_worker(broker)
    first.signal(signal.SIGSTOP)
    wait_until(lambda: not broker.workers(), what="its registration expires")
    other = WorkerInfo(id="worker-1", status="idle", host="elsewhere", pid=os.getpid(), instance="other")
    make_broker(heartbeat=100, lease=300).heartbeat(other)
    first.signal(signal.SIGCONT)
    first.says("A worker called worker-1 is at work already")
    assert first.exit_code() == 0
    assert shows(broker, id="worker-1", host="elsewhere"), "its goodbye was not the other's"


def test_ready_is_said_by_a_worker_that_has_reached_redis(
    server: RedisServer, own: Broker, start_worker: StartWorker
) -> None:
    server.stop()
    worker = start_worker(own, ready="Redis is away")
    worker.signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert "ready" not in worker.log()
    server.start()
