"""The system under test: Redis, a proxy before it, a gateway and workers. Who ends is started again."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from dtq.config import Settings
from dtq.connection import connect
from dtq.lab.cluster.supervisor import Supervisor
from dtq.lab.cluster.waiting import until
from dtq.processes.program import dtq
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer, free_port
from scripts.soaking.plan import LEASE
from scripts.soaking.proxy import Proxy

LOOK = 0.05  # seconds between two looks for processes that have ended
LAST_GRACE = 40.0  # seconds that each process gets at the end
ANSWER_TIMEOUT = 60.0  # seconds; Redis is kept busy for a while
RESULT_TTL = 10  # seconds, so short that results expire during a soak
RULES = {
    "DTQ_HEARTBEAT": f"{LEASE / 4}",
    "DTQ_LEASE": f"{LEASE}",
    "DTQ_RESULT_TTL": f"{RESULT_TTL}",
    "DTQ_BACKOFF_BASE": "0.2",
    "DTQ_BACKOFF_CAP": "2",
    "DTQ_DRAIN_TIMEOUT": "5",
}
SERVER = {"auto-aof-rewrite-percentage": "0"}  # the append-only file is the audit's witness
MISTAKES = ("Traceback", "by a mistake", "ends itself", "Fatal Python error", "Timeout (0:")


class End(NamedTuple):
    """The end of a process.

    Args:
        name: of the process.
        code: its exit code, or minus the signal that killed it.
        expected: whether a fault explains it.
    """

    name: str
    code: int
    expected: bool


class System:
    """Real processes on this machine, none of which outlives this one.

    Args:
        folder: for data and logs.
        workers: how many.

    Attributes:
        workers: their names.
        ends: all ends of processes that were noticed.
        supervisor, server, proxy: run the processes; Redis; what stands before it.
        broker: of the same queue. It goes to Redis directly, so that no fault but those of Redis hits it.
        redis: a client that does the same.
        url: of the gateway.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, [f"worker-{n}" for n in range(1, workers + 1)]
        self.ends: list[End] = []
        self._asked: dict[str, set[int]] = {}  # name -> exit codes that the signals which it got may lead to
        self._pids: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Starts everything; returns when the workers have registered."""
        rules: dict[str, Any] = {name.removeprefix("DTQ_").lower(): text for name, text in RULES.items()}
        settings = Settings(_env_file=None, **rules)
        with ExitStack() as stack:
            self.supervisor = stack.enter_context(closing(Supervisor(self.folder)))
            self.server = RedisServer(self.folder / "redis", 0, "always", self.supervisor, SERVER).start()
            self.proxy = stack.enter_context(Proxy(self.server.port))
            self.broker = stack.enter_context(closing(Broker(self.server.url, settings, ANSWER_TIMEOUT)))
            self.redis: Any = connect(self.server.url, settings, retries=1, timeout=ANSWER_TIMEOUT)
            stack.callback(self.redis.close)
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            self._commands = {"gateway": dtq("gateway", "--port", f"{port}")}
            self._commands |= {name: dtq("worker", "--name", name) for name in self.workers}
            for name in self._commands:
                self._start(name)
            until(lambda: len(self.broker.workers()) == len(self.workers), "all workers have registered")
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def keep(self, enough: threading.Event) -> None:
        """Starts processes again that have ended, until there is enough of it."""
        while not enough.wait(LOOK):
            for name in self._commands:
                with self._lock:
                    if (code := self.supervisor.exit_code(name)) is not None:
                        self._note(name, code)
                        self._start(name)

    def signal(self, name: str, number: int) -> int:
        """Sends a signal to the gateway or a worker; returns its process id."""
        with self._lock:
            self._asked[name] |= {-number, 0} if number == signal.SIGTERM else {-number}
            self.supervisor.signal(name, number)
            return self._pids[name]

    def replaced(self, name: str, pid: int) -> bool:
        """Whether the process was started again since it had this id."""
        return self._pids[name] != pid

    def stop(self) -> None:
        """Asks the gateway and the workers to end, for good."""
        for name in self._commands:
            self._asked[name] |= {-signal.SIGTERM, 0}
            self._note(name, self.supervisor.stop(name, LAST_GRACE))

    def mistakes(self) -> Iterator[str]:
        """The lines of the logs that no fault explains."""
        for name in self._commands:
            for line in (self.folder / f"{name}.log").read_text(errors="replace").splitlines():
                if any(word in line for word in MISTAKES):
                    yield f"{name} says: {line}"

    def _start(self, name: str) -> None:
        place = {"REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}/0", "DTQ_HOME": str(self.folder)}
        output = self.folder / f"{name}.log"
        self._pids[name] = self.supervisor.start(name, self._commands[name], RULES | place, output)
        # A task of type `crash` kills its worker.
        self._asked[name] = {-signal.SIGKILL} if name in self.workers else set()

    def _note(self, name: str, code: int) -> None:
        self.ends.append(End(name, code, code in self._asked[name]))
