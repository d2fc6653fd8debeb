"""What a notebook's run showed: which checks passed, what the audits counted. Kept as a small JSON file.

A learner's run is kept in `<DTQ_HOME>/progress/`, where a passed check stays passed; a run with solutions
leaves no trace there. Where `DTQ_CHECKS` names a file, this run alone is written to that file instead.
"""

import os
from pathlib import Path

import msgspec


class Counts(msgspec.Struct):
    """An audit in figures: how many tasks of each kind."""

    queue: str
    acknowledged: int
    completed: int
    lost: int
    executed_again: int
    stored_again: int | None


class Record(msgspec.Struct):
    """One notebook's run: check -> passed, and its audits in order."""

    checks: dict[str, bool] = {}
    audits: list[Counts] = []

    @classmethod
    def read(cls, path: Path) -> "Record":
        """The record kept at `path`; an empty one if there is none yet."""
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls()

    def write(self, path: Path) -> None:
        """Replaces the file in one step, so that a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
        draft.replace(path)


class Session:
    """The notebook that this process runs.

    Args:
        notebook: its file's name without the ending. Without a name nothing is kept.
        solutions: whether the solution cells run. Then the checks that pass are not the learner's.
    """

    def __init__(self, notebook: str = "", solutions: bool = False) -> None:
        self.solutions = solutions
        self.now = Record()
        self._asked = os.environ.get("DTQ_CHECKS")
        self._own = progress_folder() / f"{notebook}.json" if notebook and not solutions else None
        self._save()

    def note_check(self, name: str, passed: bool) -> None:
        """Keeps the outcome of a check."""
        self.now.checks[name] = passed
        self._save()

    def note_audit(self, counts: Counts) -> None:
        """Keeps the figures of an audit."""
        self.now.audits.append(counts)
        self._save()

    def _save(self) -> None:
        if self._asked:
            self.now.write(Path(self._asked))
        elif self._own:
            passed = {name: True for name, ok in Record.read(self._own).checks.items() if ok}
            Record(self.now.checks | passed, self.now.audits).write(self._own)


def progress_folder() -> Path:
    """Where learners' progress is kept."""
    from dtq.config import load  # not above: a notebook that keeps nothing need not read the settings

    return load().home / "progress"


session = Session()


def begin(notebook: str, solutions: bool) -> None:
    """Starts the record of a new run."""
    global session
    session = Session(notebook, solutions)
