"""SIGHUP: workers load new code without losing a task, and go on without it where it does not load."""

import os
import pty
import signal
import threading
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import msgspec
import pytest

from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.lab.witness.ledger import counted
from dtq.queue.task import Status
from tests.commands import Program
from tests.helpers import PATIENCE, alive, family, wait_until
from tests.steps import holder

# Of different lengths: Python takes a file of the same second and length for the one that it has compiled.
FIRST = """
import atexit, time
from pathlib import Path
from dtq.tasks import task

atexit.register(Path(__file__).with_name("ended").touch)

@task("version")
def version(data, context):
    time.sleep(0.02)
    return "first"

@task("gate")
def gate(folder, context):
    Path(folder, "started").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return "through"
"""
SECOND = FIRST.replace("first", "second")
BROKEN = FIRST.replace("def version", "deaf version")


class Reloader(Program):
    """`dtq` with the task types of a file that may change."""

    def __init__(
        self, cluster: LocalCluster, folder: Path, *arguments: str, first: Callable[[], None] | None = None
    ) -> None:
        self.code = folder / "my_tasks.py"
        self.code.write_text(FIRST)
        modules = ["--tasks", str(self.code), "--tasks", "dtq.lab.witness.ledger_hook"]
        world = {"REDIS_URL": cluster.redis_url, "DTQ_HOME": str(folder)}
        super().__init__(folder, *arguments, *modules, first=first, **world)


@pytest.fixture
def cluster(make_cluster: Callable[..., LocalCluster]) -> LocalCluster:
    """No workers but those that a test starts."""
    return make_cluster(workers=0)


@pytest.fixture
def start(cluster: LocalCluster, tmp_path: Path) -> Iterator[Callable[..., Reloader]]:
    programs: list[Reloader] = []

    def start(*arguments: str, first: Callable[[], None] | None = None) -> Reloader:
        programs.append(Reloader(cluster, tmp_path, *arguments, first=first))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
        program.process.wait()


class Load:
    """Submits tasks of type `version` all the time, in a thread of its own."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.ids: list[str] = []
        self._cluster, self._ended = cluster, threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _submit(self) -> None:
        while not self._ended.wait(0.1):
            self.ids += self._cluster.client.submit_many("version", [None] * 10)

    def await_each(self, workers: list[str], result: str) -> None:
        """Returns when each of them has completed a task of late with this result."""

        def seen() -> bool:
            tasks = self._cluster.broker.tasks(Status.COMPLETED, limit=50)
            told = {(task.worker_id, msgspec.json.decode(task.result)) for task in tasks}
            return told.issuperset((worker, result) for worker in workers)

        wait_until(seen, what=f"each of {workers} says {result}")


def lines(program: Reloader, *words: str) -> list[str]:
    """Its log lines with one of these words, without their time."""
    said = [line.split(" ", 1)[1] for line in program.log.read_text().splitlines() if " " in line]
    return [line for line in said if any(word in line for word in words)]


def test_new_code_is_loaded_under_load_and_no_task_is_lost_or_run_twice(
    cluster: LocalCluster, start: Callable[..., Reloader]
) -> None:
    program = start("worker", "--processes", "2", "--name", "it")
    with Load(cluster) as load:
        load.await_each(["it-1", "it-2"], "first")
        before = {worker.id: worker.pid for worker in cluster.client.workers()}
        program.code.write_text(SECOND)
        program.signal(signal.SIGHUP)
        program.says("it-2 was replaced")
        load.await_each(["it-1", "it-2"], "second")
    tasks = cluster.client.wait(load.ids, timeout=PATIENCE, progress=False)

    assert {(task.status, task.attempts) for task in tasks} == {(Status.COMPLETED, 1)}
    assert set(counted(cluster.redis, load.ids).values()) == {1}
    for name in ("it-1", "it-2"):
        by = [task for task in tasks if task.worker_id == name]
        results = [task.result for task in sorted(by, key=attrgetter("completed_at"))]
        assert results == sorted(results), "once new, always new"
    after = {worker.id: worker.pid for worker in cluster.client.workers()}
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    assert lines(program, "dtq.processes") == [
        "dtq.processes INFO replacing it-1, it-2, one after another",
        "dtq.processes INFO it-1 ended with 0, it is started again",
        "dtq.processes INFO it-1 was replaced",
        "dtq.processes INFO it-2 ended with 0, it is started again",
        "dtq.processes INFO it-2 was replaced",
    ]
    program.end()


def test_code_that_does_not_load_stops_at_the_first_worker(
    cluster: LocalCluster, start: Callable[..., Reloader]
) -> None:
    program = start("worker", "--processes", "2", "--name", "it")
    wait_until(lambda: len(cluster.client.workers()) == 2, what="both are there")
    program.code.write_text(BROKEN)
    program.signal(signal.SIGHUP)
    program.says("WARNING it-1 ended with 1, it is started again")

    task = cluster.client.wait(cluster.client.submit("version"), progress=False)
    assert (task.worker_id, task.result) == ("it-2", "first")
    assert lines(program, "replaced") == []
    program.code.write_text(SECOND)
    program.says("it-2 was replaced")
    done = cluster.client.wait(cluster.client.submit("version"), progress=False)
    assert done.result == "second"
    program.end()


def test_a_worker_alone_ends_its_task_and_becomes_its_own_successor(
    cluster: LocalCluster, start: Callable[..., Reloader], tmp_path: Path
) -> None:
    worker = start("worker")
    task_id = cluster.client.submit("gate", str(tmp_path))
    wait_until((tmp_path / "started").exists, what="it runs")
    (before,) = cluster.client.workers()
    worker.code.write_text(SECOND)
    for _ in range(3):  # who is impatient changes nothing
        worker.signal(signal.SIGHUP)
    wait_until(lambda: cluster.client.workers()[0].status == "draining", what="it has heard")
    later = cluster.client.submit("version")
    assert holder(cluster.broker, task_id) == before.id
    (tmp_path / "go").touch()

    task, done = cluster.client.wait([task_id, later], progress=False)
    assert [(one.status, one.attempts, one.worker_id) for one in (task, done)] == [
        (Status.COMPLETED, 1, before.id)
    ] * 2
    assert (task.result, done.result) == ("through", "second")
    (after,) = cluster.client.workers()
    assert (after.id, after.pid) == (before.id, before.pid)
    assert after.started_at != before.started_at
    assert (tmp_path / "ended").exists(), "what is to be done at the end was done"
    worker.end()


def test_a_worker_that_reloads_can_be_ended(
    cluster: LocalCluster, start: Callable[..., Reloader], tmp_path: Path
) -> None:
    worker = start("worker")
    task_id = cluster.client.submit("gate", str(tmp_path))
    wait_until((tmp_path / "started").exists, what="it runs")
    worker.signal(signal.SIGHUP)
    wait_until(lambda: cluster.client.workers()[0].status == "draining", what="it has heard")
    worker.signal(signal.SIGTERM)  # the first one: the task in hand still has its time
    worker.says("stopping; the task in hand has 30 s\n")
    (tmp_path / "go").touch()

    assert worker.process.wait(PATIENCE) == 0
    assert cluster.client.wait(task_id, progress=False).status == Status.COMPLETED
    assert len(lines(worker, "ready, knows")) == 1


def test_under_nohup_it_goes_on(cluster: LocalCluster, start: Callable[..., Reloader]) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    worker = start("worker", first=ignore)
    wait_until(cluster.client.workers, what="it is there")
    worker.code.write_text(SECOND)
    worker.signal(signal.SIGHUP)

    assert cluster.client.wait(cluster.client.submit("version"), progress=False).result == "first"
    worker.end()


@pytest.mark.parametrize("number", [1, 2])
def test_when_its_terminal_is_closed_it_ends(
    cluster: LocalCluster, start: Callable[..., Reloader], number: int
) -> None:
    ours, its = pty.openpty()
    name = os.ttyname(its)

    def take_terminal() -> None:
        os.setsid()
        os.close(os.open(name, os.O_RDWR))  # the first that a session opens is its terminal

    program = start("worker", "--processes", str(number), first=take_terminal)
    os.close(its)
    wait_until(lambda: len(cluster.client.workers()) == number, what="it works")
    everybody = family(program.process.pid)
    os.close(ours)

    assert program.process.wait(PATIENCE) == 0
    wait_until(lambda: not any(map(alive, everybody)), what="nothing of it is left")
    assert cluster.client.workers() == []


def test_up_replaces_its_workers_and_leaves_its_gateway_alone(
    cluster: LocalCluster, start: Callable[..., Reloader]
) -> None:
    program = start("up", "--workers", "2", "--port", "0")
    wait_until(lambda: len(cluster.client.workers()) == 2, what="both are there")
    program.url()
    before = program.note.read_text()
    program.code.write_text(SECOND)
    program.signal(signal.SIGHUP)
    program.says("worker-2 was replaced")

    assert cluster.client.wait(cluster.client.submit("version"), progress=False).result == "second"
    assert program.note.read_text() == before
    assert lines(program, "gateway ended") == []
    program.end()
