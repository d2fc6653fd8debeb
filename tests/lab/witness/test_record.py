"""What a notebook's run showed, kept as a file."""

from pathlib import Path

import pytest

from dtq.lab.witness import record
from dtq.lab.witness.record import Counts, Record

COUNTS = Counts(queue="dtq", acknowledged=5, completed=5, lost=0, executed_again=1, stored_again=None)


def kept(home: Path) -> Record:
    return Record.read(home / "progress/week9_1_test.json")


def test_a_learners_run_is_kept(home: Path) -> None:
    record.begin("week9_1_test", solutions=False)
    record.session.note_check("one", True)
    record.session.note_check("two", False)
    record.session.note_audit(COUNTS)

    assert kept(home) == Record({"one": True, "two": False}, [COUNTS])


def test_a_check_that_passed_once_stays_passed(home: Path) -> None:
    record.begin("week9_1_test", solutions=False)
    record.session.note_check("one", True)
    record.begin("week9_1_test", solutions=False)
    record.session.note_check("one", False)

    assert record.session.now.checks == {"one": False}
    assert kept(home).checks == {"one": True}


def test_a_run_with_solutions_leaves_no_trace_in_the_progress(home: Path) -> None:
    record.begin("week9_1_test", solutions=True)
    record.session.note_check("one", True)

    assert not (home / "progress").exists()


@pytest.mark.parametrize("solutions", [True, False])
def test_where_a_file_is_named_it_alone_is_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solutions: bool
) -> None:
    monkeypatch.setenv("DTQ_CHECKS", str(tmp_path / "checks.json"))
    record.begin("week9_1_test", solutions)
    record.session.note_check("one", solutions)

    assert Record.read(tmp_path / "checks.json").checks == {"one": solutions}
    assert not (home / "progress").exists()


def test_a_new_run_forgets_the_checks_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTQ_CHECKS", str(tmp_path / "checks.json"))
    record.begin("week9_1_test", solutions=False)
    record.session.note_check("one", True)
    record.begin("week9_1_test", solutions=False)

    assert Record.read(tmp_path / "checks.json") == Record()


def test_without_a_file_there_is_an_empty_record(tmp_path: Path) -> None:
    assert Record.read(tmp_path / "none.json") == Record()
