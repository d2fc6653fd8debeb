"""The house rules that a machine can check; ruff and mypy check the rest."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtq.queue.keys import Keys
from tests.helpers import ROOT

DTQ = ROOT / "dtq"
LAB = DTQ / "lab"
PYTHON = sorted(DTQ.rglob("*.py"))
LUA = sorted(DTQ.rglob("*.lua"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST = 40
BUDGET = 2150  # lines of what week 3 reads: the folders `queue`, with its Lua scripts, and `worker`

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def in_every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name)


# ---------------------------------------------------------------- size


def test_a_reader_needs_an_afternoon_for_the_queue_itself() -> None:
    core = [path for path in PYTHON + LUA if path.relative_to(DTQ).parts[0] in ("queue", "worker")]
    sizes = {name(path): len(path.read_text().splitlines()) for path in core}
    assert {"dtq/queue/broker.py", "dtq/worker/worker.py", "dtq/queue/lua/claim.lua"} <= sizes.keys()
    assert sum(sizes.values()) < BUDGET, sizes


@in_every(PYTHON)
def test_functions_fit_on_a_screen(path: Path) -> None:
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions(path)}
    assert {which: lines for which, lines in lengths.items() if lines > LONGEST} == {}


@in_every(LUA)
def test_lua_functions_fit_on_a_screen(path: Path) -> None:
    blocks = re.findall(
        r"^local function (\w+)(.*?)(?:^end$|end$)", path.read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == len(re.findall(r"^local function ", path.read_text(), re.MULTILINE))
    assert {which: text.count("\n") for which, text in blocks if text.count("\n") >= LONGEST} == {}


# ---------------------------------------------------------------- folders: who may know whom

# Each room of the house, the lowest first: it may import from those before it, and from itself.
ROOMS = (
    "errors", "config", "transient", "connection", "tasks", "processes", "queue", "observe", "redis_server",
    "worker", "announcement", "client", "gateway", "doctor",
    "lab.charts", "lab.witness", "lab.cluster", "lab.course", "lab", "cli", "",
)  # fmt: skip
BROKER = {Path("queue/broker")}  # its tests run twice: on one server and on a Cluster
WHOLE = {"browser", "deploy", "faults", "notebooks", "publish"}  # tests of more than one folder of dtq


def room(module: str) -> str:
    """The room of a module of dtq, as `lab.charts` of `dtq.lab.charts.plot`; the package itself has none."""
    names = module.split(".")[1:3]
    return next((each for each in (".".join(names), *names[:1]) if each in ROOMS), "")


def imported(path: Path) -> Iterator[str]:
    """The modules of dtq that a file imports, at its top or later."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "dtq")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dtq":
            for alias in node.names:
                inner = DTQ.parent / f"{node.module}.{alias.name}".replace(".", "/")
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                yield f"{node.module}.{alias.name}" if is_module else str(node.module)


def arrows(path: Path) -> set[tuple[str, str]]:
    """From the room of a file to the other rooms that it imports from."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return {(room(module), room(other)) for other in imported(path)} - {(room(module), room(module))}


def test_every_module_has_a_room() -> None:
    modules = [path for path in DTQ.glob("*.py") if path.stem not in ("__init__", "__main__")]
    folders = [path.parent for path in DTQ.glob("*/__init__.py")]
    assert {path.stem for path in (*modules, *folders)} == {each.split(".")[0] for each in ROOMS if each}


@in_every(PYTHON)
def test_no_import_leads_up(path: Path) -> None:
    assert [arrow for arrow in arrows(path) if ROOMS.index(arrow[0]) < ROOMS.index(arrow[1])] == []


def test_the_arrows_are_seen() -> None:
    assert ("worker", "queue") in arrows(DTQ / "worker/worker.py")
    assert ("lab.cluster", "client") in arrows(DTQ / "lab/cluster/local_cluster.py")
    assert ("cli", "gateway") in arrows(DTQ / "cli/commands.py"), "also those inside functions"
    assert [room(module) for module in ("dtq", "dtq.lab", "dtq.queue.task", "dtq.tasks")] == [
        "", "lab", "queue", "tasks",
    ]  # fmt: skip


def test_tests_stand_where_the_code_does() -> None:
    folders = {path.parent.relative_to(DTQ) for path in DTQ.rglob("__init__.py")}
    tested = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert {folder for folder in tested if not WHOLE.intersection(folder.parts)} <= folders | BROKER
    assert folders - {Path("gateway/dashboard")} <= tested, "each folder has tests of its own"


def of_tests(path: Path) -> list[str]:
    """What a file imports from test modules."""
    names: list[str] = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = f"{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
            names += (origin + alias.name for alias in node.names)
    return [name for name in names if any(part.startswith("test_") for part in name.split("."))]


@in_every(TESTS)
def test_no_test_is_made_of_another(path: Path) -> None:
    assert of_tests(path) == []


def test_what_is_made_of_tests_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import tests.test_a\nfrom tests.test_b import c\nfrom tests import test_d, steps\n"
        "from .test_e import f\ndef late():\n    from tests.steps import run\n    import tests.cli.test_g\n"
    )
    found = ["tests.test_a", "tests.test_b.c", "tests.test_d", "test_e.f", "tests.cli.test_g"]
    assert of_tests(tmp_path / "a.py") == found


# ---------------------------------------------------------------- keys are spelled in one file

KEY = re.compile(r"\b(access|tasks?|workers?|metrics|dependencies|dependents):(?!\s)")


def python_literals(source: str) -> Iterator[tuple[int, str]]:
    """Strings that the program uses, f-strings included; not docstrings, which Python throws away."""
    module = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def lua_code(source: str) -> Iterator[tuple[int, str]]:
    """Lines without their comments."""
    for number, line in enumerate(source.splitlines(), 1):
        yield number, re.sub(r"--.*", "", line)


def key_literals(path: Path) -> dict[int, str]:
    read = lua_code if path.suffix == ".lua" else python_literals
    return {line: text for line, text in read(path.read_text()) if KEY.search(text)}


@in_every([path for path in PYTHON + LUA if path != DTQ / "queue/keys.py"])
def test_no_file_but_keys_spells_a_key(path: Path) -> None:
    assert key_literals(path) == {}


def test_the_search_for_keys_finds_keys(tmp_path: Path) -> None:
    found = {
        literal for _, literal in python_literals((DTQ / "queue/keys.py").read_text()) if KEY.search(literal)
    }
    assert found == set(vars(Keys()).values())
    (tmp_path / "a.py").write_text(
        '"""tasks:pending"""\nx = 1  # tasks:dead\nf"task:{x}"\nf(f"task:{x}", "task: no")\n'
    )
    (tmp_path / "a.lua").write_text("-- tasks:pending\nredis.call('GET', 'task:' .. id) -- task:\n")
    assert key_literals(tmp_path / "a.py") == {3: "task:", 4: "task:"}
    assert list(key_literals(tmp_path / "a.lua")) == [2]


# ---------------------------------------------------------------- what is public is explained


def undocumented(path: Path) -> list[str]:
    """Public names without a docstring. What is as short as one would be needs none."""
    module = tree(path)
    found = [] if ast.get_docstring(module) or not module.body else ["the module"]
    found += [which for which, node in public(module) if not ast.get_docstring(node) and not is_short(node)]
    return found


def public(scope: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Documented]]:
    for node in scope.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{node.name}.")


def is_short(node: Documented) -> bool:
    return isinstance(node, Function) and len(node.body) <= 2 and not any(map(is_compound, node.body))


def is_compound(statement: ast.stmt) -> bool:
    return hasattr(statement, "body")


@in_every(PYTHON)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    assert undocumented(path) == []


@in_every([path for path in LUA if path.name != "shared.lua"])
def test_a_script_begins_with_its_contract(path: Path) -> None:
    header = re.match(r"(?:--.*\n)+", path.read_text())
    assert header, "the first lines must be comments"
    assert re.search(r"^-- ARGV\[.+?\] +-> ", header[0], re.MULTILINE), "name what goes in"
    assert re.search(r"^-- Returns ", header[0], re.MULTILINE), "name what comes out"
    used = {int(number) for number in re.findall(r"\bARGV\[(\d+)\]", path.read_text()[header.end() :])}
    named = re.findall(r"ARGV\[(\d+|\.\.)(?:\.\.(\d+))?\]", header[0])
    ranges = [range(int(a), int(b or a) + 1) for a, b in named if a != ".."]
    assert used <= {number for numbers in ranges for number in numbers}, "each ARGV in use has its line"


def test_shared_lua_says_what_it_is() -> None:
    assert (DTQ / "queue/lua/shared.lua").read_text().startswith("-- ")


@in_every([path for path in PYTHON if DTQ / "cli" not in path.parents and LAB not in path.parents])
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert [
        call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
    ] == []


# ---------------------------------------------------------------- tests that can fail


def asserts(node: ast.AST, helpers: set[str]) -> bool:
    """Whether something in there asserts: itself, or through pytest, Playwright's `expect` or a helper."""
    return any(
        isinstance(inner, ast.Assert)
        or (isinstance(inner, ast.Call) and called(inner) in {"raises", "warns", "fail", *helpers})
        or (isinstance(inner, ast.Call) and is_expectation(inner))
        for inner in ast.walk(node)
    )


def is_expectation(call: ast.Call) -> bool:
    """`expect(page).to_have_title(…)`; `expect(page)` alone asserts nothing."""
    method = call.func
    return (
        isinstance(method, ast.Attribute)
        and method.attr.startswith(("to_", "not_to_"))
        and isinstance(method.value, ast.Call)
        and called(method.value) == "expect"
    )


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def asserting_helpers(paths: list[Path]) -> set[str]:
    """Names of functions in the tests that assert, themselves or through each other."""
    candidates = [f for path in paths for f in functions(path) if not f.name.startswith("test_")]
    helpers: set[str] = set()
    while more := {f.name for f in candidates if f.name not in helpers and asserts(f, helpers)}:
        helpers |= more
    return helpers


def toothless(paths: list[Path], helpers: set[str]) -> list[str]:
    tests = [(path, f) for path in paths for f in functions(path) if f.name.startswith("test_")]
    return [f"{path.name}::{f.name}" for path, f in tests if not asserts(f, helpers)]


def test_every_test_asserts() -> None:
    assert toothless(TESTS, asserting_helpers(TESTS)) == []


def test_a_test_that_cannot_fail_is_found(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(
        "def check(x):\n    assert x\n\ndef deeper(x):\n    check(x)\n\ndef idle(x):\n    return x\n\n"
        "def test_a():\n    deeper(1)\n\ndef test_b():\n    idle(1)\n\ndef test_c():\n    assert 1\n\n"
        "def test_d():\n    expect(1).to_be(1)\n\ndef test_e():\n    expect(1)\n"
    )
    assert toothless([file], asserting_helpers([file])) == ["test_it.py::test_b", "test_it.py::test_e"]
