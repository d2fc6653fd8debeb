"""What several tests need."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from packaging.requirements import Requirement

from dtq.processes.children import Children
from dtq.queue.broker import Broker
from dtq.queue.task import NewTask, Status, Stored

ROOT = Path(__file__).parents[1]  # of the project
GATE = str(ROOT / "tests/gate.py")  # a module for workers, with one task type
PATIENCE = 240.0  # seconds for what takes a few on an idle machine; less than pytest's timeout


def wait_until(predicate: Callable[[], Any], what: str = "", in_vain: Callable[[], str] = str) -> Any:
    """Calls `predicate` until it returns something true, and returns that.

    Fails after `PATIENCE` seconds, or as soon as `in_vain` says why it will never be true.
    """
    end = time.monotonic() + PATIENCE
    while not (answer := predicate()):
        if reason := in_vain():
            answer = predicate()  # it may have come true just before
            assert answer, f"not any more: {what or predicate}: {reason}"
            return answer
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what or predicate}"
        time.sleep(0.01)
    return answer


def locked(file: Path = ROOT / "requirements.lock") -> list[Requirement]:
    """What a lock pins."""
    text = file.read_text().replace("\\\n", " ")
    return [Requirement(line.split("--hash=")[0]) for line in text.splitlines()]


def new_task(type: str = "noop", data: Any = None, **options: Any) -> NewTask:
    """A task to submit, its payload given as a Python value."""
    return NewTask(type=type, data=msgspec.Raw(msgspec.json.encode(data)), **options)


def held(task_id: str, attempt: int = 1) -> Stored:
    """A task as a worker holds it that claimed this attempt."""
    return Stored(id=task_id, type="noop", attempts=attempt, data=msgspec.Raw(b"null"))


def ended(broker: Broker, task_id: str) -> Stored:
    """Waits until the task is completed, or has failed for good."""

    def look() -> Stored | None:
        task = broker.get(task_id)
        return task if task and task.status in (Status.COMPLETED, Status.FAILED) else None

    task: Stored = wait_until(look, what=f"{task_id} has ended")
    return task


def exit_code(processes: Children, name: str) -> int:
    """Waits for the end of a process."""
    wait_until(lambda: processes.exit_code(name) is not None, what=f"{name} ends")
    code = processes.exit_code(name)
    assert code is not None
    return code


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, its in pairs if its == parent]
    return found


class Clock:
    """Takes the place of the module `time`, and stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now
