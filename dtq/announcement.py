"""Where the gateway of a folder listens. The gateway writes it down, and who looks for a gateway reads it."""

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
    """Says that this process listens at `url`. Readers see all of it, or nothing."""
    home.mkdir(parents=True, exist_ok=True)
    draft = home / f"gateway.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(Announcement(url, os.getpid())))
    draft.replace(path(home))


def withdraw(home: Path) -> None:
    """Takes this process's own word back; another's stays."""
    said = _read(home)
    if said and said.pid == os.getpid():
        path(home).unlink()


def find(home: Path) -> str | None:
    """The address of the gateway that runs in this folder; None where none does."""
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
