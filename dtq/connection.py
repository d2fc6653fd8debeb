"""Connections to Redis: to one server, to the primary that Sentinels name, or to a Redis Cluster.

All keys of a queue lie in one slot of a Cluster, so one node has them all and `redis.Redis` suffices. Its
pool for Sentinels asks for the primary at each new connection; any node of a Cluster knows that of a slot.
`redis.RedisCluster` is made for keys in many slots: its pipelines refuse EVALSHA and TIME, which claims and
figures need, and it sends commands again by rules of its own.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, Protocol, Self, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import parse_cluster_slots
from redis.connection import SSLConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from dtq.config import Settings, addresses
from dtq.errors import ConfigError

TAGGED = re.compile(r"[^{]*\{[^}]+\}")  # a Cluster computes a key's slot from the text in its first braces
PROTOCOL = 2  # RESP2: all servers speak it; RESP3 begins with HELLO, a word that Redis 5 does not know
OLDEST = {"Redis": (5, 0), "Valkey": (7, 2)}  # servers that dtq works with; scripts/servers tries them
OLDEST_SERVERS = " or ".join(f"{name} {major}.{minor}" for name, (major, minor) in OLDEST.items())
FLAGS = (7, 0)  # the first version that lets a script which only finishes tasks run when memory is full
ASK_TIMEOUT = 0.5  # seconds that a Sentinel or a node may take to say where the primary is


class Pipeline(Protocol):
    """Commands that are sent together. Each returns the pipeline; `execute` returns all answers, in order."""

    def __getattr__(self, command: str) -> Callable[..., "Pipeline"]: ...
    def execute(self, raise_on_error: bool = True) -> list[Any]: ...
    def __enter__(self) -> "Pipeline": ...
    def __exit__(self, *_: object) -> None: ...


class Redis(Protocol):
    """What dtq asks of a server. It answers in bytes, where redis-py's own types allow text as well."""

    connection_pool: Any

    def get(self, name: str, /) -> bytes | None: ...
    def set(self, name: str, value: str, /, *, ex: int) -> object: ...
    def delete(self, *names: str) -> int: ...
    def mget(self, keys: Sequence[str], /) -> list[bytes | None]: ...
    def hget(self, name: str, key: str, /) -> bytes | None: ...
    def hvals(self, name: str, /) -> list[bytes]: ...
    def hlen(self, name: str, /) -> int: ...
    def llen(self, name: str, /) -> int: ...
    def lindex(self, name: str, index: int, /) -> bytes | None: ...
    def lrange(self, name: str, start: int, end: int, /) -> list[bytes]: ...
    def smembers(self, name: str, /) -> AbstractSet[bytes]: ...
    def sadd(self, name: str, *values: str) -> int: ...
    def zrange(self, name: str, start: int, end: int, /) -> list[bytes]: ...
    def zrevrange(self, name: str, start: int, end: int, /) -> list[bytes]: ...
    def zrangebyscore(self, name: str, low: str, high: float, start: int, num: int, /) -> list[bytes]: ...
    def bzpopmin(self, name: str, timeout: float, /) -> object: ...
    def eval(self, script: str, numkeys: int, /, *args: Any) -> Any: ...
    def evalsha(self, sha: str, numkeys: int, /, *args: Any) -> Any: ...
    def pipeline(self, transaction: bool = True) -> Pipeline: ...
    def transaction(self, change: Callable[[Any], Any], *watched: str, value_from_callable: bool) -> Any: ...
    def scan_iter(self, *, count: int) -> Iterator[bytes]: ...
    def info(self, section: str = ..., /) -> dict[str, Any]: ...
    def config_get(self, name: str, /) -> dict[str, str]: ...
    def client_list(self) -> list[dict[str, str]]: ...
    def execute_command(self, *words: str) -> Any: ...
    def time(self) -> tuple[int, int]: ...
    def ping(self) -> bool: ...
    def close(self) -> None: ...


class Server(NamedTuple):
    """Which server it is: Redis or Valkey, and its version."""

    name: str
    version: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """As the server's INFO says. Valkey has a version of its own and, for old clients, one of Redis."""
        valkey = info.get("valkey_version")
        return cls("Valkey", valkey) if valkey else cls("Redis", info["redis_version"])

    @property
    def too_old(self) -> bool:
        return self._numbers < OLDEST[self.name]

    @property
    def finishes_when_full(self) -> bool:
        """Whether tasks can be claimed and finished while its memory is full."""
        return self._numbers >= FLAGS

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", self.version)[:2]))

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def connect(
    url: str, settings: Settings, *, retries: int, timeout: float | None = None, **options: Any
) -> Redis:
    """A client of the server that has the queue. It connects when its first command is sent.

    Args:
        url: the server, or any node of the Cluster. Sentinels know the host; of the url then only user,
            password, database and TLS count, and TLS counts for the Sentinels too. Its query may set options
            of redis-py, as in `rediss://user:password@host:6380/0?ssl_ca_certs=/etc/ca.pem`.
        settings: name the Sentinels or the Cluster, if any.
        retries: how often a command is sent again if its reply was lost.
        timeout: seconds to connect, and to wait for a reply; by default redis-py's.
        options: more options of redis-py.

    Raises:
        ConfigError: the settings contradict each other.
    """
    given = {"protocol": PROTOCOL} | options | {"retry": Retry(NoBackoff(), retries)}
    if timeout:
        given |= {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    if settings.redis_sentinels or settings.redis_cluster:
        return _follow(settings, given | cast(Any, parse_url)(url))
    return cast(Redis, redis.Redis.from_url(url, **given))


def _follow(settings: Settings, given: dict[str, Any]) -> Redis:
    """A client that asks Sentinels or nodes for the primary and connects to it with the options `given`."""
    if "path" in given:
        raise ConfigError("Sentinels and a Cluster are not on a unix socket: REDIS_URL must be redis://…")
    host, port = given.pop("host", "localhost"), given.pop("port", 6379)
    tls = given.pop("connection_class", None) is SSLConnection
    asking = {name: value for name, value in given.items() if name.startswith("ssl_")} | {"ssl": tls}
    asking |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), ASK_TIMEOUT)
    asking |= {"protocol": PROTOCOL, "retry": Retry(NoBackoff(), 0)}
    if settings.redis_cluster:
        login = {name: given.get(name) for name in ("username", "password")}
        name, guide = _slot(settings), cast(Any, _Nodes)((host, port), asking | login)
    else:
        login = {"password": settings.sentinel_password and settings.sentinel_password.get_secret_value()}
        where = addresses(settings.redis_sentinels or "")
        name, guide = settings.redis_service, cast(Any, _Sentinels)(where, sentinel_kwargs=asking | login)
    kind = _SecureFollower if tls else _Follower
    pool = cast(Any, SentinelConnectionPool)(name, guide, connection_class=kind, **given)
    return cast(Redis, redis.Redis.from_pool(pool))


def _slot(settings: Settings) -> str:
    if settings.redis_sentinels:
        raise ConfigError("DTQ_REDIS_SENTINELS and DTQ_REDIS_CLUSTER exclude each other: set one of them.")
    if not TAGGED.match(settings.key_prefix):
        raise ConfigError(
            f"DTQ_KEY_PREFIX={settings.key_prefix!r} would spread the queue over the Redis Cluster: put a "
            "name in braces, as in {team-a}:, so that all its keys lie in one slot."
        )
    return str(key_slot(settings.key_prefix.encode()))


class _Sentinels(Sentinel):
    """Asks one Sentinel after the other, and closes the connections."""

    def discover_master(self, service_name: str) -> Any:
        try:
            return cast(Any, super()).discover_master(service_name)
        except MasterNotFoundError:  # its text lists all that redis-py knows of each Sentinel
            said = f"No Sentinel that answers us knows a running primary called {service_name!r}"
            raise MasterNotFoundError(said) from None
        finally:
            for sentinel in self.sentinels:
                sentinel.connection_pool.disconnect(inuse_connections=False)  # another thread may be asking


class _Nodes:
    """The nodes of a Cluster: they know the primary of a slot, as Sentinels know the primary of a service."""

    def __init__(self, seed: tuple[str, int], asking: dict[str, Any]) -> None:
        self._seed, self._asking = seed, asking
        self._known = [seed]

    def discover_master(self, slot: str) -> tuple[str, int]:
        """Asks the last primary first: a node that gave its slot away is the first to know where it is."""
        failures = []
        for host, port in self._known:
            try:
                ranges = self._ask(host, port)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                failures.append(str(error))
                continue
            primaries: list[tuple[str, int]] = [
                nodes["primary"] for (first, last), nodes in ranges.items() if first <= int(slot) <= last
            ]
            if primaries:
                others = [
                    node for nodes in ranges.values() for node in (nodes["primary"], *nodes["replicas"])
                ]
                self._known = list(dict.fromkeys([*primaries, *others, self._seed]))
                return primaries[0]
        raise MasterNotFoundError(f"No node of the cluster has slot {slot}. {' '.join(failures)}".strip())

    def _ask(self, host: str, port: int) -> dict[tuple[int, int], dict[str, Any]]:
        with redis.Redis(host, port, **self._asking) as node:
            try:
                return parse_cluster_slots(node.execute_command("CLUSTER SLOTS"), current_host=host)
            except redis.ResponseError as error:
                raise ConfigError(f"DTQ_REDIS_CLUSTER is set, but {host}:{port} says: {error}.") from None


class _Follower(SentinelManagedConnection):
    """A connection that closes when the node refuses the slot: the next one asks where the slot is now."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except (AskError, ClusterDownError) as error:  # MOVED is an AskError too; nothing was executed
            cast(Any, self).disconnect()
            raise redis.ConnectionError(f"The cluster is changing: {error}") from None


class _SecureFollower(_Follower, SentinelManagedSSLConnection):
    pass
