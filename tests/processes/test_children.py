"""Child processes end when they should, and when their parent dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dtq.processes.children import Children
from tests.helpers import alive, exit_code, wait_until


def python(code: str) -> list[str]:
    """A Python program, started quickly."""
    return [sys.executable, "-ISc", code]


SLEEP = python("import time; time.sleep(600)")
DEAF = python("""
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
""")
WITH_CHILD = python("""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
""")
PARENT = [
    sys.executable,
    "-c",
    f"""
from dtq.processes.children import Children
import time
processes = Children()
print(processes.start("one", {SLEEP!r}), processes.start("two", {SLEEP!r}), flush=True)
time.sleep(600)
""",
]


@pytest.fixture
def processes() -> Iterator[Children]:
    processes = Children()
    yield processes
    processes.close(grace=0)


def test_a_process_speaks_into_its_file_and_ends_by_sigterm(processes: Children, tmp_path: Path) -> None:
    said = tmp_path / "log"
    code = "import os; print(os.environ['GREETING'], flush=True); import time; time.sleep(600)"
    pid = processes.start("greeter", [sys.executable, "-c", code], {"GREETING": "hello"}, said)
    wait_until(lambda: said.read_text() == "hello\n", what="it has spoken")
    assert processes.exit_code("greeter") is None
    assert processes.stop("greeter") == -signal.SIGTERM
    assert not alive(pid)


def test_a_process_that_does_not_listen_is_killed(processes: Children, tmp_path: Path) -> None:
    said = tmp_path / "log"
    processes.start("deaf", DEAF, output=said)
    wait_until(lambda: said.read_text() == "deaf\n", what="it does not listen any more")
    assert processes.stop("deaf", grace=0.1) == -signal.SIGKILL


def test_a_paused_process_ends_by_sigterm(processes: Children) -> None:
    processes.start("paused", SLEEP)
    processes.signal("paused", signal.SIGSTOP)
    assert processes.stop("paused") == -signal.SIGTERM


def test_the_children_of_a_process_go_with_it(processes: Children, tmp_path: Path) -> None:
    said = tmp_path / "log"
    processes.start("family", WITH_CHILD, output=said)
    child = int(wait_until(said.read_text, what="it has a child"))
    processes.stop("family")
    wait_until(lambda: not alive(child), what="the child is gone")
    assert not alive(child)


def test_the_children_of_a_process_that_was_killed_go_as_soon_as_that_is_seen(
    processes: Children, tmp_path: Path
) -> None:
    said = tmp_path / "log"
    pid = processes.start("family", WITH_CHILD, output=said)
    child = int(wait_until(said.read_text, what="it has a child"))
    os.kill(pid, signal.SIGKILL)
    assert exit_code(processes, "family") == -signal.SIGKILL
    wait_until(lambda: not alive(child), what="the child is gone")
    assert processes.exit_code("family") == -signal.SIGKILL, "it is remembered"


def test_what_was_reaped_is_not_signalled_any_more(
    processes: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be an innocent process's by then. Until it is reaped, nobody else can get it."""
    reaped_too_early: list[str] = []

    def check(what: str, pid: int) -> None:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            reaped_too_early.append(what)

    def killpg(group: int, number: int, real: Callable[[int, int], None] = os.killpg) -> None:
        check("its group is killed", group)
        real(group, number)

    def note(line: str, real: Callable[[str], None] = processes._note) -> None:
        check(f"the reaper is told {line[0]}", abs(int(line)))
        real(line)

    monkeypatch.setattr(os, "killpg", killpg)
    monkeypatch.setattr(processes, "_note", note)
    pid = processes.start("it", python(""))
    assert exit_code(processes, "it") == 0
    assert not alive(pid)
    processes.signal("it", signal.SIGTERM)
    assert processes.stop("it") == 0
    processes.start("it", SLEEP)
    assert processes.stop("it") == -signal.SIGTERM
    assert reaped_too_early == []


def test_starting_a_name_again_stops_what_had_it(processes: Children) -> None:
    first = processes.start("it", SLEEP)
    second = processes.start("it", SLEEP)
    assert not alive(first)
    assert alive(second)


def test_closing_ends_all_and_may_be_repeated() -> None:
    processes = Children()
    pids = [processes.start(name, SLEEP) for name in ("one", "two", "three")]
    processes.close(last="two")
    processes.close()
    assert not any(map(alive, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_a_parent_that_dies(number: signal.Signals) -> None:
    with subprocess.Popen(PARENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert all(map(alive, pids))
        parent.send_signal(number)
    for pid in pids:
        wait_until(lambda pid=pid: not alive(pid), what="the reaper has ended the child")
    assert not any(map(alive, pids))
