"""Every notebook runs quietly from top to bottom. With its solutions all checks pass, without them none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.notebooks.execution import Execution
from tests.notebooks.workbook import NOTEBOOKS, Notebook

pytestmark = pytest.mark.timeout(1200)  # their experiments take their time, more so on a busy machine
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
Execute = Callable[[Path, bool], Execution]


@each_notebook
def test_with_its_solutions_all_checks_pass(path: Path, executed: Execute) -> None:
    assert executed(path, True).run.record.checks == dict.fromkeys(Notebook(path).checks, True)


@each_notebook
def test_as_a_learner_finds_it_no_check_passes(path: Path, executed: Execute) -> None:
    assert executed(path, False).run.record.checks == dict.fromkeys(Notebook(path).checks, False)
