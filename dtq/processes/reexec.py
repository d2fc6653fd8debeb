"""A process that starts anew as itself, to load new code."""

import atexit
import os
import signal
import sys
from collections.abc import Sequence


class Successor:
    """The program that takes this process's place when it has ended, once it is called. Made before others
    that do something at the end, it comes after them: what they had to write is written.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command, self._terminal, self._called = list(command), has_terminal(), False
        atexit.register(self._start)

    def call(self) -> None:
        """Lets it come, unless the terminal was closed: that is a SIGHUP too, and means the end."""
        if has_terminal() == self._terminal:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._called = True

    def _start(self) -> None:
        if self._called:
            sys.stdout.flush()
            sys.stderr.flush()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # one more has to wait for its handler
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.execv(self._command[0], self._command)


def has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
