"""A lock that a program has for as long as its process lives."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtq.processes import locked
from dtq.processes.children import Children
from tests.helpers import alive, exit_code, wait_until

SLEEP = [sys.executable, "-ISc", "import time; time.sleep(600)"]
FORKS = [sys.executable, "-ISc", "import os, time; print(os.fork() or '', flush=True); time.sleep(600)"]


@pytest.fixture
def processes() -> Iterator[Children]:
    processes = Children()
    yield processes
    processes.close(grace=0)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_program_has_it_until_its_process_is_killed(processes: Children, lock: Path) -> None:
    assert locked.holder(lock) is None
    pid = processes.start("it", locked.command(lock, SLEEP))
    wait_until(lambda: locked.holder(lock) == pid, what="it has the lock")
    for number in (signal.SIGSTOP, signal.SIGCONT):
        processes.signal("it", number)
        assert locked.holder(lock) == pid
    processes.signal("it", signal.SIGKILL)
    assert exit_code(processes, "it") == -signal.SIGKILL
    assert locked.holder(lock) is None


def test_the_second_does_not_get_it_while_the_first_lives(processes: Children, lock: Path) -> None:
    first = processes.start("first", locked.command(lock, SLEEP))
    wait_until(lambda: locked.holder(lock) == first, what="it has the lock")
    processes.start("second", locked.command(lock, SLEEP))
    assert exit_code(processes, "second") == locked.TAKEN
    assert locked.holder(lock) == first
    processes.stop("first")
    third = processes.start("third", locked.command(lock, SLEEP))
    wait_until(lambda: locked.holder(lock) == third, what="the third has it")
    assert locked.holder(lock) == third


def test_a_child_does_not_have_it(processes: Children, lock: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    pid = processes.start("parent", locked.command(lock, FORKS), output=said)
    child = int(wait_until(lambda: said.read_text().strip(), what="it has a child"))
    assert locked.holder(lock) == pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), what="it is dead")
    assert locked.holder(lock) is None
    assert alive(child)
