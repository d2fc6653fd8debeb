"""SIGHUP while a process of dtq is about to start: it is kept until the process can act on it."""

import fcntl
import os
import pty
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dtq.processes.children import Children
from dtq.processes.program import dtq
from dtq.redis_server import RedisServer, free_port
from tests.commands import Program, environment, started
from tests.helpers import PATIENCE, alive, exit_code, family, wait_until

SLOW = """
import time
from pathlib import Path

here = Path(__file__).parent
(here / "loading").touch()
while not (here / "go").exists():
    time.sleep(0.01)
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A module whose import waits for a file `go` beside it, and makes one that is called `loading`."""
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def hang_up_while_loading(program: Program, folder: Path) -> None:
    wait_until((folder / "loading").exists, "it loads its modules", program.last_words)
    program.signal(signal.SIGHUP)
    (folder / "go").touch()


def test_a_worker_loads_once_more(slow: Path) -> None:
    with (
        RedisServer(slow / "redis") as redis,
        started(slow, "worker", "--name", "it", "--tasks", "slow.py", REDIS_URL=redis.url) as worker,
    ):
        hang_up_while_loading(worker, slow)
        wait_until(lambda: worker.log.read_text().count(" it INFO ready") == 2, "twice", worker.last_words)


@pytest.mark.parametrize(
    "arguments", [("up", "--workers", "1", "--port", "0"), ("worker", "--name", "worker", "--processes", "2")]
)
def test_who_keeps_workers_replaces_them(slow: Path, arguments: tuple[str, ...]) -> None:
    with (
        RedisServer(slow / "redis") as redis,
        started(slow, *arguments, "--tasks", "slow.py", REDIS_URL=redis.url) as program,
    ):
        hang_up_while_loading(program, slow)
        program.says("worker-1 was replaced")


def test_a_gateway_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".dtq").mkdir()
    port = free_port()
    with (tmp_path / ".dtq" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it waits for this before it starts its Redis server
        with started(tmp_path, "gateway", "--port", str(port)) as gateway:
            wait_until(lambda: is_taken(port), "it listens", gateway.last_words)
            gateway.signal(signal.SIGHUP)
            gateway.says("SIGHUP changes nothing")
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert gateway.url().endswith(f":{port}")
            gateway.signal(signal.SIGHUP)
            wait_until(lambda: gateway.log.read_text().count("SIGHUP changes nothing") == 2, "it goes on")
            assert gateway.process.poll() is None


def test_a_gateway_ends_with_its_terminal(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    name = os.ttyname(its)

    def take_terminal() -> None:
        os.setsid()
        os.close(os.open(name, os.O_RDWR))  # the first that a session opens is its terminal

    with closing(Program(tmp_path, "gateway", "--port", "0", first=take_terminal)) as gateway:
        os.close(its)
        gateway.url()
        everybody = family(gateway.process.pid)
        os.close(ours)
        assert gateway.process.wait(PATIENCE) == 0
        wait_until(lambda: not any(map(alive, everybody)), what="nothing of it is left")
        assert not gateway.note.exists()


def test_a_worker_that_dtq_starts_survives_it_from_its_first_moment(tmp_path: Path, redis_url: str) -> None:
    processes, log = Children(), tmp_path / "log"
    with closing(processes):
        processes.start("it", dtq("worker", "--name", "it"), environment(REDIS_URL=redis_url), log)
        processes.signal("it", signal.SIGHUP)
        wait_until(lambda: log.read_text().count(" it INFO ready") == 2, "twice", lambda: ended(processes))


def ended(processes: Children) -> str:
    code = processes.exit_code("it")
    return "" if code is None else f"it ended with {code}"


def test_what_is_started_for_somebody_begins_with_it_blocked(tmp_path: Path) -> None:
    processes = Children()
    code = "import signal, sys; sys.exit(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    processes.start("it", [sys.executable, "-ISc", code])
    assert exit_code(processes, "it") == 1
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    processes.close()
