"""The core is small enough to be explained whole: what no notebook names is listed here, and is little."""

import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, ModuleType

import pytest

import dtq.queue
import dtq.worker
from dtq import tasks
from dtq.queue.scripts import LUA, TRANSITIONS
from tests.notebooks.workbook import NOTEBOOKS, Notebook

ROOMS = (dtq.queue, dtq.worker)
CORE = [
    import_module(f"{room.__name__}.{module.name}")
    for room in ROOMS
    for module in iter_modules(room.__path__)
]
SCRIPTS = sorted(path.name for path in LUA.iterdir())
UNNAMED = [
    "Broker.close",
    "Broker.unknown_types",
    "parse_plain",
]


def public(module: ModuleType) -> Iterator[str]:
    """The names of a module's own functions and classes, and of their methods as `Class.method`."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if isinstance(thing, type | FunctionType):
            yield name
        if isinstance(thing, type):
            methods = (method for method, its in vars(thing).items() if isinstance(its, FunctionType))
            yield from (f"{name}.{method}" for method in methods if not method.startswith("_"))


def pattern(name: str) -> str:
    """How a text names it. A method: after its class, or after an object that is called like its class. Else
    between backticks or quotes, alone or after its module, or in an import.
    """
    owner, dot, method = name.rpartition(".")
    if dot:
        return rf"\b({owner}|{owner.lower()})\.{method}\b"
    return rf"[`\"'\[]([\w.]+\.)?{name}(\(\))?[`\"'\]]|\bimport [\w, ]*\b{name}\b"


@pytest.fixture(scope="module")
def text() -> str:
    """All that the notebooks say, in prose and in code."""
    return "\n".join(cell.text for path in NOTEBOOKS for cell in Notebook(path).cells)


def test_what_no_notebook_names(text: str) -> None:
    names = [name for module in (*CORE, tasks) for name in public(module)]
    assert len(names) > 50, "the search finds what is public"
    assert [name for name in names if not re.search(pattern(name), text)] == UNNAMED


def test_every_script_is_named(text: str) -> None:
    assert {f"{name}.lua" for name in TRANSITIONS} < set(SCRIPTS)
    assert len(TRANSITIONS) == 12, "as week3_1_code_walk says"
    assert [name for name in SCRIPTS if name not in text] == []


def test_a_name_counts_only_where_it_is_meant() -> None:
    assert not re.search(pattern("Broker.get"), "frame.get(1), Brokers.get, Broker.get_many")
    assert re.search(pattern("Broker.get"), "broker.get(1)")
    assert not re.search(pattern("load"), "a heavy load, payload(1), loads, `payload`")
    assert all(re.search(pattern("load"), text) for text in ("`load`", "`tasks.load()`", "import load, task"))
