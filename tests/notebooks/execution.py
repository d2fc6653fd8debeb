"""One notebook's execution, as several tests look at it."""

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


def run_notebook(path: Path, solutions: bool, folder: Path) -> Execution:
    """Executes a notebook in a folder of its own; it must end well, be quiet and leave no process."""
    result = folder / path.name
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))  # marks the kernel and all that it starts
        patch.setenv("DTQ_HOME", str(folder / "home"))
        run = execute(path, result, solutions)
    assert run.failure is None
    assert Notebook(result).said_on_stderr() == []
    wait_until(lambda: not leftovers(folder), what=f"these end: {leftovers(folder)}")
    return Execution(run, result)
