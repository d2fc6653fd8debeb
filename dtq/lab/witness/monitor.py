"""The commands that Redis gets during an experiment, as a frame, from its `MONITOR`."""

import hashlib
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
import redis

from dtq.queue.broker import Broker

# time [database client] "command" "argument" ...
LINE = re.compile(r"(\d+\.\d+) \[\d+ (.*?)\] (.*)", re.DOTALL)
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
HANDSHAKE = ("HELLO", "CLIENT", "AUTH", "SELECT", "PING", "ECHO")  # the connections' own business
COLUMNS = ["at", "where", "client", "script", "command", "keys", "arguments"]
SHOWN = 60  # characters of an argument


class Commands:
    """The commands that were seen until now.

    Args:
        positions: command -> positions of its first and its last key, and the step between keys.
        scripts: SHA-1 -> name of a Lua script.
    """

    def __init__(self, positions: Mapping[str, tuple[int, int, int]], scripts: Mapping[str, str]) -> None:
        self.names: dict[str, str] = {}  # client address -> the name it gave itself
        self._positions, self._scripts = positions, scripts
        self._rows: list[tuple[object, ...]] = []
        self._caller = self._script = ""

    @property
    def frame(self) -> pd.DataFrame:
        """One row per command: ms (since the first one), where (`client`, or `lua` inside a script), client
        (its name, or else its address), script (the one called, or the one that ran the command), command,
        keys and arguments (what is not a key; long ones shortened).
        """
        frame = pd.DataFrame(self._rows, columns=COLUMNS)
        frame["client"] = frame["client"].replace(self.names)
        frame["at"] = (1000 * (frame["at"] - frame["at"].min())).astype(float).round(2)
        return frame.rename(columns={"at": "ms"})

    def add(self, line: str) -> None:
        """Adds a line of MONITOR."""
        found = LINE.fullmatch(line)
        if not found:
            raise ValueError(f"MONITOR said {line!r}, which is not a command.")
        words = [_plain(word) for word in QUOTED.findall(found[3])]
        command, in_lua = words[0].upper(), found[2] == "lua"
        if command in HANDSHAKE:
            return
        if not in_lua:  # what a script does follows its call, since Redis does one thing at a time
            self._caller = found[2]
            self._script = self._script_of(command, words)
        keys, rest = self._split(command, words)
        where = "lua" if in_lua else "client"
        shown = " ".join(map(_shortened, rest))
        self._rows.append(
            (float(found[1]), where, self._caller, self._script, command, " ".join(keys), shown)
        )

    def _script_of(self, command: str, words: list[str]) -> str:
        if command not in ("EVAL", "EVALSHA"):
            return ""
        sha = words[1] if command == "EVALSHA" else hashlib.sha1(words[1].encode()).hexdigest()
        return self._scripts.get(sha, sha[:8])

    def _split(self, command: str, words: list[str]) -> tuple[list[str], list[str]]:
        """The keys of a command, and its other arguments."""
        if command in ("EVAL", "EVALSHA"):
            end = 3 + int(words[2])
            return words[3:end], words[end:]
        first, last, step = self._positions.get(command, (0, 0, 0))
        if not first:
            return [], words[1:]
        keys = range(first, len(words) + last + 1 if last < 0 else last + 1, step)
        return [words[i] for i in keys], [word for i, word in enumerate(words[1:], 1) if i not in keys]


@contextmanager
def monitor(source: Any) -> Iterator[Commands]:
    """Watches all commands that Redis gets while the block runs. It slows a server down: not for production.

        with monitor(cluster) as commands:
            ...
        commands.frame

    Args:
        source: a `LocalCluster` or a `Broker`, whose scripts are then shown by name, or a redis-py client.

    Raises:
        redis.ConnectionError: at the end of the block, if the server went away meanwhile.
    """
    broker = getattr(source, "broker", source)
    client = getattr(broker, "redis", broker)
    scripts = broker.scripts.by_sha() if isinstance(broker, Broker) else {}
    commands, mark, failures = Commands(_key_positions(client), scripts), uuid.uuid4().hex, list[Exception]()

    def read(connection: Any) -> None:
        try:
            while mark not in (line := connection.read_response().decode()):
                commands.add(line)
        except (redis.RedisError, ValueError) as error:
            failures.append(error)

    with _own_connection(client) as own, own.monitor() as stream:
        thread = threading.Thread(target=read, args=(stream.connection,), name="monitor", daemon=True)
        thread.start()
        try:
            yield commands
        finally:
            commands.names |= {peer["addr"]: peer["name"] for peer in client.client_list() if peer["name"]}
            # The thread ends when it reads the mark, which comes after all earlier commands.
            client.execute_command("ECHO", mark)
            thread.join()
    if failures:
        raise failures[0]


def _own_connection(client: Any) -> Any:
    """A client on a connection of its own, which waits for the next line without a time limit."""
    pool = client.connection_pool
    options = pool.connection_kwargs | {"socket_timeout": None, "decode_responses": False}
    own = redis.ConnectionPool(connection_class=pool.connection_class, **options)
    return redis.Redis.from_pool(own)


def _key_positions(client: Any) -> dict[str, tuple[int, int, int]]:
    return {
        name.upper(): (about["first_key_pos"], about["last_key_pos"], about["step_count"])
        for name, about in client.command().items()
    }


def _plain(word: str) -> str:
    """An argument without the escapes that MONITOR adds."""
    return word.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")


def _shortened(argument: str) -> str:
    return argument if len(argument) <= SHOWN else argument[: SHOWN - 1] + "…"
