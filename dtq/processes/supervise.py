"""Keeps processes running: starts those again that end, and replaces them one after another at SIGHUP."""

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from dtq.processes.children import Children
from dtq.processes.reexec import has_terminal

TICK = 0.2  # seconds between two checks for ended processes
log = logging.getLogger("dtq.processes")


def keep(
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str] | None = None,
    replaceable: Mapping[str, Callable[[int], bool]] | None = None,
) -> None:
    """Runs processes until SIGTERM or SIGINT, then ends them. A process that ends before is started again.
    SIGHUP replaces the processes one after another, to load new code.

    Args:
        commands: name -> program and arguments.
        environment: added to this process's own.
        replaceable: name -> function that takes a process id and returns whether this process is at work.
            SIGHUP replaces no other processes.
    """
    asked, processes, pids = _listen(), Children(), dict[str, int]()
    relay = _Relay(processes, pids, replaceable or {})
    try:
        for name, command in commands.items():
            pids[name] = processes.start(name, command, environment)
        while not {signal.SIGTERM, signal.SIGINT}.intersection(asked):
            time.sleep(TICK)
            for name, command in commands.items():
                if (code := processes.exit_code(name)) is not None:
                    level = logging.INFO if pids[name] == relay.leaving else logging.WARNING
                    log.log(level, "%s ended with %d, it is started again", name, code)
                    pids[name] = processes.start(name, command, environment)
            if signal.SIGHUP in asked:
                asked.remove(signal.SIGHUP)
                relay.begin()
            relay.go_on()
        log.info("stopping %s", ", ".join(commands))
    finally:
        processes.close()


class _Relay:
    """Replaces processes one after another: the next one when the last one's successor is at work. If the new
    code does not load, that never happens, and the other processes go on with the old code.
    """

    def __init__(
        self, processes: Children, pids: Mapping[str, int], at_work: Mapping[str, Callable[[int], bool]]
    ) -> None:
        self._processes, self._pids, self._at_work = processes, pids, at_work
        self._waiting: list[str] = []
        self._name, self.leaving = "", 0  # the process that is being replaced, and its id

    def begin(self) -> None:
        """Starts with all processes, also those just replaced: the code may have changed once more."""
        self._waiting = list(self._at_work)
        log.info("replacing %s, one after another", ", ".join(self._waiting))

    def go_on(self) -> None:
        """Asks the next process to end, if it is its turn."""
        if self._name:
            pid = self._pids[self._name]
            if pid == self.leaving or not self._at_work[self._name](pid):
                return
            log.info("%s was replaced", self._name)
        self._name = self._waiting.pop(0) if self._waiting else ""
        if self._name:
            self.leaving = self._pids[self._name]
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
    return asked
