"""Lets a process start itself again, to load new code. SIGHUP asks for that.

SIGHUP would end a process that has no handler yet. So it is blocked from the start, by `hold` or by the
parent: the system keeps it until the process has its handler and lets it through.
"""

import atexit
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

HANGUP = {signal.SIGHUP}
log = logging.getLogger("dtq.processes")


def hold() -> None:
    """Keeps a SIGHUP for later. Processes that are started meanwhile begin so, too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANGUP)


def let_through() -> None:
    """Lets a SIGHUP come, also one that was kept."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANGUP)


@contextmanager
def held() -> Iterator[None]:
    """As `hold`, for the time of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANGUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_code() -> None:
    """From now on SIGHUP changes nothing, unless the terminal was closed: then it ends this process."""
    terminal = has_terminal()

    def hear(number: int, frame: FrameType | None) -> None:
        if has_terminal() == terminal:
            log.info("SIGHUP changes nothing here: to load new code, end this process and start it again")
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under `nohup` it stays ignored
        signal.signal(signal.SIGHUP, hear)
    let_through()


class Successor:
    """Replaces this process by a command when Python exits, if `call` was called. `atexit` runs the function
    that was registered first at the very end: make this before all others, so that they can write before.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command, self._terminal, self._called = list(command), has_terminal(), False
        atexit.register(self._start)

    def call(self) -> None:
        """Asks for the replacement, unless the terminal was closed: that is a SIGHUP too, to end it."""
        if has_terminal() == self._terminal:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._called = True

    def _start(self) -> None:
        if self._called:
            sys.stdout.flush()
            sys.stderr.flush()
            hold()
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.execv(self._command[0], self._command)


def has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
