"""`dtq redis`: Redis commands typed by hand, answered as `redis-cli` answers them (https://valkey.io/topics/cli/)."""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from dtq.config import Settings
from dtq.connection import connect
from dtq.errors import NoServerError

STREAMS = ("MONITOR", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE")


class RedisPrompt:
    """One connection to a Redis server, for a person.

    Args:
        url: the server, as `redis://host:port/0`.
        readable: whether replies are numbered and marked with their type, as in a terminal; otherwise they
            come bare, one item a line, for other programs.
        settings: name the Sentinels or the Cluster, if any.
    """

    def __init__(self, url: str, readable: bool = True, settings: Settings | None = None) -> None:
        self._show = readable_reply if readable else bare_reply
        # A person may look at a stream for hours.
        client = connect(url, settings or Settings(), retries=0, socket_timeout=None)
        try:
            self._connection: Any = client.connection_pool.get_connection()
        except redis.RedisError as error:
            raise NoServerError(f"Redis does not answer: {error}") from None
        where = dict(self._connection.repr_pieces())
        self._name = where.get("path") or f"{where['host']}:{where['port']}"

    def run(self, command: Sequence[str]) -> bool:
        """Runs one command and prints its reply; MONITOR and SUBSCRIBE print until Ctrl-C. Returns whether
        the server accepted it.
        """
        endless = command[0].upper() in STREAMS
        try:
            self._connection.send_command(*command)
            print(self._show(self._connection.read_response()), flush=True)
            while endless:
                print(self._show(self._connection.read_response()), flush=True)
        except KeyboardInterrupt:
            self._connection.disconnect()  # the rest of the reply is still on its way
            return endless
        except redis.RedisError as error:
            print(readable_reply(error), file=sys.stderr)
            return False
        return True

    def converse(self) -> None:
        """Reads and runs commands until `exit`, `quit` or Ctrl-D."""
        import readline  # noqa: F401  gives `input` its editing keys and its history

        while True:
            try:
                command = shlex.split(input(f"{self._name}> "))
            except (EOFError, KeyboardInterrupt):
                print()
                return
            except ValueError as error:  # a quote that was not closed
                print(f"(error) {error}", file=sys.stderr)
                continue
            if command and command[0].lower() in ("exit", "quit"):
                return
            if command:
                self.run(command)


def readable_reply(reply: Any, indent: str = "") -> str:
    """A reply as a terminal shows it: lists numbered, and what is not text marked with its type."""
    match reply:
        case None:
            return "(nil)"
        case int():
            return f"(integer) {reply}"
        case ResponseError(status_code=str(code)):
            return f"(error) {code} {reply}"
        case Exception():
            return f"(error) {reply}"
        case []:
            return "(empty array)"
        case list():
            width = len(str(len(reply)))
            deeper = indent + " " * (width + 2)
            items = [f"{n:>{width}}) {readable_reply(item, deeper)}" for n, item in enumerate(reply, 1)]
            return f"\n{indent}".join(items)
        case _:
            return _text(reply)


def bare_reply(reply: Any) -> str:
    """A reply for other programs: one item a line and nothing else."""
    if isinstance(reply, list):
        return "\n".join(map(bare_reply, reply))
    return "" if reply is None else _text(reply)


def _text(reply: Any) -> str:
    return reply.decode(errors="backslashreplace") if isinstance(reply, bytes) else str(reply)
