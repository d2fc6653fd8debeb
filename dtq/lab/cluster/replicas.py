"""Several Redis servers in place of one: a primary, replicas that copy it, and Sentinels that watch them.

When the primary falls silent, the Sentinels agree on that, choose one among them to act, and that one makes a
replica the new primary: https://valkey.io/topics/sentinel/.
"""

import re
import shlex
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dtq.connection import PROTOCOL
from dtq.errors import DtqError
from dtq.lab.cluster.supervisor import Supervisor
from dtq.lab.cluster.waiting import until
from dtq.processes.children import Children
from dtq.redis_server import RedisServer, Runner, find_program

if TYPE_CHECKING:
    import pandas as pd

SERVICE = "dtq"  # the primary's name among the Sentinels
SENTINELS = 3
DOWN_AFTER = 1.0  # seconds of silence after which a Sentinel takes a server for dead
FAILOVER_TIMEOUT = 2.0  # seconds; a failover that is stuck is tried again after twice as long
# Periods of what a Sentinel repeats, in milliseconds. By default (1,000, 10,000, 2,000) the first PING comes
# as late as `DOWN_AFTER`, and a Sentinel takes a new primary for dead before it has asked it.
PERIODS = ("PING-PERIOD", 400, "INFO-PERIOD", 1000, "PUBLISH-PERIOD", 500)
EVENT = re.compile(r"^\d+:X (\d+ \w+ \d+ [\d:.]+) \S ([+-][a-z-]+) (.*)$", re.MULTILINE)


class Sentinel(RedisServer):
    """The server's program in another role. It writes what it learns into its configuration file.

    Args:
        primary: the server that it watches.
        directory, processes, name: as for every server.
    """

    def __init__(self, primary: RedisServer, directory: Path, processes: Runner, name: str) -> None:
        super().__init__(directory, processes=processes, name=name)
        self._primary = primary

    def _command(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {shlex.quote(str(self.directory.resolve()))}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} {SENTINELS // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER * 1000:.0f}",
            f"sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT * 1000:.0f}",
        ]
        path.write_text("\n".join([*lines, ""]))
        return [find_program(), str(path), "--sentinel"]


class ReplicatedRedis:
    """A primary, its replicas and three Sentinels: redis-1, redis-2, …, sentinel-1, sentinel-2, …

    Args:
        directory: where each gets a folder of its own, for data and log.
        replicas: how many.
        appendfsync: as for `RedisServer`.
        processes: runs the servers.
    """

    down_after = DOWN_AFTER

    def __init__(
        self, directory: Path, replicas: int, appendfsync: str, processes: Supervisor | Children
    ) -> None:
        names = [f"redis-{n}" for n in range(1, replicas + 2)]
        self._processes = processes
        self._servers = {
            name: RedisServer(directory / name, 0, appendfsync, processes, name=name) for name in names
        }
        self._sentinels = {
            name: Sentinel(self._servers["redis-1"], directory / name, processes, name)
            for name in (f"sentinel-{n}" for n in range(1, SENTINELS + 1))
        }

    def start(self) -> Self:
        """Starts the servers that do not run. The first call returns when all know each other."""
        first, *others = self._servers.values()
        if first.port:
            for name in set(self._servers).difference(self._alive(self._servers)):
                self._servers[name].start()
            return self
        first.start()
        for replica in others:
            _start_replica(replica, first)
        for sentinel in self._sentinels.values():
            sentinel.start()
            with suppress(redis.ResponseError):  # older than Redis 7: the defaults stay
                self.ask(sentinel.name, "SENTINEL", "DEBUG", *PERIODS)
        for name in self._sentinels:
            until(partial(self._knows_all, name), f"{name} knows all the others")
        return self

    @property
    def name(self) -> str:
        """The primary's name, as the Sentinels see it."""
        _, port = self._ask_sentinels("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(name for name, server in self._servers.items() if server.port == int(port))

    @property
    def url(self) -> str:
        """The primary's address."""
        return self._servers[self.name].url

    @property
    def replicas(self) -> list[str]:
        """The names of the other servers that run."""
        primary = self.name
        return [name for name in self._alive(self._servers) if name != primary]

    @property
    def sentinels(self) -> str:
        """The addresses of the Sentinels, in the form of `DTQ_REDIS_SENTINELS`."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels.values())

    def ask(self, name: str, *command: str | int) -> Any:
        """The answer of a server or a Sentinel to a command, such as `ask("redis-2", "ROLE")`."""
        url = (self._servers | self._sentinels)[name].url
        options: Any = {"protocol": PROTOCOL, "retry": Retry(NoBackoff(), 0), "socket_timeout": 5}
        options |= {"decode_responses": True}
        with redis.Redis.from_url(url, **options) as client:
            return client.execute_command(*command)

    def cut(self) -> None:
        """Breaks the links between primary and replicas. All live on, but no replica gets a write any more:
        it tries to reconnect with a wrong password.
        """
        primary = self.name
        for replica in self.replicas:
            self.ask(replica, "CONFIG", "SET", "masterauth", "wrong")
        self.ask(primary, "CLIENT", "KILL", "TYPE", "replica")
        until(lambda: not self.linked(), "no replica is linked")

    def mend(self) -> None:
        """Lets the replicas reconnect. If the primary lives, returns when they have all its data."""
        for name in self._alive(self._servers):
            self.ask(name, "CONFIG", "SET", "masterauth", "")
        if self.name in self._alive(self._servers):
            until(lambda: self.linked() == self.replicas, "all replicas are linked")

    def linked(self) -> list[str]:
        """The replicas that have all the primary's data and get each of its writes."""
        ports = [int(port) for _, port, _ in self.ask(self.name, "ROLE")[2]]
        known = [name for name, server in self._servers.items() if server.port in ports]
        return [name for name in known if "connected" in self.ask(name, "ROLE")]

    def quorum(self) -> str:
        """A Sentinel's answer to the question whether enough of them run for a failover."""
        try:
            return str(self.ask(self._alive(self._sentinels)[0], "SENTINEL", "CKQUORUM", SERVICE))
        except redis.ResponseError as error:
            return str(error)

    def kill_sentinel(self) -> str:
        """Ends a Sentinel at once (SIGKILL). Returns its name when the others have noticed."""
        name, *others = self._alive(self._sentinels)
        if not others:
            raise DtqError("One Sentinel is left: nobody would notice its death.")
        self._processes.signal(name, signal.SIGKILL)
        until(lambda: name not in self._alive(self._sentinels), f"{name} is dead")
        until(lambda: f" {len(others)} usable" in self.quorum(), f"the other Sentinels miss {name}")
        return name

    def events(self, since: datetime) -> "pd.DataFrame":
        """The events that the Sentinels have logged since then: seconds, sentinel, event, about."""
        import pandas as pd

        rows = [
            ((at - since).total_seconds(), name, event, about)
            for name, sentinel in self._sentinels.items()
            for at, event, about in _events((sentinel.directory / "redis.log").read_text())
            if at >= since
        ]
        frame = pd.DataFrame(rows, columns=["seconds", "sentinel", "event", "about"])
        return frame.sort_values("seconds", ignore_index=True)

    def _alive(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._processes.exit_code(name) is None]

    def _ask_sentinels(self, *command: str) -> Any:
        for name in self._alive(self._sentinels):
            with suppress(redis.RedisError):
                return self.ask(name, *command)
        raise DtqError("No Sentinel answers.")

    def _knows_all(self, sentinel: str) -> bool:
        """Whether it has met the other Sentinels, and the replicas."""
        replicas = self.ask(sentinel, "SENTINEL", "REPLICAS", SERVICE)
        others = self.ask(sentinel, "SENTINEL", "SENTINELS", SERVICE)
        return (len(replicas), len(others)) == (len(self._servers) - 1, SENTINELS - 1)


def _start_replica(replica: RedisServer, primary: RedisServer) -> None:
    """Starts a replica; returns when it has all the primary's data. Only then it begins its append-only file,
    since the copy would replace an earlier one. Later the Sentinels decide which primary it follows.
    """
    replica.options = {"replicaof": f"127.0.0.1 {primary.port}", "appendonly": "no"}
    replica.start()
    replica.options = {}
    with redis.Redis.from_url(replica.url, protocol=PROTOCOL) as client:
        info: Any = client.info
        until(lambda: info("replication")["master_link_status"] == "up", f"{replica.name} is linked")
        client.config_set("appendonly", "yes")
        until(lambda: not info("persistence")["aof_rewrite_in_progress"], f"{replica.name} writes its file")


def _events(text: str) -> Iterator[tuple[datetime, str, str]]:
    for found in EVENT.finditer(text):
        at = datetime.strptime(found[1], "%d %b %Y %H:%M:%S.%f").astimezone(UTC)  # it logs in local time
        yield at, found[2], found[3]
