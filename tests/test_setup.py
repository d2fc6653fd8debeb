"""The way in: scripts/setup, and that pyproject.toml, requirements.lock and environment.yml say the same."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import PATIENCE, ROOT, locked, wait_until

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BASE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {
    extra: [Requirement(line) for line in lines] for extra, lines in PROJECT["optional-dependencies"].items()
}
EVERYTHING = BASE + [requirement for extra in EXTRAS.values() for requirement in extra]
SCRIPTS = [*sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file()), ROOT / ".ci/run"]

# The files agree.

CONDA_NAMES = {"redis": "redis-py"}
CONDA_ONLY = {"python", "pip", "redis-server"}


def bounds(requirements: Iterable[Requirement]) -> dict[str, str]:
    return {canonicalize_name(each.name): str(each.specifier) for each in requirements}


def test_environment_is_what_pyproject_asks_for() -> None:
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    offered = bounds(map(Requirement, conda))
    assert offered.keys() >= CONDA_ONLY
    assert offered.pop("python") == PROJECT["requires-python"]

    asked = bounds(EVERYTHING)
    from_pip = bounds(map(Requirement, pip["pip"]))
    assert from_pip == {name: asked.pop(name) for name in from_pip}
    assert {name: bound for name, bound in offered.items() if name not in CONDA_ONLY} == {
        CONDA_NAMES.get(name, name): bound for name, bound in asked.items()
    }


def test_lock_holds_what_pyproject_asks_for() -> None:
    pins = [(canonicalize_name(pin.name), str(pin.specifier).removeprefix("==")) for pin in locked()]
    for requirement in EVERYTHING:
        versions = [version for name, version in pins if name == canonicalize_name(requirement.name)]
        assert versions, f"{requirement} is not in requirements.lock: run scripts/lock"
        for version in versions:
            assert version in requirement.specifier, (
                f"{requirement}, but {version} is locked: run scripts/lock"
            )


def test_lock_holds_what_builds_the_project() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert bounds(map(Requirement, build)).items() <= bounds(EVERYTHING).items()


def test_lock_names_versions_and_hashes_alone() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pin, hash_ = (
        re.compile(r"[\w.-]+==[\w.]+( ; .+)? \\"),
        re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?"),
    )
    assert [line for line in lines if not pin.fullmatch(line) and not hash_.fullmatch(line)] == []
    assert len(locked()) > len(EVERYTHING)


def imported(files: Iterable[Path]) -> set[str]:
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return (
        {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"", "dtq", "scripts", "tests"}
    )


LAB = set(ROOT.glob("dtq/lab/**/*.py"))
DASHBOARD = set(ROOT.glob("dtq/gateway/dashboard/**/*.py"))
TRACING = set(ROOT.glob("dtq/observe/otel.py"))


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        pytest.param(set(ROOT.glob("dtq/**/*.py")) - LAB - DASHBOARD - TRACING, BASE, id="dtq"),
        pytest.param(DASHBOARD, BASE + EXTRAS["dashboard"], id="dashboard"),
        pytest.param(TRACING, BASE + EXTRAS.get("tracing", []), id="tracing"),
        pytest.param(LAB, BASE + EXTRAS["notebook"], id="lab"),
        pytest.param(
            {*ROOT.glob("tests/**/*.py"), *ROOT.glob("scripts/*.py"), *ROOT.glob("scripts/publish/*.py")},
            EVERYTHING,
            id="tests",
        ),
    ],
)
def test_what_is_imported_is_asked_for(files: set[Path], allowed: list[Requirement]) -> None:
    providers = packages_distributions()
    names = {canonicalize_name(requirement.name) for requirement in allowed}
    assert [m for m in sorted(imported(files)) if not names & set(map(canonicalize_name, providers[m]))] == []


def test_no_file_names_a_package_registry() -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    files = [path for name in names if name and (path := ROOT / os.fsdecode(name)).is_file()]
    address = re.compile(rb"pypi\.(org|python)|pythonhosted\.|registry\.npm|deb\.debian|conda\.anaconda")
    assert len(files) > 10
    assert [str(path) for path in files if address.search(path.read_bytes())] == []


# The scripts.


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_runs_and_parses(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shell = re.match(r"#!(?:/bin/|/usr/bin/env )(sh|bash|python)\n", script.read_text())
    assert shell, "the first line names what runs it"
    if shell[1] != "python":
        subprocess.run([shell[1], "-n", script], check=True)


# What scripts/setup does, in a folder of its own. The Python is real; the installer notes what it is asked.

TOOLS = ["cat", "cksum", "dirname", "mkdir", "rm", "sh"]  # all that scripts/setup may need
PATCHED_PYTHON = f"""#!/bin/sh
if [ "$1" = -c ]; then
    code=$2
    shift 2
    exec '{sys.executable}' -c "import sys
PATCH
$code" "$@"
fi
echo Python 3.9.2
"""
UV = f"""#!/bin/sh
if [ "$1" = venv ]; then
    for folder; do :; done
    exec '{sys.executable}' -m venv --without-pip "$folder"
fi
echo "$*" >>installs
while [ -e gate ]; do '{shutil.which("sleep")}' 0.05; done
[ ! -e broken ]
"""


class Folder:
    """A project with nothing but scripts/setup, and a PATH with nothing but what that needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("scripts", "bin"):
            (path / name).mkdir()
        shutil.copy(ROOT / "scripts/setup", path / "scripts")
        (path / "pyproject.toml").touch()
        (path / "requirements.lock").touch()
        for tool in TOOLS:
            (path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
        self.command("python3", f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
        self.popen: list[subprocess.Popen[str]] = []

    def command(self, name: str, text: str) -> None:
        command = self.path / "bin" / name
        command.write_text(text)
        command.chmod(0o755)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        self.popen.append(
            subprocess.Popen(
                [self.path / "scripts/setup"],
                env={"PATH": str(self.path / "bin"), **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return self.popen[-1]

    def setup(self, **environment: str) -> tuple[int, str]:
        process = self.start(**environment)
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output

    @property
    def installs(self) -> list[str]:
        notes = self.path / "installs"
        return notes.read_text().splitlines() if notes.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Iterable[Folder]:
    folder = Folder(tmp_path)
    yield folder
    for process in folder.popen:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)


def test_old_python_is_one_sentence(folder: Folder) -> None:
    folder.command("python3", PATCHED_PYTHON.replace("PATCH", "sys.version_info = (3, 9, 2)"))
    assert folder.setup() == (
        1,
        "scripts/setup: dtq needs Python 3.11 or newer, but python3 is Python 3.9.2; "
        "install a newer one, or name it: PYTHON=/path/to/python3 scripts/setup\n",
    )


def test_newer_python_beside_the_old_is_found(folder: Folder) -> None:
    folder.command("python3", PATCHED_PYTHON.replace("PATCH", "sys.version_info = (3, 9, 2)"))
    folder.command("python3.12", f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    folder.command("uv", UV)
    assert folder.setup()[0] == 0


def test_python_that_is_not_there_is_one_sentence(folder: Folder) -> None:
    code, output = folder.setup(PYTHON="/no/such python")
    assert code == 1
    assert output.startswith(
        "scripts/setup: dtq needs Python 3.11 or newer, but /no/such python is not there"
    )
    assert output.count("\n") == 1


def test_missing_venv_module_is_one_sentence(folder: Folder) -> None:
    folder.command("python3", PATCHED_PYTHON.replace("PATCH", "sys.modules['ensurepip'] = None"))
    code, output = folder.setup()
    assert code == 1
    assert output.splitlines()[-1] == (
        "scripts/setup: python3 has no venv module; on Debian or Ubuntu: sudo apt-get install "
        f"python3.{sys.version_info.minor}-venv; elsewhere install uv, or name another Python: "
        "PYTHON=/path/to/python3 scripts/setup"
    )


def test_setup_installs_once(folder: Folder) -> None:
    folder.command("uv", UV)
    assert folder.setup()[0] == 0
    assert "--require-hashes" in folder.installs[0]
    assert "--no-deps" in folder.installs[1]
    assert folder.setup() == (0, "")
    assert len(folder.installs) == 2


def test_a_new_lock_is_installed_into_the_same_venv(folder: Folder) -> None:
    folder.command("uv", UV)
    folder.setup()
    (folder.path / ".venv/mine").touch()
    (folder.path / "requirements.lock").write_text("# new\n")
    assert folder.setup()[0] == 0
    assert len(folder.installs) == 4
    assert (folder.path / ".venv/mine").exists()


def test_failed_install_is_told_and_tried_again(folder: Folder) -> None:
    folder.command("uv", UV)
    (folder.path / "broken").touch()
    code, output = folder.setup()
    assert (code, "could not be installed" in output) == (1, True)
    (folder.path / ".venv/mine").touch()
    (folder.path / "broken").unlink()
    assert folder.setup()[0] == 0
    assert (folder.path / ".venv/mine").exists()


def test_interrupted_setup_starts_anew(folder: Folder) -> None:
    folder.command("uv", UV)
    (folder.path / "gate").touch()
    process = folder.start()
    wait_until(lambda: folder.installs, what="the installer runs")
    (folder.path / ".venv/half-written").touch()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=PATIENCE)
    (folder.path / "gate").unlink()
    assert folder.setup()[0] == 0
    assert not (folder.path / ".venv/half-written").exists()
    assert folder.setup() == (0, "")


def test_two_setups_at_once_install_once(folder: Folder) -> None:
    folder.command("uv", UV)
    (folder.path / "gate").touch()
    first = folder.start()
    wait_until(lambda: folder.installs, what="the first one installs")
    second = folder.start()
    assert second.stdout
    assert "waits for another set-up" in second.stdout.readline()
    (folder.path / "gate").unlink()
    assert (first.wait(timeout=PATIENCE), second.wait(timeout=PATIENCE)) == (0, 0)
    assert len(folder.installs) == 2
