"""Child processes that cannot outlive whoever started them."""

import atexit
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from dtq.guard import __file__ as guard

GRACE = 40.0  # seconds until SIGTERM is followed by SIGKILL: a worker's drain timeout and some more
TICK = 0.2  # seconds between two looks at what has ended
log = logging.getLogger("dtq.processes")


class Processes:
    """Starts and ends processes by name. Each leads a process group, so that its own children go with it.

    A guard process (`dtq/guard.py`) kills them all when this process dies without ending them. Plain `Popen`
    leaves orphans then, and a parent-death signal exists on Linux alone.
    """

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = subprocess.Popen(
            [sys.executable, "-IS", guard], stdin=subprocess.PIPE, start_new_session=True, text=True
        )

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> int:
        """Starts a process; returns its id.

        Args:
            name: by which it is known here; an earlier process of this name is stopped.
            command: program and arguments.
            environment: goes on top of this process's own.
            output: file that gets all it says; by default it speaks where this process does.
        """
        if name in self._running:
            self.stop(name)
        sink = output.open("ab") if output else None
        try:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if sink else None,
                process_group=0,
            )
        finally:
            if sink:
                sink.close()
        self._tell_guard(f"+{process.pid}")
        self._running[name] = process
        return process.pid

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to the process. One that has ended already gets none."""
        self._running[name].send_signal(number)

    def exit_code(self, name: str) -> int | None:
        """None while the process runs, else its exit code, or minus the signal that killed it."""
        return self._running[name].poll()

    def stop(self, name: str, grace: float = GRACE) -> int:
        """Ends a process by SIGTERM, and after `grace` seconds by SIGKILL, with what is left of its group.

        Returns:
            Its exit code, or minus the signal that killed it.
        """
        process = self._running.pop(name)
        _ask_to_end(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        self._tell_guard(f"-{process.pid}")
        return code

    def close(self, grace: float = GRACE, last: str = "") -> None:
        """Ends all processes at once, but after the others the one that they need; then the guard."""
        for names in ([name for name in self._running if name != last], [last] * (last in self._running)):
            for name in names:
                _ask_to_end(self._running[name])
            end = time.monotonic() + grace
            for name in names:
                self.stop(name, max(0.0, end - time.monotonic()))
        if self._guard.stdin:
            self._guard.stdin.close()
        self._guard.wait()

    def _tell_guard(self, line: str) -> None:
        assert self._guard.stdin
        self._guard.stdin.write(line + "\n")
        self._guard.stdin.flush()


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.send_signal(signal.SIGCONT)  # one that is paused could not listen


def keep(
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str] | None = None,
    replaceable: Mapping[str, Callable[[int], bool]] | None = None,
) -> None:
    """Runs processes until SIGTERM or SIGINT, then ends them; one that ends before is started again. SIGHUP
    has them replaced, one after another, to load new code.

    Args:
        commands: name -> program and arguments.
        environment: goes on top of this process's own.
        replaceable: name -> tells whether its process, of this id, is at work. Others stay when SIGHUP comes.
    """
    asked, processes, pids = _listen(), Processes(), dict[str, int]()
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
    """Replaces processes one after another: the next when the successor of the one before is at work. Should
    that never be, since the new code does not even load, the others go on with the old.
    """

    def __init__(
        self, processes: Processes, pids: Mapping[str, int], at_work: Mapping[str, Callable[[int], bool]]
    ) -> None:
        self._processes, self._pids, self._at_work = processes, pids, at_work
        self._waiting: list[str] = []
        self._name, self.leaving = "", 0  # who is replaced now, and the id of its process

    def begin(self) -> None:
        """All of them, also those that were just replaced: the code may have changed once more."""
        self._waiting = list(self._at_work)
        log.info("replacing %s, one after another", ", ".join(self._waiting))

    def go_on(self) -> None:
        """Asks the next one to end, if it is its turn."""
        if self._name:
            pid = self._pids[self._name]
            if pid == self.leaving or not self._at_work[self._name](pid):
                return
            log.info("%s was replaced", self._name)
        self._name = self._waiting.pop(0) if self._waiting else ""
        if self._name:
            self.leaving = self._pids[self._name]
            self._processes.signal(self._name, signal.SIGTERM)


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


def _listen() -> list[int]:
    """The signals that arrive from now on. A closed terminal's SIGHUP is a SIGTERM; `nohup` wants none."""
    asked: list[int] = []
    terminal = has_terminal()

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number if number != signal.SIGHUP or has_terminal() == terminal else signal.SIGTERM)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, note)
    return asked
