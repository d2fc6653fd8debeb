"""`python -m scripts.publish.run_notebooks`, which executes notebooks without a browser."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import PATIENCE, wait_until
from tests.notebooks.processes import leftovers
from tests.notebooks.workbook import Notebook

GOOD = [
    "solutions = False",
    'from dtq.lab import begin, check\nbegin("week9_1_good", solutions)',
    "answer = None",
    "%%solution answer  # Solution (open with a click)\nanswer = 42",
    'check("answer", lambda: answer == 42)',
    "import os, sys\nprint(sys.executable, os.getcwd())",
]
BAD = ["solutions = False", "1 / 0", "print('not reached')"]
ENDLESS = [
    "solutions = False",
    "from dtq.lab import LocalCluster\ncluster = LocalCluster(workers=1)",
    "open('ready', 'w').close()\ncluster.client.wait(cluster.client.submit('sleep', 600))",
]


def write(folder: Path, **notebooks: list[str]) -> None:
    """Puts notebooks with these code cells into the folder; the first cell has the parameters."""
    (folder / "notebooks").mkdir(exist_ok=True)
    for name, cells in notebooks.items():
        made = [
            {
                "id": f"cell-{i}",
                "cell_type": "code",
                "source": text,
                "metadata": {"tags": ["parameters"]} if i == 0 else {},
                "outputs": [],
                "execution_count": None,
            }
            for i, text in enumerate(cells)
        ]
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}
        (folder / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook))


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command in a folder of its own, which is marked in the environment of all that it starts."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "scripts.publish.run_notebooks", *arguments]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(
            subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **options)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def test_results_and_a_table(tmp_path: Path, start: Start) -> None:
    write(tmp_path, week9_1_good=GOOD)

    code, output = finished(start("week9_1_good"))

    assert code == 0
    assert "week9_1_good: done; the result is in build/week9_1_good.ipynb" in output
    assert output.splitlines()[-1].split()[0::3] == ["week9_1_good", "0/1"]
    printed = Notebook(tmp_path / "build/week9_1_good.ipynb").code[-1].outputs[0]["text"]
    assert printed == [f"{sys.executable} {tmp_path / 'notebooks'}\n"], (
        "this Python, in the notebooks' folder"
    )


def test_of_what_was_printed_the_last_state_is_kept_in_one_piece(tmp_path: Path, start: Start) -> None:
    bar = "for n in range(3):\n    print(f'\\r{n} tasks', end='', flush=True)\nprint('\\r       \\r', end='')"
    write(tmp_path, week9_1_bar=["solutions = False", f"print('begins')\n{bar}\nprint('ends')", bar])

    assert finished(start("week9_1_bar"))[0] == 0
    *_, printed, erased = Notebook(tmp_path / "build/week9_1_bar.ipynb").code
    assert printed.outputs == [{"name": "stdout", "output_type": "stream", "text": ["begins\n", "ends\n"]}]
    assert erased.outputs == []


def test_solutions_are_run_when_asked_for(tmp_path: Path, start: Start) -> None:
    write(tmp_path, week9_1_good=GOOD)

    code, output = finished(start("week9_1_good", "--solutions"))

    assert (code, output.split()[-3]) == (0, "1/1")


def test_a_failure_is_one_line_and_the_others_still_run(tmp_path: Path, start: Start) -> None:
    write(tmp_path, week9_0_bad=BAD, week9_1_good=GOOD)

    code, output = finished(start("all"))

    assert code == 1
    assert "week9_0_bad: FAILED, cell In [3] raised ZeroDivisionError: division by zero; the result" in output
    assert "week9_1_good: done" in output
    assert "Traceback" not in output


def test_a_kernel_that_dies_is_a_failure(tmp_path: Path, start: Start) -> None:
    write(tmp_path, week9_1_dies=["solutions = False", "import os\nos._exit(1)"])

    code, output = finished(start("week9_1_dies"))

    assert (code, "week9_1_dies: FAILED, its kernel died" in output) == (1, True)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path, start: Start) -> None:
    write(tmp_path, week9_0_bad=BAD, week9_1_good=GOOD)

    code, output = finished(start("week9_1_god"))

    assert code == 2
    assert "there is no notebook week9_1_god. There are: week9_0_bad, week9_1_good." in output


def test_a_folder_without_notebooks_is_said(tmp_path: Path, start: Start) -> None:
    code, output = finished(start("week1_1_first_tasks"))

    assert (code, f"none in {tmp_path / 'notebooks'}" in output) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_nothing_outlives_it_when_it_is_stopped(tmp_path: Path, start: Start, number: signal.Signals) -> None:
    write(tmp_path, week9_1_endless=ENDLESS)
    process = start("all")
    wait_until((tmp_path / "notebooks/ready").exists, what="the notebook is in its last cell")
    assert len(leftovers(tmp_path)) >= 5, "the command, its kernel, Redis, the gateway, a worker"

    os.killpg(process.pid, number)

    assert finished(process) == (1, "interrupted; the kernel has ended\n")
    wait_until(lambda: not leftovers(tmp_path), what=f"all ends: {leftovers(tmp_path)}")
