"""The address of a folder's gateway. The gateway writes it into a file, and its clients read it there."""

import os
from pathlib import Path

import msgspec


class Announcement(msgspec.Struct):
    """An address, and the process that listens there."""

    url: str
    pid: int


def path(home: Path) -> Path:
    """The file, in the folder `DTQ_HOME`."""
    return home / "gateway.json"


def announce(home: Path, url: str) -> None:
    """Writes down that this process listens at `url`. Readers see the whole file or none."""
    home.mkdir(parents=True, exist_ok=True)
    draft = home / f"gateway.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(Announcement(url, os.getpid())))
    draft.replace(path(home))


def withdraw(home: Path) -> None:
    """Deletes the file if this process has written it."""
    said = _read(home)
    if said and said.pid == os.getpid():
        path(home).unlink()


def find(home: Path) -> str | None:
    """The address of the gateway that runs in this folder; None if none runs."""
    said = _read(home)
    return said.url if said and _lives(said.pid) else None


def _read(home: Path) -> Announcement | None:
    try:
        return msgspec.json.decode(path(home).read_bytes(), type=Announcement)
    except FileNotFoundError:
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
