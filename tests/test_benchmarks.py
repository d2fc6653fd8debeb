"""The benchmarks run and tell what they promise to tell; how much, a busy machine cannot say."""

import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT

HOW_FAR = ROOT / "scripts/benchmarks/how_far.py"
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, tuple[float, str]]]:
    """What a short run printed, and the figures that it wrote into a file."""
    file = tmp_path_factory.mktemp("how_far") / "figures.json"
    command = [sys.executable, HOW_FAR, "--quick", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(file.read_text())["figures"]
    return done.stdout, {row["what"]: (row["value"], row["unit"]) for row in rows}


@pytest.mark.parametrize(
    ("what", "unit"),
    [
        ("1 worker, queue filled beforehand", "tasks/s"),
        ("2 workers, queue filled beforehand", "tasks/s"),
        ("Redis computes: claims and results in batches", "µs/task"),
        ("1 gateway, tasks submitted one by one", "tasks/s"),
        ("2 gateways, tasks submitted by 100", "tasks/s"),
        ("Redis keeps a pending task without payload", "bytes"),
        ("Redis keeps a finished task without result", "bytes"),
        ("an idle worker asks Redis", "calls/s"),
        ("very short tasks, in batches", "tasks/s"),
        ("its CPU keeps busy, with tasks of 1 s", "workers"),
        ("its connections suffice for", "workers"),
    ],
)
def test_how_far_tells(what: str, unit: str, quick: tuple[str, dict[str, tuple[float, str]]]) -> None:
    printed, figures = quick
    assert figures[what][0] > 0
    assert figures[what][1] == unit
    assert [line for line in printed.splitlines() if line.startswith(f"  {what}  ") and line.endswith(unit)]


def test_all_figures_are_above_zero(quick: tuple[str, dict[str, tuple[float, str]]]) -> None:
    assert {what: figure for what, figure in quick[1].items() if not figure[0] > 0} == {}


def test_batches_are_cheaper_than_single_tasks(quick: tuple[str, dict[str, tuple[float, str]]]) -> None:
    """By far, on any machine: it is what batches are for."""
    figures = quick[1]
    assert (
        figures["Redis computes: tasks submitted by 100"]
        < figures["Redis computes: tasks submitted one by one"]
    )


def test_the_figures_name_their_machine(quick: tuple[str, dict[str, tuple[float, str]]]) -> None:
    assert " cores (" in quick[0].splitlines()[0]
