"""SIGTERM: the worker ends what it has begun, gives back the rest and goes; a second one: at once."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest

from dtq import tasks
from dtq.queue.broker import Broker
from dtq.queue.task import NewTask, Stored
from dtq.tasks import Context, TaskType
from dtq.worker.interrupts import Interrupts
from dtq.worker.worker import Worker
from tests.helpers import new_task, wait_until
from tests.steps import stored
from tests.worker.conftest import Gate, Started, shows

in_this_thread = pytest.mark.timeout(method="thread")  # the other method's timer is the worker's here
StartWorker = Callable[..., Started]


def start_gate(broker: Broker, gate: Gate, **options: Any) -> NewTask:
    """Submits a task and waits until its handler runs."""
    task = new_task("gate", str(gate.folder), **options)
    broker.submit([task])
    wait_until(gate.started, what="the handler runs")
    return task


def test_an_idle_worker_goes_at_once_and_says_goodbye(broker: Broker, start_worker: StartWorker) -> None:
    sound = "import dtq.worker.worker; dtq.worker.worker.IDLE_WAIT = 600"  # longer than its end is awaited
    workers = [
        start_worker(broker, name, patch=sound, query="?socket_timeout=1000", ready="")
        for name in ("worker-1", "worker-2")
    ]
    for worker in workers:
        worker.says("ready")
        assert worker.is_registered()

    for worker, number in zip(workers, (signal.SIGTERM, signal.SIGINT), strict=True):
        worker.signal(number)

        assert worker.exit_code() == 0
        assert not worker.is_registered()
        assert worker.log().splitlines()[-1].endswith("INFO stopped after 0 tasks, 0 given back")


def test_the_task_in_hand_is_finished_and_the_others_are_left(
    make_broker: Callable[..., Broker], start_worker: StartWorker, gate: Gate
) -> None:
    broker = make_broker(heartbeat=0.1, lease=5)
    worker = start_worker(broker)
    task = start_gate(broker, gate)
    others = [new_task() for _ in range(3)]
    broker.submit(others)
    worker.signal(signal.SIGTERM)
    worker.says("stopping; the task in hand has 30 s")
    wait_until(lambda: shows(broker, status="draining"), what="a beat tells of it")
    gate.open()

    assert worker.exit_code() == 0
    done = stored(broker, task.id)
    assert (done.status, done.attempts, bytes(done.result)) == ("completed", 1, b'"gone through"')
    assert not worker.is_registered()
    assert "stopped after 1 tasks" in worker.log()
    left = [stored(broker, other.id) for other in others]
    assert {(other.status, other.attempts) for other in left} == {("pending", 0)}


@in_this_thread
def test_what_was_claimed_and_not_begun_is_given_back_in_its_old_order(
    make_broker: Callable[..., Broker], redis_url: str
) -> None:
    """The worker learns to claim in batches; one of the last batch tells it to stop."""

    def stop(data: Any, context: Context) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    broker = make_broker()
    after = [new_task() for _ in range(5)]
    broker.submit([*[new_task() for _ in range(200)], new_task("stop"), *after])
    types = {"noop": tasks.registry["noop"], "stop": TaskType("stop", stop)}

    Worker(make_broker(), "worker-1", types).run()

    assert broker.counts()["completed"] == 201
    _, claimed = broker.report_and_claim("worker-2", [], 64)
    assert [task.id for task in claimed] == [task.id for task in after]
    assert {(task.attempts, task.crashes) for task in claimed} == {(1, 0)}
    assert int(broker.redis.hget(broker.keys.counters, "released")) > 0


def test_a_second_signal_gives_the_task_back_at_once(
    broker: Broker, start_worker: StartWorker, gate: Gate
) -> None:
    worker = start_worker(broker)
    task = start_gate(broker, gate)
    broker.submit([new_task()])
    worker.signal(signal.SIGTERM)
    worker.says("stopping; the task in hand has")
    worker.signal(signal.SIGINT)

    assert worker.exit_code() == 0
    assert f"task {task.id} abandoned, this worker has to go" in worker.log()
    back = stored(broker, task.id)
    assert (back.status, back.attempts, back.crashes, back.history) == ("pending", 1, 0, [])
    _, claimed = broker.report_and_claim("worker-2", [], 2)
    assert claimed[0].id == task.id, "it is the first again"
    assert claimed[0].attempts == 2, "the attempt that was begun counts"


def test_a_task_that_takes_longer_than_the_drain_timeout_is_given_back(
    make_broker: Callable[..., Broker], start_worker: StartWorker, gate: Gate
) -> None:
    broker = make_broker(drain_timeout=0.1)
    worker = start_worker(broker)
    task = start_gate(broker, gate)
    worker.signal(signal.SIGTERM)

    assert worker.exit_code() == 0
    assert "stopping; the task in hand has 0.1 s" in worker.log()
    assert stored(broker, task.id).status == "pending"
    assert not worker.is_registered()


def test_a_handler_that_will_not_be_interrupted_cannot_hold_a_draining_worker(
    make_broker: Callable[..., Broker], start_worker: StartWorker
) -> None:
    broker = make_broker(drain_timeout=0.1, heartbeat=0.1, lease=5)
    worker = start_worker(broker, patch="from dtq.worker import interrupts; interrupts.LAST_WORDS = 0.2")
    deaf = new_task("deaf", timeout=600)
    broker.submit([deaf])
    wait_until(lambda: shows(broker, current_task=deaf.id), what="it runs")
    worker.signal(signal.SIGTERM)

    assert worker.exit_code() == 70


class Interrupting(Broker):
    """Redis, as slow as a worker that leaves likes it least: another signal arrives with each goodbye."""

    def release(self, worker_id: str, tasks: Sequence[Stored], started: bool = False) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().release(worker_id, tasks, started)

    def deregister(self, worker_id: str, instance: str = "") -> None:
        os.kill(os.getpid(), signal.SIGINT)
        super().deregister(worker_id, instance)


@in_this_thread
def test_more_signals_do_not_keep_a_worker_from_saying_goodbye(
    broker: Broker, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[int] = []

    def stop(data: Any, context: Context) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    first, second = new_task("stop"), new_task("stop")
    broker.submit([first, second])
    worker = Worker(Interrupting(redis_url, broker.settings), "worker-1", {"stop": TaskType("stop", stop)})
    before = {n: signal.signal(n, lambda n, _: arrived.append(n)) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        with caplog.at_level(logging.INFO):
            worker.run()
    finally:
        for number, action in before.items():
            signal.signal(number, action)

    assert arrived == [], "the worker's own handlers are in place until it has said goodbye"
    assert caplog.messages[-1] == "stopped after 1 tasks, 0 given back"
    assert broker.workers() == []
    assert [stored(broker, task.id).status for task in (first, second)] == ["completed", "pending"]


@in_this_thread
def test_a_signal_may_interrupt_the_handling_of_another_anywhere(broker: Broker) -> None:
    """SIGINT and SIGTERM often come together: from a terminal and from whoever started the worker."""
    steps = 0
    while True:
        worker, left = Worker(broker, "worker-1"), steps

        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                signal.raise_signal(signal.SIGINT)
            return trace

        with worker.interrupts.listening():
            sys.settrace(trace)
            try:
                worker.interrupts._stop(signal.SIGTERM, None)
            finally:
                sys.settrace(None)
        if left >= 0:
            break
        steps += 1

    assert steps > 2, "it was interrupted at each of its steps"


class Pressed(Interrupts):
    """A signal asks the worker to stop in the very moment in which it starts the clock of a handler."""

    def _allow(self, seconds: float) -> None:
        if not self._pressed:
            self._pressed = True
            signal.raise_signal(signal.SIGTERM)
        super()._allow(seconds)

    _pressed = False


@in_this_thread
def test_a_signal_at_the_start_of_a_handler_starts_the_drain_timeout(
    make_broker: Callable[..., Broker],
) -> None:
    broker = make_broker(drain_timeout=0.1)
    task = new_task("sleep", 30)
    broker.submit([task])

    worker = Worker(broker, "worker-1")
    worker.interrupts = Pressed(broker.settings.drain_timeout, worker.log)
    worker.run()

    assert (stored(broker, task.id).status, stored(broker, task.id).attempts) == ("pending", 1)
