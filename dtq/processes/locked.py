"""A program that takes a lock and becomes another program, which then has the lock for as long as it lives.

`python -IS locked.py LOCK PROGRAM …` locks the file LOCK and writes its process id into it. The lock is a
process's own (fcntl(2), F_SETLK): a new program in the same process keeps it, children do not inherit it, and
however the process ends, the lock is free at once.
"""

import fcntl
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TAKEN = 75  # exit code if another process has the lock: EX_TEMPFAIL of sysexits.h
PATIENCE = 2.0  # seconds; `holder` has the lock for a moment, too


def command(lock: Path, program: Sequence[str]) -> list[str]:
    """The command line that runs a program, given with its arguments, as the holder of the lock."""
    return [sys.executable, "-IS", __file__, str(lock), *program]


def holder(lock: Path) -> int | None:
    """The id of the process that has the lock; None if none has it. 0: it has only just taken it."""
    try:
        with lock.open() as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(lock.read_text() or 0)
    return None


def main(lock: str, *program: str) -> None:
    """Becomes the program, or ends with `TAKEN`."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    end = time.monotonic() + PATIENCE
    while not _take(file):
        if time.monotonic() > end:
            sys.exit(TAKEN)
        time.sleep(0.01)
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    os.set_inheritable(file, True)
    os.execv(program[0], program)


def _take(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
