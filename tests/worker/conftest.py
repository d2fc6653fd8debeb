"""Workers to look at: real processes, and workers in the test's own thread."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dtq.processes.children import Children
from dtq.processes.program import dtq
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from dtq.worker.worker import Worker
from tests.helpers import exit_code, wait_until

TYPES = '''
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from dtq.tasks import task

@task("gate")
def gate(folder, context):
    """Says that it has started; then waits until it may go."""
    Path(folder, "started").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return "gone through"

@task("deaf", timeout=0.2)
def deaf(data, context):
    """Returns on no account."""
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass

@task("loop", timeout=0.2, max_retries=0)
def loop(data, context):
    """Returns on no account, but can be interrupted."""
    while True:
        pass

@task("numb", max_retries=0)
def numb(folder, context):
    """Says that it has started; then hears of nothing, its time limit included, before SIGUSR1."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    Path(folder, "started").touch()
    signal.sigwait({signal.SIGUSR1})

@task("hold", timeout=0.2)
def hold(data, context):
    """Holds the interpreter: no other Python code runs."""
    sum(range(10**11))

@task("fork", max_retries=0)
def fork(end, context):
    """Forks; the child goes the way that most programs go, and the handler returns its exit code."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if end == "exit":
        sys.exit(3)
    if end == "raise":
        raise RuntimeError("in the child")
    return "in the child"

@task("terminate", max_retries=0)
def terminate(data, context):
    """Ends a child of its own by SIGTERM, and returns its exit code."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode
'''


class Started:
    """A worker in a process of its own."""

    def __init__(self, processes: Children, broker: Broker, name: str, pid: int, output: Path) -> None:
        self.name, self.pid = name, pid
        self._processes, self._broker, self._output = processes, broker, output

    def log(self) -> str:
        """All that it has said so far."""
        return self._output.read_text()

    def says(self, text: str) -> None:
        """Waits until its log has this text."""
        wait_until(lambda: text in self.log(), f"{self.name} says {text!r}", self.last_words)

    def signal(self, number: int) -> None:
        self._processes.signal(self.name, number)

    def exit_code(self) -> int:
        """Waits for its end."""
        return exit_code(self._processes, self.name)

    def is_registered(self) -> bool:
        return shows(self._broker, id=self.name)

    def last_words(self) -> str:
        """What it said, once it has ended."""
        code = self._processes.exit_code(self.name)
        return "" if code is None else f"it ended with {code}\n{self.log()}"


def shows(broker: Broker, **fields: Any) -> bool:
    """Whether a live worker says this of itself."""
    return any(
        all(getattr(shown, name) == value for name, value in fields.items()) for shown in broker.workers()
    )


class Gate:
    """Holds a task of type `gate` where the test wants it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def started(self) -> bool:
        return (self.folder / "started").exists()

    def open(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def make_gate(tmp_path: Path) -> Callable[[], Gate]:
    """Gates; the payload of the task is `str(gate.folder)`."""

    def make() -> Gate:
        return Gate(tmp_path / f"gate-{len(list(tmp_path.glob('gate-*')))}")

    return make


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    """One gate."""
    return make_gate()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts `dtq worker` processes for a broker's queue, with its settings and the types above.

    Returns when their logs have the text `ready`. `query` goes after the server's address; `patch` is a line
    of Python that is run before all others. A process of the same name is stopped before; `process` is
    another name for it than the worker's own.
    """
    (tmp_path / "types.d").mkdir()
    (tmp_path / "types.d" / "worker_types.py").write_text(TYPES)
    processes = Children()

    def start(
        broker: Broker,
        name: str = "worker-1",
        *,
        query: str = "",
        patch: str = "",
        ready: str = "ready, knows",
        process: str = "",
    ) -> Started:
        settings = {key: getattr(broker.settings, key) for key in broker.settings.model_fields_set}
        environment = {f"DTQ_{key.upper()}": str(value) for key, value in settings.items()}
        connection = broker.redis.connection_pool.connection_kwargs
        environment["REDIS_URL"] = f"redis://{connection['host']}:{connection['port']}/0{query}"
        words = ["worker", "--name", name, "--tasks", str(tmp_path / "types.d" / "worker_types.py")]
        patched = f"{patch}; from dtq.cli.commands import main; main()"
        command = [sys.executable, "-c", patched, *words] if patch else dtq(*words)
        process = process or name
        output = tmp_path / f"{process}.log"
        pid = processes.start(process, command, environment, output)
        started = Started(processes, broker, process, pid, output)
        started.says(ready)
        return started

    yield start
    processes.close(grace=0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that this test may stop, start, change and count on."""
    own = RedisServer(tmp_path / "own-redis").start()
    yield own
    own.stop()


@pytest.fixture
def run_until() -> Iterator[Callable[[Worker, Callable[[], Any]], None]]:
    """Runs a worker in this thread, until what another thread awaits is true; then it is told to stop."""

    def run(worker: Worker, condition: Callable[[], Any]) -> None:
        def stop() -> None:
            wait_until(lambda: shows(worker.broker, id=worker.name))
            try:
                wait_until(condition)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stop)
            worker.run()
            waiting.result()

    def too_late(number: int, frame: object) -> None:
        """A worker that has stopped already has no use for it."""

    before = signal.signal(signal.SIGTERM, too_late)
    yield run
    signal.signal(signal.SIGTERM, before)
