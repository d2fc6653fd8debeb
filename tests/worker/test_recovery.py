"""Workers that die, or freeze past their lease: others take over, late results are refused."""

import signal
import time
from collections.abc import Callable

from dtq.queue.broker import Broker
from dtq.queue.reports import Completed
from dtq.queue.task import Stored
from tests.helpers import new_task, wait_until
from tests.worker.conftest import Gate, Started

StartWorker = Callable[..., Started]


def test_the_task_of_a_killed_worker_goes_to_another(
    make_broker: Callable[..., Broker], start_worker: StartWorker, gate: Gate
) -> None:
    broker = make_broker(heartbeat=0.2, lease=3)
    task = new_task("gate", str(gate.folder))
    victim = start_worker(broker, "worker-1")
    broker.submit([task])
    wait_until(gate.started)
    victim.signal(signal.SIGKILL)
    assert victim.exit_code() == -signal.SIGKILL
    gate.open()

    heir = start_worker(broker, "worker-2")
    heir.says(f"task {task.id} completed in")

    assert f"task {task.id} recovered from worker-1" in heir.log()
    done = broker.get(task.id)
    assert done is not None
    assert (done.status, done.worker_id, done.attempts, done.crashes) == ("completed", "worker-2", 2, 1)
    [lost] = done.history
    assert (lost.attempt, lost.worker, lost.outcome) == (1, "worker-1", "worker lost")
    wait_until(lambda: not victim.is_registered(), what="the dead worker is struck off")


def test_crash_kills_its_worker_and_no_goodbye_is_said(broker: Broker, start_worker: StartWorker) -> None:
    worker = start_worker(broker)
    task = new_task("crash", {"times": 1})
    broker.submit([task])

    assert worker.exit_code() == -signal.SIGKILL
    held = broker.get(task.id)
    assert held is not None
    assert (held.status, held.worker_id) == ("processing", "worker-1")
    assert worker.is_registered()


def take_over(broker: Broker) -> Stored:
    """Waits until the lease of the task in question has ended, and claims it."""
    wait_until(lambda: broker.maintain().recovered, what="the lease has ended")
    _, [task] = broker.report_and_claim("worker-2", [], 1)
    return task


def test_a_worker_that_was_frozen_goes_on_without_its_late_result(
    make_broker: Callable[..., Broker], start_worker: StartWorker, gate: Gate
) -> None:
    broker = make_broker(heartbeat=0.2, lease=3)
    task, later = new_task("gate", str(gate.folder)), new_task("process", "more")
    worker = start_worker(broker)
    broker.submit([task])
    wait_until(gate.started)
    worker.signal(signal.SIGSTOP)
    recovered = take_over(broker)
    report = Completed(recovered, 0.1, time.monotonic(), b'"the heir\'s"')
    [verdict], _ = broker.report_and_claim("worker-2", [report], 0)
    assert verdict.word == "completed"
    before = broker.get(task.id)
    gate.open()
    worker.signal(signal.SIGCONT)

    worker.says(f"task {task.id}: late result refused, the task is no longer this worker's")
    assert broker.get(task.id) == before
    assert int(broker.redis.hget(broker.keys.counters, "stale")) == 1
    broker.submit([later])
    worker.says(f"task {later.id} completed in")
    assert f"task {task.id} completed in" not in worker.log()
    wait_until(worker.is_registered, what="it is back in the list")


def test_a_worker_whose_task_was_given_away_says_so_while_it_runs(
    make_broker: Callable[..., Broker], start_worker: StartWorker, gate: Gate
) -> None:
    broker = make_broker(heartbeat=0.2, lease=3)
    task = new_task("gate", str(gate.folder))
    worker = start_worker(broker)
    broker.submit([task])
    wait_until(gate.started)
    worker.signal(signal.SIGSTOP)
    take_over(broker)
    worker.signal(signal.SIGCONT)

    worker.says(f"task {task.id} was given to another worker, its result will be refused")
    gate.open()
    worker.says(f"task {task.id}: late result refused")


def test_heartbeats_extend_the_lease_of_a_task_that_takes_long(
    make_broker: Callable[..., Broker], start_worker: StartWorker, gate: Gate
) -> None:
    broker = make_broker(heartbeat=0.1, lease=5)
    task = new_task("gate", str(gate.folder))
    worker = start_worker(broker)
    broker.submit([task])
    wait_until(gate.started)
    ends: set[float] = set()

    def seen(n: int) -> bool:
        ends.add(broker.redis.zscore(broker.keys.processing, task.id))
        return len(ends) >= n

    wait_until(lambda: seen(4), what="three beats have moved its end")
    gate.open()
    worker.says(f"task {task.id} completed in")
    done = broker.get(task.id)
    assert done is not None
    assert (done.attempts, done.crashes) == (1, 0)
