"""Where CI is set, a skipped test has failed, also where several processes share the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

SKIPPED = {
    "a test": "def test_it():\n    pytest.skip('no time')",
    "a marked test": "@pytest.mark.skip(reason='no time')\ndef test_it():\n    pass",
    "a file": "pytest.skip('no time', allow_module_level=True)",
}


@pytest.mark.parametrize("processes", ["0", "1"])
@pytest.mark.parametrize("text", SKIPPED.values(), ids=SKIPPED)
@pytest.mark.parametrize(("variables", "failed"), [({"CI": "true"}, True), ({"CI": ""}, False)])
def test_a_skip_has_failed_in_ci(
    tmp_path: Path, text: str, processes: str, variables: dict[str, str], failed: bool
) -> None:
    (tmp_path / "test_one.py").write_text(f"import pytest\n\n{text}\n")
    (tmp_path / "test_two.py").write_text("def test_two():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.no_skips", "-n", processes, "--rootdir", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode != 0) == failed, done.stdout
    assert ("not to be skipped in CI" in done.stdout) == failed
    assert ("no time" in done.stdout) == failed
