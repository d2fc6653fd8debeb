"""Lets a process start itself again, to load new code."""

import atexit
import os
import signal
import sys
from collections.abc import Sequence


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
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # held until there is a handler
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.execv(self._command[0], self._command)


def has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
