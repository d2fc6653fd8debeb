"""Exercises: predictions, stubs with checks, and solutions that stay shut until a learner opens them.

A notebook gives its name once, in the cell after its parameters:

    begin("week1_1_first_tasks", solutions)

Then an exercise is three cells: a stub that runs without error; a collapsed cell that starts with
`%%solution name  # Solution (open with a click)` and runs only with `solutions = True`, so that *Run All*
never overwrites a learner's answer; and `check("name", lambda: …, hint="…")`, which prints PASS or NOT YET
and never raises. `guess = predict("How many …?", None)` stands before an experiment, `guess.observe(number)`
after it.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtq.lab.witness import record

if TYPE_CHECKING:
    import pandas as pd

CHECK = re.compile(r"""^check\(\s*["'](\w+)["']""", re.MULTILINE)


def begin(notebook: str, solutions: bool = False) -> None:
    """Starts a notebook's run: forgets the checks of an earlier one and adds `%%solution` to IPython.

    Args:
        notebook: the notebook's file name without its ending; its progress is kept under this name.
        solutions: whether the `%%solution` cells run.
    """
    record.begin(notebook, solutions)
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell:
        shell.register_magic_function(_solution, "cell", "solution")


def _solution(line: str, cell: str) -> None:
    """Runs the cell if `solutions = True`, and otherwise leaves everything as the learner made it."""
    from IPython.core.getipython import get_ipython

    name = line.split()[0] if line.split() else "solution"
    if not record.session.solutions:
        print(f"The solution of {name} was not run: it is there to be read. Your own answer stands.")
        return
    shell: Any = get_ipython()
    source = shell.transform_cell(cell)
    exec(compile(source, shell.compile.cache(source), "exec"), shell.user_ns)


def check(name: str, condition: Callable[[], object], hint: str = "") -> None:
    """Prints whether an exercise is solved. Never raises, so that *Run All* goes on.

    Args:
        name: the exercise.
        condition: called without arguments; the exercise is solved if it returns something true. An
            error in the learner's code is printed with the hint.
        hint: what to think of next, without giving the answer away.
    """
    trouble = ""
    try:
        passed = bool(condition())
    except (Exception, SystemExit) as error:
        passed, trouble = False, f"It raised {type(error).__name__}: {error}"
    record.session.note_check(name, passed)
    print(f"PASS     {name}" if passed else f"NOT YET  {name}")
    if not passed:
        for text in filter(None, (trouble, hint and f"Hint: {hint}")):
            print(f"         {text}")


def predict(question: str, answer: object = None, unit: str = "") -> "Prediction":
    """Writes down what you expect before you look. The prediction's `observe` prints both side by side.

    Args:
        question: what is to be predicted.
        answer: your prediction, in place of None.
        unit: unit of the answer, such as "s" or "tasks".
    """
    prediction = Prediction(question, answer, unit)
    print(f"{question}\n  you predict   {prediction.text(answer)}")
    return prediction


class Prediction:
    """A question and what a learner answered before the experiment; None where nothing was written."""

    def __init__(self, question: str, answer: object, unit: str) -> None:
        self.question = question
        self.answer = answer
        self.unit = unit

    def observe(self, observed: object) -> None:
        """Prints what was observed beside what had been predicted."""
        print(self.question)
        print(f"  you predicted {self.text(self.answer)}")
        print(f"  you observed  {self.text(observed)}")

    def text(self, value: object) -> str:
        """The value as text, with its unit."""
        if value is None:
            return "nothing yet: write your answer in place of None and run the cell again"
        number = f"{value:.3g}" if isinstance(value, float) else str(value)
        return f"{number} {self.unit}".rstrip()


def checks_of(notebook: Path) -> list[str]:
    """The names of a notebook's exercises, in order, read from its cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        name
        for cell in cells
        if cell["cell_type"] == "code"
        for name in CHECK.findall("".join(cell["source"]))
    ]


def progress(folder: Path | str = ".") -> "pd.DataFrame":
    """How far you are: a row for each notebook of the folder, with the checks passed and how many it has."""
    import pandas as pd

    kept = record.progress_folder()
    rows = []
    for path in sorted(Path(folder).glob("week*.ipynb")):
        names, done = checks_of(path), record.Record.read(kept / f"{path.stem}.json").checks
        rows.append((path.stem, sum(done.get(name, False) for name in names), len(names)))
    return pd.DataFrame(rows, columns=["notebook", "checks_passed", "checks"]).set_index("notebook")
