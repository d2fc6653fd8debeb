"""When a worker takes its handler for stuck, and when it only has to wait for an alarm that is on its way."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from dtq.config import Settings
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from dtq.worker import interrupts as interrupts_module
from dtq.worker.interrupts import Interrupts
from tests.helpers import ended, new_task, wait_until
from tests.worker.conftest import Gate, Started

TIME_LIMIT, LAST_WORDS = 0.5, 3.0  # seconds
PATCH = f"from dtq.worker import interrupts; interrupts.LAST_WORDS = {LAST_WORDS}"


@pytest.fixture
def own(server: RedisServer) -> Iterator[Broker]:
    """A queue on a server that this test may pause."""
    with closing(Broker(server.url, Settings(_env_file=None, heartbeat=0.2, lease=60))) as broker:
        yield broker


def after(seconds: float) -> None:
    """Waits until so much time has passed."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


@pytest.fixture
def no_alarm() -> Iterator[None]:
    """No alarm is heard."""
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(method="thread")  # the other method's timer is the worker's here
@pytest.mark.usefixtures("no_alarm")
def test_a_handler_is_stuck_when_two_looks_in_a_row_find_it_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts_module, "LAST_WORDS", 0.05)
    interrupts = Interrupts(30, logging.getLogger("worker-1"))

    def overrun(looks: int) -> list[bool]:
        after(0.1)
        return [interrupts.is_stuck() for _ in range(looks)]

    assert interrupts.limit(0.01, lambda: overrun(3)) == [False, True, True]
    assert not interrupts.is_stuck(), "the handler is over"
    assert interrupts.limit(0.01, lambda: overrun(1)) == [False]
    assert not interrupts.is_stuck()
    assert interrupts.limit(0.01, lambda: overrun(2)) == [False, True], "the look of last time does not count"


def waiting(broker: Broker) -> int:
    """How many clients wait for an answer of the paused server."""
    return int(broker.redis.info("clients")["blocked_clients"])


def test_a_worker_that_was_stopped_while_a_time_limit_ran_out_goes_on(
    own: Broker, start_worker: Callable[..., Started], gate: Gate
) -> None:
    """As the worker goes on, its second thread looks once while the alarm is still on its way. A pause of
    the server keeps it from a second look, however slow the machine, until the handler has heard the alarm.
    """
    worker = start_worker(own, patch=PATCH, query="?socket_timeout=1000")
    task, next_one = new_task("numb", str(gate.folder), timeout=TIME_LIMIT), new_task()
    own.submit([task, next_one])
    wait_until(gate.started)
    worker.signal(signal.SIGSTOP)
    after(TIME_LIMIT + LAST_WORDS)
    own.redis.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
    worker.signal(signal.SIGCONT)
    wait_until(lambda: waiting(own) == 1, what="it has looked, and sends a beat", in_vain=worker.last_words)
    worker.signal(signal.SIGUSR1)
    wait_until(lambda: waiting(own) == 2, what="the task is reported", in_vain=worker.last_words)
    own.redis.execute_command("CLIENT", "UNPAUSE")

    assert ended(own, next_one.id).status == "completed"
    dead = ended(own, task.id)
    assert (dead.status, dead.error, dead.crashes) == ("failed", "was not done within its 0.5 s", 0)
    assert [attempt.outcome for attempt in dead.history] == ["timeout"]
