"""The systemd units, under systemd's own checks. They need no systemd that runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dtq.cli.commands import main
from dtq.config import Settings
from tests.deploy.conftest import DEPLOY

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine on which dtq is installed, as far as systemd-analyze looks."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree("/lib/systemd/system", root / "lib/systemd/system", symlinks=True)
    for program in ("opt/dtq/bin/dtq", "opt/dtq/bin/gunicorn", "bin/kill"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    (root / "etc/systemd/system").mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(unit, root / "etc/systemd/system")
    return root


def analyze(verb: str, root: Path, unit: str) -> tuple[int, str]:
    command = ["systemd-analyze", *verb.split(), f"--root={root}", unit]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def instance(unit: Path) -> str:
    return unit.name.replace("@.", "@1.")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_is_valid(root: Path, unit: Path) -> None:
    assert analyze("verify", root, instance(unit)) == (0, "")


def test_a_mistake_is_found(root: Path) -> None:
    (root / "etc/systemd/system/wrong.service").write_text(
        "[Service]\nExecStart=/opt/dtq/bin/dtq\nRestrat=no\n"
    )
    assert "Unknown key" in analyze("verify", root, "wrong.service")[1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_gives_few_rights(root: Path, unit: Path) -> None:
    _, report = analyze("security --offline=yes", root, instance(unit))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert exposure, report
    assert float(exposure[1]) < 2, report


def settings(unit: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def test_a_worker_has_time_to_finish_its_task() -> None:
    (worker,) = [unit for unit in UNITS if "worker" in unit.name]
    given = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "systemd/dtq.env").read_text(), re.MULTILINE))
    drain = float(given["DTQ_DRAIN_TIMEOUT"])
    assert drain == Settings.model_fields["drain_timeout"].default
    assert float(settings(worker)["TimeoutStopSec"]) > drain
    program, name, *arguments = settings(worker)["ExecStart"].split()
    assert program == "/opt/dtq/bin/dtq"
    main.commands[name].make_context(name, arguments)
