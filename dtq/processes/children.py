"""Child processes that cannot outlive their parent."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from dtq.processes import reaper
from dtq.processes.reexec import held

GRACE = 40.0  # seconds until SIGTERM is followed by SIGKILL: a worker's drain timeout and some more


class Children:
    """Starts and ends processes by name. Each leads a process group, so that its own children end with it. It
    begins with SIGHUP blocked: see `dtq.processes.reexec`.

    A small process, the reaper (`dtq.processes.reaper`), kills them all if this process dies without ending
    them. Plain `Popen` would leave orphans, and a parent-death signal exists only on Linux.
    """

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper = subprocess.Popen(
            [sys.executable, "-IS", reaper.__file__], stdin=subprocess.PIPE, start_new_session=True, text=True
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
            name: its name here; an earlier process of this name is stopped.
            command: program and arguments.
            environment: added to this process's own.
            output: file for its output; by default it writes where this process does.
        """
        if name in self._running:
            self.stop(name)
        with ExitStack() as stack:
            sink = stack.enter_context(output.open("ab")) if output else None
            stack.enter_context(held())  # a SIGHUP must not end it before it has a handler
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if sink else None,
                process_group=0,
            )
        self._note(f"+{process.pid}")
        self._running[name] = process
        return process.pid

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to the process. One that has ended already gets none."""
        if self.exit_code(name) is None:
            os.kill(self._running[name].pid, number)

    def exit_code(self, name: str) -> int | None:
        """None while the process runs, else its exit code, or minus the signal that killed it."""
        process = self._running[name]
        if process.returncode is None and _has_ended(process.pid):
            self._bury(process)
        return process.returncode

    def stop(self, name: str, grace: float = GRACE) -> int:
        """Ends a process by SIGTERM, or by SIGKILL after `grace` seconds, and kills the rest of its group.

        Returns:
            Its exit code, or minus the signal that killed it.
        """
        self._ask_to_end(name)
        end = time.monotonic() + grace
        while self.exit_code(name) is None:
            if time.monotonic() > end:
                self.signal(name, signal.SIGKILL)
            time.sleep(0.005)
        return self._running.pop(name).returncode

    def _ask_to_end(self, name: str) -> None:
        for number in (signal.SIGTERM, signal.SIGCONT):  # a paused process could not react
            self.signal(name, number)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """Kills what is left of the group of a process that has ended, and reaps the process. In this order:
        the system may give the number of a reaped process to another one at once, which must not be killed.
        """
        with suppress(ProcessLookupError, PermissionError):  # nothing is left; macOS raises the second
            os.killpg(process.pid, signal.SIGKILL)
        self._note(f"-{process.pid}")
        process.wait()

    def close(self, grace: float = GRACE, last: str = "") -> None:
        """Ends all processes at the same time, then `last`, which the others need, then the reaper."""
        for names in ([name for name in self._running if name != last], [last] * (last in self._running)):
            for name in names:
                self._ask_to_end(name)
            end = time.monotonic() + grace
            for name in names:
                self.stop(name, max(0.0, end - time.monotonic()))
        if self._reaper.stdin:
            self._reaper.stdin.close()
        self._reaper.wait()

    def _note(self, line: str) -> None:
        assert self._reaper.stdin
        self._reaper.stdin.write(line + "\n")
        self._reaper.stdin.flush()


def _has_ended(pid: int) -> bool:
    """Whether this child has ended. It is not reaped, so that its number stays its own."""
    if sys.platform == "darwin":  # there, Python has no `waitid` before 3.13
        with closing(select.kqueue()) as queue:
            end = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            return bool(queue.control([end], 1, 0))  # its end, or the error that no such process runs
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
