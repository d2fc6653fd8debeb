"""The `dtq` command, each time as a person runs it: a process of its own in a folder of its own."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM

from dtq import announcement
from dtq.config import Settings
from dtq.processes.program import dtq
from dtq.queue.broker import Broker
from tests.helpers import PATIENCE, alive, family, wait_until


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what says anything to dtq."""
    ours = re.compile(r"DTQ_|REDIS_|PORT$")
    return {name: value for name, value in os.environ.items() if not ours.match(name)} | more


def run(folder: Path, *arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; `stdin` is its input, other options are environment variables."""
    given, variables = options.pop("stdin", ""), environment(**options)
    return subprocess.run(
        dtq(*arguments), cwd=folder, env=variables, input=given, capture_output=True, text=True
    )


def said(folder: Path, *arguments: str, **options: str) -> str:
    """What a command that works prints."""
    done = run(folder, *arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class Program:
    """A command that runs meanwhile, in a process of its own. What it says goes to a file.

    Args:
        folder: its current folder. With nothing of this process's settings its home is there too.
        arguments: of `dtq`. The first one, the command, names the file.
        code: Python that takes the place of `dtq` and is given the same arguments.
        first: what the new process does before it begins.
        variables: of its environment.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        code: str = "",
        first: Callable[[], None] | None = None,
        **variables: str,
    ) -> None:
        self.folder, self.log = folder, folder / f"{arguments[0]}.log"
        self.home = folder / variables.get("DTQ_HOME", ".dtq")
        self.note = announcement.path(self.home)
        command = [sys.executable, "-c", code, *arguments] if code else dtq(*arguments)
        env = environment(**variables)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=output, stderr=output, preexec_fn=first
            )

    def url(self) -> str:
        """Where its gateway listens, as soon as it does."""
        return listening(self.home, self)

    def says(self, text: str) -> None:
        """Waits until its log has this text."""
        wait_until(lambda: text in self.log.read_text(), f"it says {text!r}", self.last_words)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = SIGTERM) -> None:
        """Ends it by a signal, and sees that nothing of it is left."""
        everybody = family(self.process.pid)
        self.signal(number)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        wait_until(lambda: not any(map(alive, everybody)), what="all that it started has ended")

    def close(self) -> None:
        """Ends it whatever it does."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE)

    def last_words(self) -> str:
        """What it said, once it has ended."""
        code = self.process.poll()
        return "" if code is None else f"it ended with {code}\n{self.log.read_text()}"


@contextmanager
def started(folder: Path, *arguments: str, **variables: str) -> Iterator[Program]:
    """Runs a command meanwhile; ends it as Ctrl-C does, and sees that it leaves nothing behind."""
    with closing(Program(folder, *arguments, **variables)) as program:
        yield program
        program.end(SIGINT)


def listening(home: Path, program: Program | None = None) -> str:
    """Where the gateway of this home listens, as soon as it does; what was started for it must not end."""
    in_vain = program.last_words if program else str
    return str(wait_until(lambda: announcement.find(home), f"a gateway listens for {home}", in_vain))


def workers(folder: Path) -> dict[str, int]:
    """The live workers of the system in this folder, and their process ids."""
    record = json.loads((folder / ".dtq" / "redis.json").read_text())
    with closing(Broker(record["url"], Settings(_env_file=None))) as broker:
        return {worker.id: worker.pid for worker in broker.workers()}


@contextmanager
def system(folder: Path, *arguments: str) -> Iterator[Path]:
    """`dtq up` in this folder, with all of its parts there."""
    with started(folder, "up", "--port", "0", "--workers", "2", *arguments) as up:
        up.url()
        wait_until(lambda: len(workers(folder)) == 2, what="the workers are there")
        yield folder


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], variables: dict[str, str]) -> None:
        self._unread = b""
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self._process = subprocess.Popen(
            dtq(*arguments), cwd=folder, env=variables, start_new_session=True, **streams
        )
        os.close(theirs)

    def read_until(self, mark: str) -> str:
        """What is shown next, up to `mark`."""
        end = mark.encode()
        while end not in self._unread:
            self._unread += os.read(self._ours, 65536)
        text, _, self._unread = self._unread.partition(end)
        return (text + end).decode()

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        self._process.send_signal(SIGINT)

    def exit_code(self) -> int:
        """Waits for the command's end."""
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


@contextmanager
def terminal(folder: Path, *arguments: str, **variables: str) -> Iterator[Terminal]:
    with closing(Terminal(folder, arguments, environment(TERM="xterm", **variables))) as terminal:
        yield terminal
