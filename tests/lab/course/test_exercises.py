"""Exercises in a real IPython: stubs, checks, solutions that stay shut, predictions."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from dtq.lab.course.exercises import begin, check, checks_of, predict, progress
from dtq.lab.witness import record

SOLUTION = "%%solution answer  # Solution (open with a click)\n"


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    yield shell
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> None:
    shell.run_cell(cell).raise_error()


def test_a_solution_stays_shut(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    begin("week9_1_test", solutions=False)
    run(shell, "answer = 'mine'")
    run(shell, SOLUTION + "answer = 42")

    assert shell.user_ns["answer"] == "mine"
    assert "The solution of answer was not run" in capsys.readouterr().out


def test_a_solution_runs_when_asked_for_and_may_use_what_ipython_can(shell: InteractiveShell) -> None:
    begin("week9_1_test", solutions=True)
    run(shell, SOLUTION + "import os\nfolder = %pwd\n\ndef answer():\n    return folder == os.getcwd()")

    assert shell.user_ns["answer"]() is True


def test_a_solution_that_raises_is_an_error(shell: InteractiveShell) -> None:
    begin("week9_1_test", solutions=True)

    with pytest.raises(ZeroDivisionError):
        run(shell, SOLUTION + "1 / 0")


def test_a_check_passes(capsys: pytest.CaptureFixture[str]) -> None:
    check("answer", lambda: 42)

    assert capsys.readouterr().out == "PASS     answer\n"
    assert record.session.now.checks == {"answer": True}


def test_a_check_that_does_not_pass_gives_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    check("answer", lambda: None, hint="think of a number")

    assert capsys.readouterr().out == "NOT YET  answer\n         Hint: think of a number\n"
    assert record.session.now.checks == {"answer": False}


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit("by zero")])
def test_what_the_learners_code_raises_is_told_and_stops_nothing(
    capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def condition() -> object:
        raise error

    check("answer", condition, hint="divide by something else")

    assert capsys.readouterr().out.splitlines()[1:] == [
        f"         It raised {type(error).__name__}: by zero",
        "         Hint: divide by something else",
    ]


def test_a_prediction_beside_what_was_observed(capsys: pytest.CaptureFixture[str]) -> None:
    guess = predict("How long?", 2, "s")
    guess.observe(1.23456)

    assert capsys.readouterr().out.splitlines() == [
        "How long?",
        "  you predict   2 s",
        "How long?",
        "  you predicted 2 s",
        "  you observed  1.23 s",
    ]


def test_a_notebook_without_predictions_still_runs(capsys: pytest.CaptureFixture[str]) -> None:
    guess = predict("How many?")
    guess.observe("five")

    said = capsys.readouterr().out
    assert said.count("nothing yet: write your answer in place of None") == 2
    assert "you observed  five" in said


def notebook(folder: Path, name: str, *cells: str) -> Path:
    path = folder / f"{name}.ipynb"
    written = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    path.write_text(json.dumps({"cells": [*written, {"cell_type": "markdown", "source": "check('no')"}]}))
    return path


def test_checks_are_found_in_a_notebook(tmp_path: Path) -> None:
    cells = ["check('one', lambda: 1)", 'x = 1\ncheck(\n    "two",\n    lambda: 2,\n)', "# check('three')"]

    assert checks_of(notebook(tmp_path, "week9_1_test", *cells)) == ["one", "two"]


def test_progress_over_all_notebooks(tmp_path: Path) -> None:
    notebook(tmp_path, "week9_1_test", "check('one', None)", "check('two', None)")
    notebook(tmp_path, "week9_2_later", "check('one', None)")
    notebook(tmp_path, "scratch", "check('one', None)")
    begin("week9_1_test")
    check("two", lambda: True)
    check("renamed since", lambda: True)

    table = progress(tmp_path)

    assert table.index.tolist() == ["week9_1_test", "week9_2_later"]
    assert table.values.tolist() == [[1, 2], [0, 1]]
