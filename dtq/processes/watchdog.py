"""Ends this process if code holds the interpreter, as `sum(range(10**11))` does: nobody else can."""

import faulthandler
import signal
import sys


class Watchdog:
    """While code holds the interpreter, neither signal handlers nor other threads of Python run. So a signal
    that no Python code handles ends the process, and `faulthandler` writes down where it was.

    It counts seconds of this process's CPU, not of the clock: a process that was paused gets its chance. Who
    can still run puts the end off again and again, so that threads which leave the interpreter free may use
    as many cores as they like.
    """

    def __init__(self) -> None:
        self._awake = False

    def wake(self) -> None:
        """From now on, `end_after` has an effect."""
        faulthandler.register(signal.SIGPROF, file=sys.__stderr__ or sys.stderr, chain=True)
        self._awake = True

    def sleep(self) -> None:
        """From now on, `end_after` has none."""
        self.relax()
        self._awake = False
        faulthandler.unregister(signal.SIGPROF)

    def end_after(self, seconds: float) -> None:
        """Ends the process when it has computed for so long from now on."""
        if self._awake:
            signal.setitimer(signal.ITIMER_PROF, seconds)

    def relax(self) -> None:
        """Lets the process live."""
        if self._awake:
            signal.setitimer(signal.ITIMER_PROF, 0)
