"""Every step of the Dockerfile in a bare Debian root, and the services that run from what comes of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT
from tests.helpers import PATIENCE, wait_until

SUDO = [] if os.geteuid() == 0 else ["sudo", "-n", "--preserve-env"]
MISSING, _ = subprocess.getstatusoutput(" ".join([*SUDO, "which debootstrap ip"]))
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(MISSING != 0, reason="needs debootstrap, ip, and sudo where it is not root who tests"),
]
LEFT = "ps -A -ww -o args=; cat /proc/mounts"  # in full
SHOWN = """\
gateway: gunicorn --config /app/gunicorn.conf.py is healthy
gateway: without a key the answer is 401
worker: dtq key create prints a key
worker: dtq worker is healthy
gateway: with the key a task is taken
worker: the task is completed
worker: /app cannot be written to
worker: /opt/dtq cannot be written to
worker: SIGTERM ends it with 0
gateway: SIGTERM ends it with 0
gateway: once it has ended, its health check says so
worker: once it has ended, its health check says so
redis: SIGTERM ends it with 0
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The script. Nothing of it may be left behind, however it ends."""
    command = [*SUDO, "env", f"TMPDIR={tmp_path}", sys.executable, "-B", ROOT / "scripts/bare_root.py"]
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    process = subprocess.Popen(command, stdout=pipe, stderr=out, text=True, start_new_session=True)
    yield process
    if process.poll() is None:
        subprocess.run([*SUDO, "kill", str(process.pid)], check=True)
    process.communicate(timeout=PATIENCE)
    assert not list(tmp_path.iterdir())
    wait_until(lambda: str(tmp_path) not in subprocess.getoutput(LEFT), what="processes and mounts have gone")


def test_the_image_can_be_built_and_its_services_work(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate()
    shown = [line.removeprefix("shown: ") for line in output.splitlines() if line.startswith("shown: ")]
    assert (process.returncode, shown) == (0, SHOWN.splitlines()), output


def test_a_signal_leaves_nothing_behind(process: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_until(lambda: f"debootstrap --variant=minbase bookworm {tmp_path}" in subprocess.getoutput(LEFT))
    subprocess.run([*SUDO, "kill", str(process.pid)], check=True)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
