"""Where the gateway of a folder listens: written down, found, and taken back."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dtq import announcement
from dtq.announcement import Announcement
from tests.helpers import alive, wait_until

URL = "http://127.0.0.1:5999"


def announced_by(pid: int, home: Path) -> bytes:
    """Writes down what the process would have; returns the bytes."""
    written = msgspec.json.encode(Announcement(URL, pid))
    announcement.path(home).write_bytes(written)
    return written


def ended() -> int:
    """The id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-ISc", ""]) as process:
        return process.pid


def test_what_is_announced_is_found_until_it_is_withdrawn(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there"
    assert announcement.find(home) is None
    announcement.announce(home, URL)
    assert announcement.find(home) == URL
    assert list(home.iterdir()) == [announcement.path(home)], "no draft is left"
    announcement.withdraw(home)
    assert announcement.find(home) is None
    assert list(home.iterdir()) == []
    announcement.withdraw(home)  # nothing is there to be taken back
    assert list(home.iterdir()) == []


def test_who_starts_later_is_found(tmp_path: Path) -> None:
    announced_by(os.getppid(), tmp_path)
    announcement.announce(tmp_path, "http://127.0.0.1:6000")
    assert announcement.find(tmp_path) == "http://127.0.0.1:6000"


def test_the_word_of_another_stays(tmp_path: Path) -> None:
    written = announced_by(os.getppid(), tmp_path)
    announcement.withdraw(tmp_path)
    assert announcement.path(tmp_path).read_bytes() == written
    assert announcement.find(tmp_path) == URL


def test_a_dead_process_listens_nowhere(tmp_path: Path) -> None:
    announced_by(ended(), tmp_path)
    assert announcement.find(tmp_path) is None


def test_a_process_that_has_ended_and_was_not_waited_for_listens_nowhere(tmp_path: Path) -> None:
    """In a container it may stay so for ever: there, nobody waits for orphans."""
    with subprocess.Popen([sys.executable, "-ISc", ""]) as process:
        announced_by(process.pid, tmp_path)
        wait_until(lambda: not alive(process.pid), what="it has ended")
        assert announcement.find(tmp_path) is None


def test_a_process_of_another_user_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    announced_by(1, tmp_path)
    monkeypatch.setattr(os, "kill", refuse)
    assert announcement.find(tmp_path) == URL


NO_PID = b'{"url": "http://127.0.0.1:1"'


@pytest.mark.parametrize(
    "written",
    [b"", b"{", b"\xff", b"null", NO_PID + b"}", NO_PID + b', "pid": 0}', NO_PID + b', "pid": 99999999999}'],
)
def test_a_file_that_says_nothing_counts_as_none(tmp_path: Path, written: bytes) -> None:
    announcement.path(tmp_path).write_bytes(written)
    assert announcement.find(tmp_path) is None
    announcement.withdraw(tmp_path)
    announcement.announce(tmp_path, URL)
    assert announcement.find(tmp_path) == URL
