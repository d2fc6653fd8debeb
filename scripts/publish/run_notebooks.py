"""`python -m scripts.publish.run_notebooks NAME…|all`: executes notebooks, without a browser, into `build`.

The kernel is a process of its own that runs the same Python, in the notebooks' folder.
"""

import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import papermill  # type: ignore[import-untyped]
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError  # type: ignore[import-untyped]
from traitlets.config import Config

from dtq.lab.witness.record import Record

NOTEBOOKS, RESULTS = Path("notebooks"), Path("build")
CELL_LIMIT = 600  # seconds that a cell may take
OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")  # such as all states of a progress bar but the last


class Run(NamedTuple):
    """A notebook's run: the seconds it took, its checks and audits, and what failed, if anything did."""

    name: str
    seconds: float
    record: Record
    failure: str | None = None

    def row(self) -> tuple[str, ...]:
        """The run as a row of a table."""
        checks = self.record.checks
        passed = f"{sum(checks.values())}/{len(checks)}" if checks else "-"
        return self.name, f"{self.seconds:.1f} s", passed, self._lost("dtq"), self._lost("naive")

    def _lost(self, queue: str) -> str:
        audits = [audit for audit in self.record.audits if audit.queue == queue]
        return str(sum(audit.lost for audit in audits)) if audits else "-"


def execute(notebook: Path, result: Path, solutions: bool = False, progress: bool = False) -> Run:
    """Executes a notebook from its first cell to its last, or to the first one that raises.

    Args:
        notebook: the file; it is left as it is.
        result: where the executed notebook goes, also when a cell fails.
        solutions: whether the solution cells run.
        progress: whether a bar on stderr shows how far it is.
    """
    result.parent.mkdir(parents=True, exist_ok=True)
    began, failure = time.monotonic(), None
    with tempfile.TemporaryDirectory(prefix="dtq-run-") as folder:
        checks = os.environ["DTQ_CHECKS"] = f"{folder}/checks.json"
        try:
            papermill.execute_notebook(
                notebook.resolve(),
                result.resolve(),
                parameters={"solutions": solutions},
                kernel_name="python3",
                language="python",
                cwd=notebook.resolve().parent,
                progress_bar=progress,
                execution_timeout=CELL_LIMIT,
                config=_private(folder),
                extra_arguments=["--log-level=CRITICAL"],  # else a stopped kernel logs a long complaint
            )
        except PapermillExecutionError as error:
            failure = f"cell In [{error.exec_count}] raised {error.ename}: {' '.join(error.evalue.split())}"
        except CellTimeoutError:
            failure = f"a cell took longer than {CELL_LIMIT} s"
        except DeadKernelError:
            failure = "its kernel died"
        finally:
            del os.environ["DTQ_CHECKS"]
        record = Record.read(Path(checks))
    _tidy(result)
    return Run(notebook.stem, time.monotonic() - began, record, failure)


def _private(folder: str) -> Config:
    """Puts the kernel's sockets into a folder: over TCP everybody on this machine could connect to it."""
    return Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})


def _tidy(result: Path) -> None:
    """Reduces what cells printed to what a terminal would show in the end, in as few pieces as possible."""
    notebook = json.loads(result.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        outputs: list[dict[str, Any]] = []
        for output in cell.get("outputs", []):
            stream, before = output.get("name"), outputs[-1].get("name") if outputs else None
            if stream and stream == before:
                outputs[-1]["text"] += output["text"]
            else:
                outputs.append(output)
        for output in outputs:
            if output.get("name"):
                output["text"] = OVERWRITTEN.sub("", "".join(output["text"])).splitlines(keepends=True)
        if "outputs" in cell:
            cell["outputs"] = [output for output in outputs if output.get("text") != []]
    result.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def find(names: Sequence[str]) -> list[Path]:
    """The notebooks of these names, or `all`, in the order of the course.

    Raises:
        click.BadParameter: a name is unknown.
    """
    known = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    chosen = list(known) if "all" in names else names
    if unknown := [name for name in chosen if name not in known]:
        there = ", ".join(known) or f"none in {NOTEBOOKS.resolve()}"
        raise click.BadParameter(f"there is no notebook {unknown[0]}. There are: {there}.")
    return [known[name] for name in chosen]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="NAME...|all", nargs=-1, required=True)
@click.option("--solutions", is_flag=True, help="Run the solution cells too: then all checks should pass.")
def main(names: tuple[str, ...], solutions: bool) -> None:
    """Execute notebooks of ./notebooks into ./build, without a browser."""
    for library in ("papermill", "asyncio"):  # they report at length what is printed here in one line
        logging.getLogger(library).disabled = True
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the kernel too, as Ctrl-C does
    runs = []
    try:
        for notebook in find(names):
            result = RESULTS / notebook.name
            runs.append(execute(notebook, result, solutions, progress=sys.stderr.isatty()))
            outcome = f"FAILED, {runs[-1].failure}" if runs[-1].failure else "done"
            click.echo(f"{notebook.stem}: {outcome}; the result is in {result}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the kernel has ended")
    click.echo("\n" + table(runs))
    sys.exit(any(run.failure for run in runs))


def table(runs: Sequence[Run]) -> str:
    """A line for each run: its time, the checks that passed, the tasks that each queue lost."""
    rows = [
        ("notebook", "time", "checks", "lost by dtq", "lost by naive queue"),
        *(run.row() for run in runs),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    main(prog_name="python -m scripts.publish.run_notebooks")
