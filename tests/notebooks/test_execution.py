"""Every notebook runs quietly from top to bottom. With its solutions all checks pass, without them none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dtq.lab.run import Run, execute
from tests.helpers import wait_until
from tests.notebooks.processes import leftovers
from tests.notebooks.workbook import NOTEBOOKS, Notebook

pytestmark = pytest.mark.timeout(300)  # their experiments take their time, more so on a busy machine
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bool], Run]:
    """Executes a notebook, which must end well, be quiet and leave no process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # marks the kernel and all that it starts
    monkeypatch.setenv("DTQ_HOME", str(tmp_path / "home"))

    def run(path: Path, solutions: bool) -> Run:
        result = tmp_path / path.name
        outcome = execute(path, result, solutions)
        assert outcome.failure is None
        assert Notebook(result).said_on_stderr() == []
        wait_until(lambda: not leftovers(tmp_path), what=f"these end: {leftovers(tmp_path)}")
        return outcome

    return run


@each_notebook
def test_with_its_solutions_all_checks_pass(path: Path, run: Callable[[Path, bool], Run]) -> None:
    assert run(path, True).record.checks == dict.fromkeys(Notebook(path).checks, True)


@each_notebook
def test_as_a_learner_finds_it_no_check_passes(path: Path, run: Callable[[Path, bool], Run]) -> None:
    assert run(path, False).record.checks == dict.fromkeys(Notebook(path).checks, False)
