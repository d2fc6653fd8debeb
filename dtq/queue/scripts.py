"""The Lua scripts: each transition of the queue is one script, so that Redis does it whole or not at all."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError

from dtq.config import Settings
from dtq.connection import OLDEST_SERVERS, Redis, Server
from dtq.errors import NoServerError
from dtq.queue import bounds
from dtq.queue.keys import Keys

LUA = files("dtq.queue") / "lua"
REPLICAS_TIMEOUT = 500  # milliseconds that replicas may take to confirm a write
SETTINGS_IN_LUA = (
    "lease", "max_crashes", "high_burst", "backoff_base", "backoff_cap", "result_ttl", "dead_letter_ttl",
    "dead_letter_max",
)  # fmt: skip
TRANSITIONS = (
    "submit", "claim", "complete", "fail", "release", "heartbeat", "deregister", "maintain", "cancel",
    "requeue", "discard", "set_aside",
)  # fmt: skip


class Script(NamedTuple):
    """A script's text, and its SHA-1, by which a server finds a script that it has loaded."""

    text: str
    sha: str


class Scripts:
    """Runs the transitions of one queue by name.

    Args:
        client: sends a command again if its reply was lost.
        once: sends each command once.
        keys, settings: the names and the rules that every script begins with.
    """

    def __init__(self, client: Redis, once: Redis, keys: Keys, settings: Settings) -> None:
        self._client, self._once, self._keys, self.settings = client, once, keys, settings

    def __getitem__(self, transition: str) -> Script:
        """The script of a transition. Every run of a script begins here."""
        return self._scripts[transition]

    def by_sha(self) -> dict[str, str]:
        """SHA-1 -> transition."""
        return {script.sha: name for name, script in self._scripts.items()}

    def run(self, transition: str, *args: Any) -> Any:
        """Runs a transition. Returns what the script returns."""
        script = self[transition]
        try:
            return self._client.evalsha(script.sha, 1, self._keys.pending, *args)
        except NoScriptError:  # the server is new or was restarted
            return self._client.eval(script.text, 1, self._keys.pending, *args)

    def run_replicated(self, transition: str, *args: Any) -> Any:
        """Like `run`, but waits until replicas have the write too. All commands use one connection: after a
        failover, a second connection might lead to another primary, which lacks the write.

        Raises:
            redis.ResponseError: too few replicas confirmed the write in time.
        """
        wanted = self.settings.wait_replicas
        with self._client.pipeline(transaction=False) as pipe:
            pipe.eval(self[transition].text, 1, self._keys.pending, *args)
            # WAIT waits for this client's last write, but a repeated submission writes nothing.
            pipe.hincrby(self._keys.counters, "submitted", 0)
            pipe.wait(wanted, REPLICAS_TIMEOUT)
            answer, _, reached = pipe.execute()
        if reached < wanted:
            raise redis.ResponseError(f"NOREPLICAS {reached} of {wanted} replicas have it")
        return answer

    def run_together(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Runs several transitions in one round trip, through the client that never repeats.

        Args:
            calls: for each, the name of a transition and its arguments.
        """
        named = [(self[transition], args) for transition, *args in calls]
        with self._once.pipeline(transaction=False) as pipe:
            for script, args in named:
                pipe.evalsha(script.sha, 1, self._keys.pending, *args)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        for i, (script, args) in enumerate(named):
            if isinstance(answers[i], NoScriptError):
                answers[i] = self._once.eval(script.text, 1, self._keys.pending, *args)
            elif isinstance(answers[i], Exception):
                raise answers[i]
        return answers

    @cached_property
    def _scripts(self) -> dict[str, Script]:
        """The scripts for this server. Each begins with the key names, the settings and the shared part."""
        server = Server.of(self._client.info("server"))
        if server.too_old:
            raise NoServerError(f"{server} is too old: dtq works with {OLDEST_SERVERS}, and newer.")
        rules = ", ".join(f"{name}={getattr(self.settings, name)}" for name in SETTINGS_IN_LUA)
        rules += f", work={bounds.WORK}"
        shared = f"{self._keys.lua_table()}local S = {{{rules}}}\n{(LUA / 'shared.lua').read_text()}"
        heads = {name: _flags(name) if server.finishes_when_full else "" for name in TRANSITIONS}
        texts = {name: head + shared + (LUA / f"{name}.lua").read_text() for name, head in heads.items()}
        return {name: Script(text, _sha1(text)) for name, text in texts.items()}


def _flags(transition: str) -> str:
    """A script's first line (Redis 7): a server with full memory refuses new tasks but finishes old ones."""
    return "#!lua\n" if transition == "submit" else "#!lua flags=allow-oom\n"


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
