"""Every notebook has the shape that a learner comes to rely on, and says nothing of dtq that is not there."""

import inspect
import pkgutil
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from dtq.lab.course.lessons import LESSONS
from tests.notebooks.workbook import FENCED, NOTEBOOKS, ROOT, Notebook

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
NAME = re.compile(r"dtq(?:\.\w+)+")
SOLUTION = re.compile(r"%%solution (\w+)  # Solution \(open with a click\)\n")
OPENING = ("**You will do:**", "**You will learn:**", "**You need:**")

each_notebook = pytest.mark.parametrize(
    "notebook", [Notebook(path) for path in NOTEBOOKS], ids=[path.stem for path in NOTEBOOKS]
)


def resolved(name: str) -> object:
    """What has this dotted name: a module's path, or else the thing itself; None where there is nothing."""
    with suppress(ModuleNotFoundError):  # it is the name of something in a module
        if (module := find_spec(name)) and module.origin:
            return Path(module.origin)  # not imported: some modules do their work when they are
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None


def test_the_course_begins() -> None:
    assert {"week0_start_here", "week1_1_first_tasks"} <= {path.stem for path in NOTEBOOKS}


@each_notebook
def test_it_is_named_on_the_map(notebook: Notebook) -> None:
    start = Notebook(ROOT / "notebooks/week0_start_here.ipynb")
    assert any(f"({notebook.path.name})" in cell.text for cell in start.prose) or notebook.name == start.name


@each_notebook
def test_it_is_short(notebook: Notebook) -> None:
    least = 15 if notebook.name.startswith("week0") else 30  # week 0 has no experiment
    assert least <= len(notebook.cells) <= 50
    assert notebook.path.stat().st_size < 50_000
    assert 40 <= sum(cell.words for cell in notebook.prose) / len(notebook.code) <= 110, "words per code cell"


@each_notebook
def test_it_has_no_outputs(notebook: Notebook) -> None:
    assert [cell.text for cell in notebook.code if cell.outputs or cell.execution_count is not None] == []


@each_notebook
def test_it_opens_with_what_it_is_about_and_its_parameters(notebook: Notebook) -> None:
    title, parameters = notebook.cells[:2]
    assert title.kind == "markdown"
    assert title.text.startswith("# ")
    assert [part for part in OPENING if part not in title.text] == []
    assert notebook.tagged("parameters") == [parameters]
    assert parameters.text.startswith("solutions = False")


@each_notebook
def test_it_ends_with_what_was_seen_and_a_stop_cell(notebook: Notebook) -> None:
    assert "## What you saw" in notebook.prose[-1].text
    if any(" = LocalCluster(" in cell.text for cell in notebook.code):
        assert ".stop()" in notebook.cells[-1].text


@each_notebook
def test_each_check_has_a_solution_before_it_which_is_kept_shut(notebook: Notebook) -> None:
    solutions = notebook.tagged("solution")
    found = [SOLUTION.match(cell.text) for cell in solutions]
    assert [match and match[1] for match in found] == notebook.checks
    assert all(cell.metadata.get("jupyter") == {"source_hidden": True} for cell in solutions)
    assert [cell.text for cell in notebook.code if "%%solution" in cell.text and cell not in solutions] == []
    assert notebook.checks or notebook.name.startswith("week0")
    for name, solution in zip(notebook.checks, solutions, strict=True):
        after = "\n".join(cell.text for cell in notebook.code[notebook.code.index(solution) + 1 :])
        assert re.search(rf"^check\(\s*[\"']{name}[\"']", after, re.MULTILINE), f"{name} is checked too early"


@each_notebook
def test_its_links_lead_somewhere(notebook: Notebook) -> None:
    targets = [target for cell in notebook.prose for _, target in LINK.findall(FENCED.sub("", cell.text))]
    local = [
        target.partition("#")[0] for target in targets if not target.startswith(("http", "#", "attachment"))
    ]
    assert [target for target in local if not (notebook.path.parent / target).exists()] == []


@each_notebook
def test_names_of_dtq_exist_and_links_lead_to_where_they_are_defined(notebook: Notebook) -> None:
    prose = "\n".join(FENCED.sub("", cell.text) for cell in notebook.prose)
    linked = {
        text.strip("`"): (notebook.path.parent / target).resolve() for text, target in LINK.findall(prose)
    }
    linked = {name: target for name, target in linked.items() if NAME.fullmatch(name)}
    names = [*linked, *re.findall(rf"`({NAME.pattern})(?:\(\))?`", prose)]
    assert [name for name in names if resolved(name) is None] == []
    for name, target in linked.items():
        thing = resolved(name)
        defined = thing if isinstance(thing, Path) else inspect.getsourcefile(inspect.unwrap(thing))
        assert Path(defined) == target, f"{name} is defined in another file"


@each_notebook
def test_it_takes_as_long_as_the_map_says(notebook: Notebook) -> None:
    minutes = {lesson.notebook: lesson.minutes for lesson in LESSONS}
    assert f"about {minutes[notebook.name]} minutes" in notebook.cells[0].text.replace("\n", " ")
