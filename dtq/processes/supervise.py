"""Keeps processes running: starts those again that end, and replaces them one after another at SIGHUP."""

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from dtq.processes.children import Children
from dtq.processes.reexec import has_terminal, let_through

TICK = 0.2  # seconds between two checks for ended processes
LONGEST = 10.0  # seconds that a process waits to be started again, at most
log = logging.getLogger("dtq.processes")


def keep(
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str] | None = None,
    replaceable: Mapping[str, Callable[[int], bool]] | None = None,
) -> None:
    """Runs processes until SIGTERM or SIGINT, then ends them. A process that ends before is started again,
    see `Restarts`. SIGHUP replaces the processes one after another, to load new code.

    Args:
        commands: name -> program and arguments.
        environment: added to this process's own.
        replaceable: name -> function that takes a process id and returns whether this process is at work.
            SIGHUP replaces no other processes.
    """
    asked, processes = _listen(), Children()
    kept = {name: _Kept(name, command, environment, processes) for name, command in commands.items()}
    relay = _Relay(processes, kept, replaceable or {})
    try:
        while not {signal.SIGTERM, signal.SIGINT}.intersection(asked):
            for one in kept.values():
                one.look(relay.leaving)
            time.sleep(TICK)
            if signal.SIGHUP in asked:
                asked.remove(signal.SIGHUP)
                relay.begin()
            relay.go_on()
        log.info("stopping %s", ", ".join(commands))
    finally:
        processes.close()


class Restarts:
    """Paces the restarts of a process that ends again and again: the first one is at once, the next after
    `TICK`, and each after twice the pause before, up to `LONGEST`. Who ran for that long begins anew.
    """

    def __init__(self) -> None:
        self._next = 0.0
        self.started()

    def started(self) -> None:
        """Notes that the process was started."""
        self._started_at = time.monotonic()

    def pause(self) -> float:
        """The seconds before the next start of a process that has ended."""
        if time.monotonic() - self._started_at > LONGEST:
            self._next = 0.0
        pause, self._next = self._next, min(max(TICK, 2 * self._next), LONGEST)
        return pause


def after(pause: float) -> str:
    """The pause in words that end a sentence."""
    return f" in {pause:.1f} s" if pause else ""


class _Kept:
    """A process that is started, and again each time it has ended."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None, processes: Children
    ) -> None:
        self._name, self._command, self._environment = name, command, environment
        self._processes, self._restarts = processes, Restarts()
        self.pid, self._due = 0, 0.0  # it is due when it is to be started, time.monotonic; inf: it runs

    def look(self, leaving: int) -> None:
        """Starts the process if it is time. The end of the process `leaving` was asked for."""
        if self._due == math.inf and (code := self._processes.exit_code(self._name)) is not None:
            expected = self.pid == leaving
            pause = 0.0 if expected else self._restarts.pause()
            level = logging.INFO if expected else logging.WARNING
            log.log(level, "%s ended with %d, it is started again%s", self._name, code, after(pause))
            self._due = time.monotonic() + pause
        if time.monotonic() >= self._due:
            self.pid = self._processes.start(self._name, self._command, self._environment)
            self._restarts.started()
            self._due = math.inf


class _Relay:
    """Replaces processes one after another: the next one when the last one's successor is at work. If the new
    code does not load, that never happens, and the other processes go on with the old code.
    """

    def __init__(
        self, processes: Children, kept: Mapping[str, _Kept], at_work: Mapping[str, Callable[[int], bool]]
    ) -> None:
        self._processes, self._kept, self._at_work = processes, kept, at_work
        self._waiting: list[str] = []
        self._name, self.leaving = "", 0  # the process that is being replaced, and its id

    def begin(self) -> None:
        """Starts with all processes, also those just replaced: the code may have changed once more."""
        self._waiting = list(self._at_work)
        log.info("replacing %s, one after another", ", ".join(self._waiting))

    def go_on(self) -> None:
        """Asks the next process to end, if it is its turn."""
        if self._name:
            pid = self._kept[self._name].pid
            if pid == self.leaving or not self._at_work[self._name](pid):
                return
            log.info("%s was replaced", self._name)
        self._name = self._waiting.pop(0) if self._waiting else ""
        if self._name:
            self.leaving = self._kept[self._name].pid
            self._processes.signal(self._name, signal.SIGTERM)


def _listen() -> list[int]:
    """A list to which signals are added from now on. A closed terminal's SIGHUP counts as SIGTERM."""
    asked: list[int] = []
    terminal = has_terminal()

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number if number != signal.SIGHUP or has_terminal() == terminal else signal.SIGTERM)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under `nohup` it stays ignored
        signal.signal(signal.SIGHUP, note)
    let_through()
    return asked
