"""What a process writes down about itself so that others find it: a small JSON file."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

Pid = Annotated[int, msgspec.Meta(gt=0, lt=2**31)]
T = TypeVar("T", bound=msgspec.Struct)


def write(path: Path, note: msgspec.Struct) -> None:
    """Writes a note in one step: who reads at the same time gets the old one or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(note))
    draft.replace(path)


def read(path: Path, kind: type[T]) -> T | None:
    """The note; None if there is none, or none that makes sense, as after a power cut or an editor."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def lives(pid: int) -> bool:
    """Whether a process of this machine lives. One that has ended, and was not waited for yet, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return _state(pid) != b"Z"


def _state(pid: int) -> bytes:
    """The letter of the process's state; nothing where there is no /proc, as on macOS."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return b""
