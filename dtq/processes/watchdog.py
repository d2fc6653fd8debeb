"""Ends this process at a time, even if no Python code can run: a thread of C does it."""

import faulthandler
import time

NEVER = float("inf")
CLOSE = 1.0  # seconds by which the end may be late or early


class Watchdog:
    """For code that may hold the interpreter, as `sum(range(10**11))` does: neither signal handlers nor other
    threads of Python run meanwhile. `faulthandler` writes down where it is and ends the process.
    """

    def __init__(self) -> None:
        self._ends_at = NEVER  # time.monotonic

    def end_after(self, seconds: float) -> None:
        """Ends the process in so many seconds, `CLOSE` earlier or later: to start the thread costs 50 us, so
        one that will end it at about that time is left as it is.
        """
        ends_at = time.monotonic() + seconds
        if abs(ends_at - self._ends_at) > CLOSE:
            self._ends_at = ends_at
            faulthandler.dump_traceback_later(seconds, exit=True)

    def relax(self) -> None:
        """Lets the process live."""
        if self._ends_at < NEVER:
            self._ends_at = NEVER
            faulthandler.cancel_dump_traceback_later()
