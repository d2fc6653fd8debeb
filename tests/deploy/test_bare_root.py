"""Every step of the Dockerfile in a bare Debian root, and the services that run from what comes of it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT
from tests.helpers import wait_until

SUDO = [] if os.geteuid() == 0 else ["sudo", "-n", "--preserve-env"]


def can_be_root() -> bool:
    return not SUDO or (
        shutil.which("sudo") is not None and subprocess.run(["sudo", "-n", "true"]).returncode == 0
    )


pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not shutil.which("debootstrap", path=os.defpath + ":/usr/sbin") or not can_be_root(),
        reason="debootstrap is not installed, or needs a root that this user is not",
    ),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the first test leaves its bare root for the others."""
    base = tmp_path_factory.mktemp("debian") / "base"
    yield base
    subprocess.run([*SUDO, "rm", "-r", "--one-file-system", base], check=True)


def start(base: Path, work: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [*SUDO, sys.executable, "-B", ROOT / "scripts/bare_root.py", "--base", base, *arguments]
    work.mkdir()
    return subprocess.Popen(
        command,
        env=os.environ | {"TMPDIR": str(work)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(base: Path, work: Path, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and output; nothing may be left behind."""
    process = start(base, work, *arguments)
    try:
        output, _ = process.communicate()
    finally:
        process.terminate()
    assert_nothing_is_left(work)
    return process.returncode, output


def assert_nothing_is_left(work: Path) -> None:
    assert list(work.iterdir()) == []
    assert str(work) not in Path("/proc/mounts").read_text()
    commands = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True).stdout
    assert str(work) not in commands


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


def test_the_image_can_be_built_and_its_services_work(base: Path, tmp_path: Path) -> None:
    code, output = run(base, tmp_path / "work")
    shown = [line.removeprefix("shown: ") for line in output.splitlines() if line.startswith("shown: ")]
    assert (code, shown) == (0, SHOWN.splitlines()), output


def project(folder: Path, *steps: str) -> tuple[str | Path, ...]:
    """A Dockerfile with these steps, as arguments."""
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(["FROM debian:bookworm-slim", *steps, ""]))
    return "--build-only", "--file", folder / "Dockerfile", "--context", folder


def test_a_step_that_fails_is_named(base: Path, tmp_path: Path) -> None:
    arguments = project(tmp_path / "project", "# fails", "RUN echo because && exit 3", "RUN echo never")
    code, output = run(base, tmp_path / "work", *arguments)
    assert code == 1
    assert output.endswith("because\nscripts/bare_root.py: Line 3 of Dockerfile, RUN: exit code 3\n"), output


def test_what_dockerignore_names_is_not_copied(base: Path, tmp_path: Path) -> None:
    arguments = project(
        tmp_path / "project",
        "COPY app /app/",
        "WORKDIR /app",
        "ENV PLACE=/app",
        "ENV NAME=$PLACE/name",
        "USER 1234:1234",
        'RUN test "$(ls -A) $NAME $(id -u) $(pwd)" = "kept /app/name 1234 /app"',
        "RUN ! touch /app/file",
        "COPY .env ./",
    )
    for name in ("app/kept", "app/left", "app/sub/__pycache__/x.pyc", ".env"):
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).touch()
    (tmp_path / "project/Dockerfile.dockerignore").write_text("*\n!app\napp/left\n**/__pycache__\n")
    code, output = run(base, tmp_path / "work", *arguments)
    assert code == 1
    assert output.endswith("COPY: COPY .env: there is no such file, or .dockerignore leaves it out\n"), output


def test_a_signal_leaves_nothing_behind(base: Path, tmp_path: Path) -> None:
    arguments = project(tmp_path / "project", "RUN echo begun && sleep 600")
    process = start(base, tmp_path / "work", *arguments)
    assert process.stdout
    wait_until(lambda: "sleep 600" in process.stdout.readline(), what="the step has begun")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert_nothing_is_left(tmp_path / "work")
