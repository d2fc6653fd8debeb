"""Processes that end when a notebook's kernel does, however it ends.

kernel --pipe--> supervisor (a session of its own, deaf to Ctrl-C) --> Redis, gateway, workers, reaper

When the kernel is restarted or killed, the system closes its end of the pipe, the supervisor sees that and
ends its children. If the supervisor itself is killed, the reaper of its `Children` kills them.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from dtq.errors import DtqError
from dtq.processes.children import Children

GRACE = 2.0  # seconds that the children get to end once the kernel is gone
LOOK = 0.25  # seconds between two checks whether the parent lives


class Supervisor:
    """`Children` in another process: the same methods, at the kernel's end of the pipe.

    Args:
        directory: for logs and data; by default a temporary one, deleted at the end.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dtq.lab.cluster.supervisor", *([str(directory)] if directory else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.directory = Path(self._answer())

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> int:
        """Starts a process; returns its id. See `Children.start`."""
        pid: int = self._call("start", name, list(command), dict(environment or {}), str(output or ""))
        return pid

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to the process."""
        self._call("signal", name, number)

    def exit_code(self, name: str) -> int | None:
        """None while the process runs, else as for `Children.exit_code`."""
        code: int | None = self._call("exit_code", name)
        return code

    def stop(self, name: str, grace: float = GRACE) -> int:
        """Ends a process; returns its exit code."""
        code: int = self._call("stop", name, grace)
        return code

    def close(self) -> None:
        """Ends all processes and the supervisor. May be called again."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._process.stdin = None  # it was killed, and its reaper has done the rest
        self._process.wait()
        self._process.stdout.close()

    def _call(self, method: str, *arguments: object) -> Any:
        assert self._process.stdin
        with self._lock:
            try:
                self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                raise DtqError("The cluster is not running any more: start a new one.") from None
            return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise DtqError("The cluster's supervisor was killed: start a new cluster.")
        answer = json.loads(line)
        if "error" in answer:
            raise DtqError(answer["error"])
        return answer["value"]


def main(directory: str | None) -> None:
    """Does what the kernel asks for until the kernel is gone."""
    folder = Path(directory or tempfile.mkdtemp(prefix="dtq-"))
    folder.mkdir(parents=True, exist_ok=True)
    processes = Children()
    try:
        _reply({"value": str(folder)})
        for method, *arguments in _requests():
            try:
                _reply({"value": _obey(processes, method, *arguments)})
            except (OSError, KeyError) as error:
                _reply({"error": f"{method} {arguments[0]}: {error!r}"})
    finally:
        processes.close(GRACE, last="redis")
        if not directory:
            shutil.rmtree(folder)


def _obey(processes: Children, method: str, name: str, *arguments: Any) -> object:
    if method == "start":
        command, environment, output = arguments
        return processes.start(name, command, environment, Path(output) if output else None)
    return getattr(processes, method)(name, *arguments)


def _requests() -> Iterator[list[Any]]:
    """The kernel's requests, until it closes the pipe, or ends while a fork of it still holds the pipe."""
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    parent, text = os.getppid(), b""
    while not stopped and os.getppid() == parent:
        if select.select([0], [], [], LOOK)[0]:
            chunk = os.read(0, 65536)
            if not chunk:
                return
            *lines, text = (text + chunk).split(b"\n")
            yield from map(json.loads, lines)


def _reply(answer: dict[str, object]) -> None:
    try:
        os.write(1, json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:  # nobody is there to read it; the next request will not come
        return


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
