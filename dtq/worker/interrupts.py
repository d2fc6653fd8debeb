"""What may interrupt the main thread of a worker: signals, and the time limit of a handler.

A signal can arrive between any two steps of a program. A worker lets it raise an exception in two places:
in the wait for work, and in the handler. Everywhere else the worker notes the signal and acts on it later.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import TypeVar

from dtq.processes import forks
from dtq.processes.watchdog import Watchdog

T = TypeVar("T")
LAST_WORDS = 1.0  # seconds that a handler gets to end once its time limit has interrupted it
HOPELESS = 2.0  # seconds of CPU after its time limit: then a handler must be holding the interpreter itself


class TimeLimit(BaseException):
    """Raised in a handler whose time is up; a BaseException, which `except Exception` does not catch."""


class Interrupted(BaseException):
    """Raised in the main thread by a signal: the wait for work is over, or the handler is to be abandoned."""


class Place(Enum):
    """Where the main thread is: this decides what a signal may do."""

    ELSEWHERE = "no exception may be raised"
    WAIT = "the wait for work may be interrupted"
    HANDLER = "a handler may be interrupted"


class Interrupts:
    """Handles a worker's signals, and keeps the time limit of its handler.

    Args:
        drain_timeout: seconds that a handler gets once the worker was asked to end.
        log: of the worker.

    Attributes:
        stopping: whether the worker was asked to end.
        reload: whether SIGHUP asked for that: the process is to start again, with new code.
        watchdog: ends this process if a handler holds the interpreter itself; lets it live after `relax`.
    """

    def __init__(self, drain_timeout: float, log: logging.Logger) -> None:
        self.stopping = False  # no Event: a signal inside another's handler would wait for its lock for ever
        self.reload = False
        self._drain_timeout, self._log = drain_timeout, log
        self._place = Place.ELSEWHERE
        self._deadline = float("inf")  # when the running handler must be over, time.monotonic
        self._overdue = False
        self.watchdog = Watchdog()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals of this process while the block runs."""
        actions = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._stop) | {signal.SIGALRM: self._alarm}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under `nohup` it stays ignored
            actions[signal.SIGHUP] = self._stop
        before = {number: signal.signal(number, action) for number, action in actions.items()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # see `Successor`
        self.watchdog.wake()
        try:
            yield
        finally:
            self.watchdog.sleep()
            for number, action in before.items():
                signal.signal(number, action)

    def wait(self, action: Callable[[], object]) -> None:
        """Waits for work, by calling `action`, unless the worker was asked to end.

        Raises:
            Interrupted: a signal asked it to end meanwhile.
        """
        self._place = Place.WAIT
        if not self.stopping:  # checked after the line above: a signal may come in between
            action()
        self._place = Place.ELSEWHERE

    def limit(self, seconds: float, handler: Callable[[], T]) -> T:
        """Runs a handler for `seconds` at most.

        Raises:
            TimeLimit: its time was up.
            Interrupted: the worker must end before the handler is done.
        """
        try:
            self._place = Place.HANDLER
            self._allow(seconds)
            if self.stopping:  # checked after the lines above: a signal may come in between
                self._allow(min(seconds, self._drain_timeout))
            result = forks.only_here(handler)
            self._place = Place.ELSEWHERE
            return result
        except TimeLimit:
            raise TimeLimit(f"was not done within its {seconds:g} s") from None
        finally:
            self._place = Place.ELSEWHERE
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._deadline = float("inf")

    def is_stuck(self) -> bool:
        """Whether a handler still runs after its time limit. True only when two calls in a row find it so:
        after a SIGSTOP the alarm may still be on its way.
        """
        deadline = self._deadline
        if deadline < float("inf"):  # whoever asks can run, so the handler does not hold the interpreter
            self.watchdog.end_after(max(deadline - time.monotonic(), 0) + HOPELESS)
        before, self._overdue = self._overdue, time.monotonic() > deadline + LAST_WORDS
        return before and self._overdue

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self.stopping:
            return
        again, self.stopping = self.stopping and not self.reload, True
        self.reload = number == signal.SIGHUP
        if self._place is Place.WAIT or (again and self._place is Place.HANDLER):
            self._place = Place.ELSEWHERE
            raise Interrupted
        if self._place is Place.HANDLER:
            self._log.info("stopping; the task in hand has %g s", self._drain_timeout)
            self._allow(min(self._deadline - time.monotonic(), self._drain_timeout))

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self._place is Place.HANDLER:
            self._place = Place.ELSEWHERE
            raise Interrupted if self.stopping else TimeLimit

    def _allow(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
        self.watchdog.end_after(max(seconds, 0) + HOPELESS)


forks.ordinary_children(Interrupts)
