"""Task types: how they are registered and loaded, and what the built-in ones make of their data."""

import importlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtq import tasks
from dtq.errors import ConfigError
from dtq.tasks import Context, PermanentError, TaskType

CONTEXT = Context("t-1", 1)
BUILT_IN = {"process", "calculate", "sleep", "cpu", "flaky", "fail", "crash", "noop"}
PAINT = """
from dtq.tasks import task

@task("paint", timeout=30, max_retries=5)
def paint(data, context):
    return data["colour"]
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers and imports is gone after it."""
    registry, modules = dict(tasks.registry), set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    tasks.registry.clear()
    tasks.registry.update(registry)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def call(type: str, data: Any, context: Context = CONTEXT) -> Any:
    return tasks.registry[type].handler(data, context)


# -------------------------------------------------------------------- registry


def test_the_built_in_types_are_registered() -> None:
    assert set(tasks.registry) >= BUILT_IN


def test_a_decorated_function_becomes_a_type_and_stays_a_function() -> None:
    @tasks.task("paint", timeout=30, max_retries=5)
    def paint(data: Any, context: Context) -> str:
        return f"{data} by {context.task_id}"

    assert tasks.registry["paint"] == TaskType("paint", paint, 30, 5)
    assert paint("red", CONTEXT) == call("paint", "red") == "red by t-1"


def test_what_is_not_said_is_left_to_the_settings() -> None:
    @tasks.task("paint")
    def paint(data: Any, context: Context) -> None: ...

    assert tasks.registry["paint"] == TaskType("paint", paint, timeout=None, max_retries=None)


def test_a_second_definition_replaces_the_first() -> None:
    @tasks.task("noop")
    def new(data: Any, context: Context) -> str:
        return "new"

    assert call("noop", None) == "new"


# -------------------------------------------------------------------- load


def test_a_module_in_the_current_folder_is_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_paint.py").write_text(PAINT)
    monkeypatch.chdir(tmp_path)

    tasks.load("my_paint")

    assert (tasks.registry["paint"].timeout, tasks.registry["paint"].max_retries) == (30, 5)
    assert call("paint", {"colour": "red"}) == "red"


def test_a_module_in_a_package_is_loaded_by_its_dotted_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_shop").mkdir()
    (tmp_path / "my_shop" / "paint.py").write_text(PAINT)
    monkeypatch.chdir(tmp_path)

    tasks.load("my_shop.paint")

    assert "paint" in tasks.registry


@pytest.mark.parametrize("name", ["my_paint.py", "my-paint.py", "my.paint.py", "2 paints.py"])
def test_a_file_is_loaded_by_its_path_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PAINT)

    tasks.load(str(tmp_path / name))

    assert "paint" in tasks.registry


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "my_colours.py").write_text("RED = 'red'")
    text = "import my_colours\n" + PAINT.replace('data["colour"]', "my_colours.RED")
    (tmp_path / "my_paint.py").write_text(text)

    tasks.load(str(tmp_path / "my_paint.py"))

    assert call("paint", None) == "red"


@pytest.mark.parametrize("name", ["json.py", "tasks.py", "dtq.py"])
def test_a_file_may_have_the_name_of_another_module(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PAINT)
    others = {module: sys.modules[module] for module in ("json", "dtq", "dtq.tasks")}

    tasks.load(str(tmp_path / name))

    assert "paint" in tasks.registry
    assert {module: sys.modules[module] for module in others} == others


def test_two_files_may_have_one_name(tmp_path: Path) -> None:
    for colour in ("red", "green"):
        (tmp_path / colour).mkdir()
        (tmp_path / colour / "my_paint.py").write_text(PAINT.replace("paint", colour))
        tasks.load(str(tmp_path / colour / "my_paint.py"))

    assert {"red", "green"} <= set(tasks.registry)


SQUARES = """
import multiprocessing
from dtq.tasks import task

def square(number):
    return number * number

@task("squares")
def squares(method, context):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, [1, 2, 3])
"""


PROGRAM = """
import sys
from dtq import tasks

if __name__ == "__main__":
    tasks.load(sys.argv[1])
    print(tasks.registry["squares"].handler(sys.argv[2], tasks.Context("t-1", 1)))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("name", ["my_squares.py", "my-squares.py"])
def test_other_processes_find_the_functions_of_a_file(tmp_path: Path, method: str, name: str) -> None:
    (tmp_path / name).write_text(SQUARES)
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path / name), method]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (0, "[1, 4, 9]\n"), done.stderr


def test_the_name_of_a_file_is_its_stem_unless_another_module_has_it(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("my_names.py", "colorsys.py", "time.py"):
            text = "from dtq.tasks import task\n@task(__file__)\ndef handler(data, context): ...\n"
            (tmp_path / folder / name).write_text(text)
            tasks.load(str(tmp_path / folder / name))

    modules = {file: kind.handler.__module__ for file, kind in tasks.registry.items() if "/" in file}
    assert modules.pop(str(tmp_path / "one" / "my_names.py")) == "my_names"
    assert len(modules) == 5
    assert all(module == file for file, module in modules.items())
    assert not hasattr(importlib.import_module("colorsys"), "handler"), "the library's own is found"


def test_a_file_may_define_a_dataclass(tmp_path: Path) -> None:
    header = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    pot = "\n@dataclass\nclass Pot:\n    colour: str\n"
    (tmp_path / "my_pots.py").write_text(header + PAINT.replace('data["colour"]', "Pot(data).colour") + pot)

    tasks.load(str(tmp_path / "my_pots.py"))

    assert call("paint", "red") == "red"


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--tasks no/such\.py: there is no such file\.$"):
        tasks.load("no/such.py")


@pytest.mark.parametrize(
    "name", ["no_such_module", "no_such.module", "json.no_such", "os.path.x", "./my_tasks", "a..b", "a/b", ""]
)
def test_a_module_that_cannot_be_found_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as raised:
        tasks.load(name)
    assert str(raised.value) == f"--tasks {name}: no module of this name can be imported from {tmp_path}."


@pytest.mark.parametrize("how", ["my_broken", "my_broken.py"])
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_module_at_all", ModuleNotFoundError),
        ("def", SyntaxError),
        ("1 / 0", ZeroDivisionError),
    ],
)
def test_an_error_inside_the_module_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, text: str, error: type[Exception]
) -> None:
    """With its stack trace, which says where in the learner's own file it is."""
    (tmp_path / "my_broken.py").write_text(text)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(error):
        tasks.load(how)


# -------------------------------------------------------------------- built in


@pytest.mark.parametrize(
    ("type", "data", "result"),
    [
        ("process", {"a": [1]}, {"processed": {"a": [1]}}),
        ("calculate", {"operation": "sum", "numbers": []}, 0),
        ("calculate", {"operation": "product", "numbers": []}, 1),
        ("calculate", {"operation": "product", "numbers": [2**40, 2**40]}, 2**80),
        ("calculate", {"operation": "mean", "numbers": [1, 2, 4, 5]}, 3),
        ("calculate", {"operation": "min", "numbers": [1.5, -1]}, -1),
        ("calculate", {"operation": "max", "numbers": [1.5, -1]}, 1.5),
        ("calculate", {"numbers": [-1, 1]}, 0),
        ("calculate", [0.1] * 10, pytest.approx(1)),
        ("sleep", 0, 0),
        ("sleep", {"seconds": 0.001}, 0.001),
        ("cpu", 0, 0),
        ("cpu", {"seconds": 0}, 0),
        ("noop", {"a": 1}, None),
        ("crash", 0, "survived attempt 1"),
        ("crash", {"times": 0}, "survived attempt 1"),
        ("flaky", 0, "worked at attempt 1"),
    ],
)
def test_results_of_the_built_in_types(type: str, data: Any, result: Any) -> None:
    assert call(type, data) == result


def test_flaky_fails_in_its_first_attempts_only() -> None:
    for attempt in (1, 2):
        with pytest.raises(RuntimeError, match=rf"^attempt {attempt} failed, as asked$"):
            call("flaky", {"failures": 2}, Context("t-1", attempt))
    assert call("flaky", {"failures": 2}, Context("t-1", 3)) == "worked at attempt 3"


@pytest.mark.parametrize("data", [None, {}])
def test_flaky_fails_once_where_nothing_is_said(data: Any) -> None:
    with pytest.raises(RuntimeError):
        call("flaky", data)
    assert call("flaky", data, Context("t-1", 2)) == "worked at attempt 2"


@pytest.mark.parametrize("data", [None, {}, {"permanent": False}, [True]])
def test_fail_fails(data: Any) -> None:
    with pytest.raises(RuntimeError, match=r"^failed, as asked$"):
        call("fail", data)


def test_fail_can_fail_for_good() -> None:
    with pytest.raises(PermanentError, match=r"^failed for good, as asked$"):
        call("fail", {"permanent": True})


def test_cpu_counts_its_rounds() -> None:
    assert call("cpu", 0.001) > 0


@pytest.mark.parametrize(("type", "data"), [("process", None), ("calculate", [1])])
def test_the_simulated_work_takes_its_time(monkeypatch: pytest.MonkeyPatch, type: str, data: Any) -> None:
    slept: list[float] = []
    monkeypatch.setattr("dtq.tasks.time.sleep", slept.append)

    call(type, data, Context("t-1", 1, work_time=1.5))

    assert slept == [1.5]


NO_NUMBERS = [-1, -0.5, "1", True, [1], math.inf, math.nan, 1e300, 10**400]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:9])
@pytest.mark.parametrize(
    ("type", "name"), [("sleep", "seconds"), ("cpu", "seconds"), ("flaky", "failures"), ("crash", "times")]
)
def test_a_number_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, type: str, name: str, value: Any
) -> None:
    monkeypatch.setattr("dtq.tasks.os.kill", lambda *_: pytest.fail("crash believes it"))
    for data in (value, {name: value}):
        with pytest.raises(PermanentError) as raised:
            call(type, data)
        assert str(raised.value) == f"{name} must be a number from 0 to 1,000,000,000, not {value!r:.100}."


def test_a_number_may_not_be_null_where_it_is_named() -> None:
    with pytest.raises(PermanentError, match=r"^seconds must be a number .*, not None\.$"):
        call("sleep", {"seconds": None})


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "1, 2",
        {},
        {"operation": "sum"},
        {"operation": "root", "numbers": [1]},
        {"operation": ["sum"], "numbers": [1]},
        {"operation": "mean", "numbers": []},
        {"operation": "min", "numbers": []},
        {"operation": "max", "numbers": "abc"},
        {"operation": "min", "numbers": ["a", "b"]},
        {"operation": "product", "numbers": [["x"], 10**9]},
        {"operation": "mean", "numbers": [1e308, 1e308, 10**400]},
        {"operation": "sum", "numbers": [10**400, 0.5]},
        {"numbers": None},
        {"numbers": {"a": 1}},
        [1, "2"],
        [None],
        [True],
        [[1]],
    ],
    ids=map(str, range(20)),
)
def test_calculate_says_what_it_wants(data: Any) -> None:
    with pytest.raises(PermanentError) as raised:
        call("calculate", data)
    assert str(raised.value) == (
        f'calculate wants {{"operation": "sum", "numbers": [1, 2]}}, not {data!r:.200}; '
        "operations are sum, product, mean, min, max."
    )
