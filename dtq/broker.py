"""The queue: the only module that touches its keys. One method per transition, each one Lua script, atomic.

The promise: at-least-once execution, at most one stored result, nothing that `submit` acknowledged is lost.
Leases and the dead letter follow Amazon SQS; the wake-up marker follows BullMQ.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.resources import files
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, cast

import msgspec
import redis
from redis.exceptions import NoScriptError

from dtq import presence
from dtq.config import Settings
from dtq.connection import connect
from dtq.errors import Refused
from dtq.keys import Keys
from dtq.presence import Presence
from dtq.report import Completed, Failed, Report, Verdict
from dtq.task import NewTask, Status, Stored, parse

MAINTENANCE_INTERVAL = 0.5  # seconds; two of them fit into the second by which a recovery may be late
MAINTENANCE_LIMIT = 500  # tasks of each kind that one call moves
SCAN_LIMIT = 1000  # documents that a filtered listing looks at, at most
REPLICAS_TIMEOUT = 500  # milliseconds that replicas may take to say that they have a task
log = logging.getLogger("dtq.broker")

SETTINGS_IN_LUA = (
    "lease", "max_crashes", "high_burst", "backoff_base", "backoff_cap", "result_ttl", "dead_letter_ttl",
    "dead_letter_max",
)  # fmt: skip
TRANSITIONS = (
    "submit", "claim", "complete", "fail", "release", "heartbeat", "maintain", "cancel", "requeue", "discard",
)  # fmt: skip


class Maintained(NamedTuple):
    """How many tasks and workers one call of `maintain` moved."""

    due: int = 0
    recovered: int = 0
    dead: int = 0
    lost_workers: int = 0
    deleted: int = 0
    dropped: int = 0


class Broker:
    """The queue on Redis.

    Args:
        url: the server, as `redis://host:port/0`; `dtq.connection` knows the other forms.
        settings: rules of the queue. All processes of a queue should have the same.
        timeout: seconds to wait for Redis, for those who have somebody waiting.
    """

    def __init__(self, url: str, settings: Settings | None = None, timeout: float | None = None) -> None:
        self.settings = settings or Settings()
        self.keys = Keys(self.settings.key_prefix)
        # A command whose reply was lost is sent again: transitions are safe to repeat. But a claim sent twice
        # would leave the tasks of the first to the end of their leases: it and the blocking wait are not.
        self.redis = connect(url, self.settings, retries=1, timeout=timeout)
        self.once = connect(url, self.settings, retries=0, timeout=timeout)

    def close(self) -> None:
        self.redis.close()
        self.once.close()

    # ---------------------------------------------------------------- transitions

    def submit(self, tasks: Sequence[NewTask]) -> list[str]:
        """Stores tasks: all of them or none. Safe to repeat: an id that exists is left as it is.

        Returns:
            The ids that were new.

        Raises:
            Refused: a parent is unknown or cancelled, or an id exists with another fingerprint.
            redis.ResponseError: too few replicas have it (`DTQ_WAIT_REPLICAS`); submit it again.
        """
        run = self._run_replicated if self.settings.wait_replicas else self._run
        word, *ids = run("submit", *map(msgspec.json.encode, tasks))
        if word != b"ok":
            raise Refused(word.decode(), ids[0].decode())
        return [task_id.decode() for task_id in ids]

    def report_and_claim(
        self, worker_id: str, reports: Sequence[Report], n: int
    ) -> tuple[list[Verdict], list[Stored]]:
        """Reports what was done and claims up to `n` tasks, in one round trip.

        Returns:
            A verdict for each report, in order, and the claimed tasks in the order to run them.

        Raises:
            redis.ConnectionError, redis.TimeoutError: the reply was lost. Reports may be sent again; a claim
                that got lost comes back when its lease ends.
        """
        done = [arg for report in reports if isinstance(report, Completed) for arg in report.arguments()]
        failed = [report for report in reports if isinstance(report, Failed)]
        calls: list[tuple[Any, ...]] = [("complete", worker_id, *done)] if done else []
        calls += [("fail", worker_id, *report.arguments(self.settings.backoff_jitter)) for report in failed]
        if n > 0:
            calls.append(("claim", worker_id, n))
        answers = self._run_together(calls)
        claimed = answers.pop() if n > 0 else []
        words = iter(answers.pop(0) if done else [])
        failures = iter(answers)
        verdicts = [
            _verdict([next(words)] if isinstance(report, Completed) else next(failures)) for report in reports
        ]
        return verdicts, [parse(document) for document in claimed]

    def release(self, worker_id: str, tasks: Sequence[Stored], started: bool = False) -> int:
        """Gives claimed tasks back to the front of the queue; returns how many were still this worker's."""
        pairs = [arg for task in tasks for arg in (task.id, task.attempts)]
        return cast(int, self._run("release", worker_id, int(started), *pairs)) if tasks else 0

    def heartbeat(self, worker: Presence, held: Sequence[Stored] = ()) -> set[str]:
        """Registers the worker for three beats and extends the leases of what it holds.

        Returns:
            Ids that it no longer owns: another worker may have them.
        """
        life = int(3000 * self.settings.heartbeat)
        pairs = [arg for task in held for arg in (task.id, task.attempts)]
        lost = self._run("heartbeat", worker.id, msgspec.json.encode(worker), life, *pairs)
        return {task_id.decode() for task_id in lost}

    def maintain(self) -> Maintained:
        """Does what time brings about, unless that was just done: due tasks, lost workers, clean-up."""
        *moved, outlived = self._run("maintain", int(1000 * MAINTENANCE_INTERVAL), MAINTENANCE_LIMIT) or [[]]
        dropped = self._run("discard", *outlived) if outlived else []
        if dropped:
            log.warning("%d dead tasks dropped: the dead letter is bounded", len(dropped))
        return Maintained(*moved)._replace(dropped=len(dropped))

    def cancel(self, task_id: str) -> str:
        """Cancels a task that was not started. Returns `cancelled`, `unknown`, or the status in the way."""
        return cast(bytes, self._run("cancel", task_id)).decode()

    def requeue(self, task_ids: Sequence[str] | None = None) -> list[str]:
        """Gives dead tasks a fresh start: these, or all. Returns the ids that were in the dead letter."""
        return self._bury_no_more("requeue", task_ids)

    def discard(self, task_ids: Sequence[str] | None = None) -> list[str]:
        """Cancels dead tasks for good: these, or all. Returns the ids that were in the dead letter."""
        return self._bury_no_more("discard", task_ids)

    def deregister(self, worker_id: str) -> None:
        """Strikes a worker off that says goodbye."""
        with self.redis.pipeline() as pipe:
            pipe.delete(self.keys.worker + worker_id).srem(self.keys.workers, worker_id).execute()

    def wait(self, seconds: float) -> None:
        """Sleeps until there may be work, at most so long. A wake-up is a hint only: look in any case."""
        self.once.bzpopmin(self.keys.wake, seconds)

    # ---------------------------------------------------------------- questions

    def get(self, task_id: str) -> Stored | None:
        """The task, or None where the id is unknown or its result was kept long enough."""
        found = self.get_many([task_id])
        return found[0] if found else None

    def get_many(self, task_ids: Sequence[str]) -> list[Stored]:
        """The tasks of these ids, in this order, read at once; unknown ids are left out."""
        documents = self.redis.mget([self.keys.task + task_id for task_id in task_ids]) if task_ids else []
        return [parse(document) for document in documents if document]

    def tasks(self, status: Status | None = None, type: str | None = None, limit: int = 50) -> list[Stored]:
        """Tasks, newest first. Filters go before the limit, within the newest 1,000 of each structure."""
        found: list[Stored] = []
        for name in self._places(status):
            found += self._newest(name, status, type, limit)
        return sorted(found, key=attrgetter("created_at"), reverse=True)[:limit]

    def counts(self) -> dict[str, int]:
        """How many tasks are in each place; `pending` is both priorities, `completed` all there ever were."""
        k = self.keys
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.llen(k.pending).llen(k.pending_high).zcard(k.processing).zcard(k.delayed).zcard(k.waiting)
            pipe.llen(k.dead_letter).get(k.completed)
            normal, high, processing, delayed, waiting, dead, completed = pipe.execute()
        return {
            "pending": normal + high,
            "pending_high": high,
            "processing": processing,
            "delayed": delayed,
            "waiting": waiting,
            "dead_letter": dead,
            "completed": int(completed or 0),
        }

    def workers(self) -> list[Presence]:
        """The live workers as they described themselves at their last beat, by id."""
        ids = sorted(worker.decode() for worker in self.redis.smembers(self.keys.workers))
        documents = self.redis.mget([self.keys.worker + worker for worker in ids]) if ids else []
        return [presence.parse(document) for document in documents if document]

    def persistent(self) -> bool:
        """Whether the server writes what it acknowledges to disk (AOF or snapshots)."""
        if self.redis.info("persistence").get("aof_enabled"):
            return True
        try:
            return bool(self.redis.config_get("save")["save"])
        except redis.ResponseError:  # a managed server that hides its settings looks after them itself
            return True

    # ---------------------------------------------------------------- how

    def _places(self, status: Status | None) -> Iterable[str]:
        k = self.keys
        places = {
            Status.PENDING: [k.pending, k.pending_high],
            Status.PROCESSING: [k.processing],
            Status.RETRYING: [k.delayed],
            Status.SCHEDULED: [k.delayed],
            Status.WAITING: [k.waiting],
            Status.COMPLETED: [k.finished],
            Status.CANCELLED: [k.finished],
            Status.FAILED: [k.dead_letter],
        }
        return places[status] if status else dict.fromkeys(chain.from_iterable(places.values()))

    def _newest(self, place: str, status: Status | None, type: str | None, limit: int) -> list[Stored]:
        lists = (self.keys.pending, self.keys.pending_high, self.keys.dead_letter)
        read = self.redis.lrange if place in lists else self.redis.zrevrange
        found: list[Stored] = []
        for start in range(0, SCAN_LIMIT, 100):
            ids = [task_id.decode() for task_id in read(place, start, start + 99)]
            found += [
                task
                for task in self.get_many(ids)
                if status in (None, task.status) and type in (None, task.type)
            ]
            if len(found) >= limit or len(ids) < 100:
                break
        return found

    def _bury_no_more(self, transition: str, task_ids: Sequence[str] | None) -> list[str]:
        if task_ids is not None:
            return [task_id.decode() for task_id in self._run(transition, *task_ids)]
        done: list[str] = []
        for _ in range(self.redis.llen(self.keys.dead_letter) // MAINTENANCE_LIMIT + 1):
            tail = self.redis.lrange(self.keys.dead_letter, -MAINTENANCE_LIMIT, -1)
            done += [task_id.decode() for task_id in self._run(transition, *reversed(tail))]
        return done

    @cached_property
    def _scripts(self) -> dict[str, "_Script"]:
        """The transitions as this server understands them: names and settings first, then the shared part."""
        modern = int(self.redis.info("server")["redis_version"].split(".")[0]) >= 7
        shown = {name: getattr(self.settings, name) for name in SETTINGS_IN_LUA}
        rules = "local S = {" + ", ".join(f"{name}={value}" for name, value in shown.items()) + "}\n"
        lua = files("dtq") / "lua"
        shared = self.keys.lua_table() + rules + (lua / "shared.lua").read_text()
        return {
            name: _Script((_flags(name) if modern else "") + shared + (lua / f"{name}.lua").read_text())
            for name in TRANSITIONS
        }

    def _run(self, transition: str, *args: Any) -> Any:
        script = self._scripts[transition]
        try:
            return self.redis.evalsha(script.sha, 1, self.keys.pending, *args)
        except NoScriptError:  # a server that is new, or was started again
            return self.redis.eval(script.text, 1, self.keys.pending, *args)

    def _run_replicated(self, transition: str, *args: Any) -> Any:
        """A transition that replicas have, too, when this returns. All on one connection: where there was a
        failover in between, another primary would answer, which may know nothing of it.
        """
        wanted = self.settings.wait_replicas
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.eval(self._scripts[transition].text, 1, self.keys.pending, *args)
            pipe.hincrby(self.keys.counters, "submitted", 0)  # WAIT looks at this client's last write alone,
            pipe.wait(wanted, REPLICAS_TIMEOUT)  # and what is submitted again writes nothing
            answer, _, reached = pipe.execute()
        if reached < wanted:
            raise redis.ResponseError(f"NOREPLICAS {reached} of {wanted} replicas have it")
        return answer

    def _run_together(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Several transitions in one round trip, through the client that never repeats."""
        with self.once.pipeline(transaction=False) as pipe:
            for transition, *args in calls:
                pipe.evalsha(self._scripts[transition].sha, 1, self.keys.pending, *args)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        for i, (transition, *args) in enumerate(calls):
            if isinstance(answers[i], NoScriptError):
                answers[i] = self.once.eval(self._scripts[transition].text, 1, self.keys.pending, *args)
            elif isinstance(answers[i], Exception):
                raise answers[i]
        return answers


class _Script:
    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _flags(transition: str) -> str:
    """A server whose memory is full refuses new tasks, but lets old ones be finished (Redis 7 and newer)."""
    return "#!lua\n" if transition == "submit" else "#!lua flags=allow-oom\n"


def _verdict(answer: list[bytes]) -> Verdict:
    word, *rest = answer
    return Verdict(word.decode(), int(rest[0]), float(rest[1])) if rest else Verdict(word.decode())
