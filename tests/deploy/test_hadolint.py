"""The Dockerfile under a linter."""

import subprocess
import sysconfig
from pathlib import Path

from tests.deploy.conftest import DEPLOY

HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def test_dockerfile_is_clean() -> None:
    found = subprocess.run([HADOLINT, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_linter_finds_mistakes(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nUSER root\nCMD dtq worker\n")
    found = subprocess.run([HADOLINT, tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert found.returncode == 1
    assert {"DL3006", "DL3002", "DL3025"} <= set(found.stdout.split())
