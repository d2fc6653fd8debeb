"""The address of a folder's gateway. The gateway writes it into a file, and its clients read it there."""

import os
from pathlib import Path

import msgspec

from dtq.processes import notes


class Announcement(msgspec.Struct):
    """An address, and the process that listens there."""

    url: str
    pid: notes.Pid


def path(home: Path) -> Path:
    """The file, in the folder `DTQ_HOME`."""
    return home / "gateway.json"


def announce(home: Path, url: str) -> None:
    """Writes down that this process listens at `url`."""
    home.mkdir(parents=True, exist_ok=True)
    notes.write(path(home), Announcement(url, os.getpid()))


def withdraw(home: Path) -> None:
    """Deletes the file if this process has written it."""
    said = notes.read(path(home), Announcement)
    if said and said.pid == os.getpid():
        path(home).unlink()


def find(home: Path) -> str | None:
    """The address of the gateway that runs in this folder; None if none runs."""
    said = notes.read(path(home), Announcement)
    return said.url if said and notes.lives(said.pid) else None
