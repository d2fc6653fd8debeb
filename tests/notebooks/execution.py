"""One notebook's execution, as several tests look at it."""

import fcntl
import pickle
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.publish.run_notebooks import Run, execute
from tests.helpers import wait_until
from tests.notebooks.processes import leftovers
from tests.notebooks.workbook import Notebook


class Execution(NamedTuple):
    """What a run showed, and the executed notebook."""

    run: Run
    result: Path


def run_once(path: Path, solutions: bool, folder: Path) -> Execution:
    """Executes a notebook in a folder of its own, unless this was done: a lock keeps other processes waiting.
    It must have ended well and been quiet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "execution.pickle"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_run(path, solutions, folder)))
    execution: Execution = pickle.loads(kept.read_bytes())
    assert execution.run.failure is None, execution.run.failure
    assert not (said := Notebook(execution.result).said_on_stderr()), said
    return execution


def _run(path: Path, solutions: bool, folder: Path) -> Execution:
    """It must leave no process."""
    result = folder / path.name
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))  # marks the kernel and all that it starts
        patch.setenv("DTQ_HOME", str(folder / "home"))
        run = execute(path, result, solutions)
    wait_until(lambda: not leftovers(folder), what=f"these end: {leftovers(folder)}")
    return Execution(run, result)
