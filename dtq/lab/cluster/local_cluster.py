"""A whole queue on this machine, to break: Redis, a gateway and workers, each a real process."""

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from dtq import announcement
from dtq.client import Client
from dtq.config import Settings
from dtq.connection import connect
from dtq.errors import DtqError
from dtq.lab.cluster.replicas import ReplicatedRedis
from dtq.lab.cluster.supervisor import Supervisor
from dtq.lab.cluster.waiting import PATIENCE, until
from dtq.lab.witness.ledger import claimed
from dtq.processes.program import dtq
from dtq.queue.broker import Broker
from dtq.queue.task import Status
from dtq.redis_server import RedisServer

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class LocalCluster:
    """Starts a Redis server, a gateway and workers, and ends them all, however the notebook ends.

    A second cluster in the same kernel stops the first, so that its cell can be run again.

    Args:
        workers: how many; they are called worker-1, worker-2, …
        replicas: how many replicas of Redis. With any, three Sentinels watch them: see `ReplicatedRedis`.
        heartbeat: seconds between signs of life.
        lease: seconds until a silent worker's tasks go to others.
        tasks: module or .py file with more task types for the workers.
        env: settings for gateway and workers, such as `{"DTQ_HIGH_BURST": "0"}`.
        directory: for logs and data; by default a temporary one that is deleted at the end.
        port: the gateway's port; 0 takes a free one.
        appendfsync: when Redis writes to the disk: "everysec", or "always" to lose nothing in a power cut.
    """

    _current: ClassVar["LocalCluster | None"] = None

    def __init__(
        self,
        workers: int = 3,
        *,
        replicas: int = 0,
        heartbeat: float = 0.5,
        lease: float = 1.5,
        tasks: str | None = None,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
        port: int = 0,
        appendfsync: str = "everysec",
    ) -> None:
        if LocalCluster._current:
            LocalCluster._current.stop()
        self.url = ""
        self.workers: list[str] = []
        self._tasks = tasks
        self._started = {"worker": 0, "naive": 0}
        self._environment = {"DTQ_HEARTBEAT": f"{heartbeat}", "DTQ_LEASE": f"{lease}", **(env or {})}
        self.settings = _settings(self._environment)
        self._supervisor = Supervisor(directory)
        LocalCluster._current = self
        try:
            self._start(workers, replicas, port, appendfsync)
        except BaseException:
            self.stop()
            raise

    def _start(self, workers: int, replicas: int, port: int, appendfsync: str) -> None:
        home = self.directory = self._supervisor.directory
        self.servers = _servers(home, replicas, appendfsync, self._supervisor)
        self._environment |= {"REDIS_URL": self.redis_url, "DTQ_HOME": str(home)}
        if isinstance(self.servers, ReplicatedRedis):
            self._environment["DTQ_REDIS_SENTINELS"] = self.servers.sentinels
            self.settings = _settings(self._environment)
        self.broker = Broker(self.redis_url, self.settings)
        self.redis: Any = connect(self.redis_url, self.settings, retries=1, decode_responses=True)
        self._run("gateway", dtq("gateway", "--port", str(port)))
        self.add_workers(workers)
        self.url = self._started_up("gateway", lambda: announcement.find(home))
        self.client = Client(self.url, api_key="")  # DTQ_API_KEY belongs to another queue

    @property
    def redis_url(self) -> str:
        """The Redis server, or the primary if it has replicas, as `redis://127.0.0.1:port/0`."""
        return self.servers.url

    # ---------------------------------------------------------------- more, and fewer

    def add_workers(self, n: int = 1, *, tasks: str | None = None, program: str | None = None) -> list[str]:
        """Starts workers; returns their names when they have registered.

        Args:
            n: how many.
            tasks: module or .py file with their task types, instead of the cluster's.
            program: .py file that runs a worker of your own. Its arguments are the name and modules to load.
        """
        modules = [module for module in (tasks or self._tasks, "dtq.lab.witness.ledger_hook") if module]
        options = [word for module in modules for word in ("--tasks", module)]
        names = [self._name("worker") for _ in range(n)]
        for name in names:
            ours = dtq("worker", "--name", name, *options)
            self._run(name, [sys.executable, program, name, *modules] if program else ours)
            self.workers.append(name)
        for name in names:
            self._started_up(name, partial(self._is_registered, name))
        return names

    def add_naive_workers(self, n: int = 1) -> list[str]:
        """Starts workers of the naive queue; returns their names when they are connected."""
        names = [self._name("naive") for _ in range(n)]
        for name in names:
            self._run(name, [sys.executable, "-m", "dtq.lab.cluster.naive", name])
            self.workers.append(name)
        for name in names:
            self._started_up(name, partial(self._is_connected, name))
        return names

    def kill_worker(self, name: str | None = None) -> str:
        """Ends a worker at once (SIGKILL); by default one with a task in its hands. Returns its name."""
        name = name or self.busy_worker()
        self._supervisor.signal(name, signal.SIGKILL)
        until(lambda: self._has_ended(name), f"{name} is dead")
        self.workers.remove(name)
        return name

    def stop_worker(self, name: str | None = None) -> str:
        """Asks a worker to end, and waits until it has; by default the newest. Returns its name."""
        name = name or self._newest()
        self._supervisor.signal(name, signal.SIGTERM)
        patience = self.settings.drain_timeout + PATIENCE
        until(lambda: self._has_ended(name), f"{name} has ended", patience)
        self.workers.remove(name)
        return name

    def pause_worker(self, name: str | None = None) -> str:
        """Pauses a worker (SIGSTOP); by default one with a task in its hands. Returns its name."""
        name = name or self.busy_worker()
        self._supervisor.signal(name, signal.SIGSTOP)
        return name

    def resume_worker(self, name: str) -> str:
        """Lets a paused worker go on (SIGCONT). Returns its name."""
        self._supervisor.signal(name, signal.SIGCONT)
        return name

    def busy_worker(self) -> str:
        """Waits until a worker has a task in its hands; returns its name."""

        def busy() -> str | None:
            running = self.broker.tasks(Status.PROCESSING)
            return next((task.worker_id for task in running if task.worker_id in self.workers), None)

        return until(busy, "a worker has a task in its hands. Submit some tasks first.", PATIENCE / 4)

    def kill_redis(self) -> str:
        """Ends the Redis server at once, as `kill -9` does; if it has replicas, the primary. Its append-only
        file stays. Returns its name.
        """
        name = self.servers.name
        self._supervisor.signal(name, signal.SIGKILL)
        until(lambda: self._has_ended(name), f"{name} is dead")
        return name

    def restart_redis(self) -> None:
        """Starts the Redis server again, at the same address, with the data in its append-only file."""
        self.servers.start()

    def wait_idle(self, timeout: float = PATIENCE) -> None:
        """Waits until no task runs or waits to be started.

        Raises:
            DtqError: some do after `timeout` seconds.
        """

        def idle() -> bool:
            counts = self.broker.counts()
            return not (counts["pending"] or counts["processing"] or counts["delayed"])

        until(idle, "no task waits or runs", timeout)

    # ---------------------------------------------------------------- what it shows

    def logs(self, name: str) -> str:
        """The log of a process: `worker-1`, `gateway`, `redis`."""
        server = self.directory / name / "redis.log"
        path = server if server.exists() else self.directory / f"{name}.log"
        return path.read_text(errors="replace")

    def executions(self) -> Counter[str]:
        """How often each task was started, by the logs of all workers, which keep what Redis has lost."""
        return claimed(self.logs(f"worker-{n}") for n in range(1, self._started["worker"] + 1))

    def tasks_frame(self, ids: Iterable[str]) -> "pd.DataFrame":
        """A row per attempt of these tasks, durations in seconds: see `frames.attempts`."""
        from dtq.lab.witness import frames

        return frames.attempts(self.broker.get_many(list(ids)))

    def __repr__(self) -> str:
        return f"LocalCluster: {self.url}, {self.redis_url}, workers: {', '.join(self.workers) or 'none'}"

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """Ends every process. May be called again."""
        for resource in (getattr(self, name, None) for name in ("client", "broker", "redis")):
            if resource:
                resource.close()
        self._supervisor.close()
        self.workers.clear()
        if LocalCluster._current is self:
            LocalCluster._current = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---------------------------------------------------------------- how

    def _run(self, name: str, command: list[str]) -> None:
        self._supervisor.start(name, command, self._environment, self.directory / f"{name}.log")

    def _name(self, kind: str) -> str:
        self._started[kind] += 1
        return f"{kind}-{self._started[kind]}"

    def _newest(self) -> str:
        if not self.workers:
            raise DtqError("There is no worker to stop: add_workers() starts some.")
        return self.workers[-1]

    def _is_registered(self, name: str) -> bool:
        return name in [worker.id for worker in self.broker.workers()]

    def _is_connected(self, name: str) -> bool:
        return name in [peer["name"] for peer in self.redis.client_list()]

    def _started_up(self, name: str, seen: Callable[[], T | None]) -> T:
        """Waits until `seen` returns something true of a new process, and returns that.

        Raises:
            DtqError: it ended instead, or takes too long; with the end of its log.
        """
        end = time.monotonic() + PATIENCE
        while not (answer := seen()):
            if self._has_ended(name) or time.monotonic() > end:
                raise DtqError(f"{name} did not start: {self.logs(name).strip()[-500:]}")
            time.sleep(0.01)
        return answer

    def _has_ended(self, name: str) -> bool:
        return self._supervisor.exit_code(name) is not None


def _servers(
    home: Path, replicas: int, appendfsync: str, supervisor: Supervisor
) -> RedisServer | ReplicatedRedis:
    if replicas:
        return ReplicatedRedis(home, replicas, appendfsync, supervisor).start()
    return RedisServer(home / "redis", 0, appendfsync, supervisor).start()


def _settings(environment: Mapping[str, str]) -> Settings:
    """The settings that a process with this environment has."""
    given: dict[str, Any] = {name.removeprefix("DTQ_").lower(): text for name, text in environment.items()}
    return Settings(_env_file=None, **given)
