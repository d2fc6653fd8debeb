"""The queue: the only module that changes its keys. One method per transition, each one Lua script, atomic.

The promise: at-least-once execution, at most one stored result, nothing that `submit` acknowledged is lost.
Leases and the dead letter follow Amazon SQS; the wake-up marker follows BullMQ.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, cast

import msgspec
import redis

from dtq.config import Settings
from dtq.connection import connect
from dtq.errors import NameTaken, Refused
from dtq.queue import bounds, maintenance, worker_info
from dtq.queue.keys import Keys
from dtq.queue.maintenance import Maintained
from dtq.queue.reports import Report, Verdict, verdict
from dtq.queue.scripts import LUA, Scripts
from dtq.queue.task import NewTask, Status, Stored, parse
from dtq.queue.worker_info import WorkerInfo

PARKED_ID = 61  # where the id begins in a member of `Keys.parked`; see shared.lua
SCAN_LIMIT = 1000  # documents that a filtered listing reads from each structure, at most
LONG_AGO = datetime.min.replace(tzinfo=UTC)  # for tasks that do not say when they were submitted
HEADER = 8192  # bytes that nearly always hold a document's header
ANSWER_TIMEOUT = 1.0  # seconds to wait for Redis while a user waits for an answer: two with one retry
HEADERS = (LUA / "headers.lua").read_text()


class Broker:
    """The queue on Redis.

    Args:
        url: the server, as `redis://host:port/0`; `dtq.connection` knows the other forms.
        settings: the rules of the queue. All its processes should have the same.
        timeout: seconds to wait for a reply of Redis; by default redis-py's.
    """

    def __init__(self, url: str, settings: Settings | None = None, timeout: float | None = None) -> None:
        self.settings = settings or Settings()
        self.keys = Keys(self.settings.key_prefix)
        # `redis` repeats a command whose reply was lost: transitions are safe to repeat. `once` does not. It
        # serves the blocking wait, and claims: if a claim were sent twice, nobody would run the tasks of the
        # first one until their leases end.
        self.redis = connect(url, self.settings, retries=1, timeout=timeout)
        self.once = connect(url, self.settings, retries=0, timeout=timeout)
        self.scripts = Scripts(self.redis, self.once, self.keys, self.settings)

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
            redis.ResponseError: too few replicas have the tasks (`DTQ_WAIT_REPLICAS`); submit them again.
        """
        run = self.scripts.run_replicated if self.settings.wait_replicas else self.scripts.run
        word, *ids = run("submit", *map(msgspec.json.encode, tasks))
        if word != b"ok":
            raise Refused(word.decode(), ids[0].decode())
        return [task_id.decode() for task_id in ids]

    def report_and_claim(
        self, worker_id: str, reports: Sequence[Report], n: int, types: Iterable[str] = ()
    ) -> tuple[list[Verdict], list[Stored]]:
        """Reports attempts that ended and claims up to `n` tasks of these types, in one round trip. Without
        types it claims whatever is next.

        Returns:
            A verdict for each report, in order, and the claimed tasks in the order to run them.

        Raises:
            redis.ConnectionError, redis.TimeoutError: the reply was lost. Reports may be sent again; the
                tasks of a lost claim are free again when their leases end.
        """
        jitter, kinds = self.settings.backoff_jitter, groupby(reports, attrgetter("transition"))
        calls = [(kind, worker_id, *_flat(r.arguments(jitter) for r in group)) for kind, group in kinds]
        if n > 0:
            calls.append(("claim", worker_id, n, *types))
        answers = self.scripts.run_together(calls)
        claimed = answers.pop() if n > 0 else []
        verdicts = [verdict(report, answer) for report, answer in zip(reports, _flat(answers), strict=True)]
        return verdicts, self._readable((_id(document), document) for document in claimed)

    def release(self, worker_id: str, tasks: Sequence[Stored], started: bool = False) -> int:
        """Gives claimed tasks back to the front of the queue; returns how many were still this worker's."""
        pairs = _flat((task.id, task.attempts) for task in tasks)
        return cast(int, self.scripts.run("release", worker_id, int(started), *pairs)) if tasks else 0

    def heartbeat(self, worker: WorkerInfo, held: Sequence[Stored] = (), instead_of: str = "") -> set[str]:
        """Registers the worker for three beats and extends the leases of the tasks it holds.

        Args:
            worker: as it describes itself.
            held: its tasks.
            instead_of: an instance that had this name and is dead.

        Returns:
            Ids that it no longer owns: another worker may have them.

        Raises:
            NameTaken: another live worker has this name.
        """
        life = int(3000 * self.settings.heartbeat)
        pairs = _flat((task.id, task.attempts) for task in held)
        arguments = (worker.id, msgspec.json.encode(worker), life, instead_of, *pairs)
        accepted, *answer = self.scripts.run("heartbeat", *arguments)
        if not accepted:
            host, pid, instance = answer
            raise NameTaken(worker.id, _text(host), pid, _text(instance))
        return set(map(_text, answer))

    def maintain(self) -> Maintained:
        """Frees due tasks and those of lost workers, deletes old ones. Does nothing if this was just done."""
        return maintenance.maintain(self.scripts)

    def cancel(self, task_id: str) -> str:
        """Cancels a task that waits to run. Returns `cancelled`, `unknown`, or the status that forbids it."""
        return cast(bytes, self.scripts.run("cancel", task_id)).decode()

    def requeue(self, task_ids: Sequence[str] | None = None) -> list[str]:
        """Gives dead tasks a fresh start: these or all. Returns the ids that were in the dead letter."""
        return self._from_dead_letter("requeue", task_ids)

    def discard(self, task_ids: Sequence[str] | None = None) -> list[str]:
        """Cancels dead tasks for good: these or all. Returns the ids that were in the dead letter."""
        return self._from_dead_letter("discard", task_ids)

    def deregister(self, worker_id: str, instance: str = "") -> None:
        """Removes the registration of a worker that stops, unless another has its name by now."""
        self.scripts.run("deregister", worker_id, instance)

    def wait(self, seconds: float) -> None:
        """Sleeps until there may be work, `seconds` at most, rounded up: Redis 5 takes whole ones only. A
        wake-up is only a hint: claim in any case.
        """
        self.once.bzpopmin(self.keys.wake, math.ceil(seconds))

    # ---------------------------------------------------------------- queries

    def get(self, task_id: str) -> Stored | None:
        """The task, or None if the id is unknown or the task was deleted after `DTQ_RESULT_TTL`."""
        found = self.get_many([task_id])
        return found[0] if found else None

    def get_many(self, task_ids: Sequence[str]) -> list[Stored]:
        """The tasks of these ids, in this order, read at once; unknown ids are left out."""
        documents = self.redis.mget([self.keys.task + task_id for task_id in task_ids]) if task_ids else []
        return self._readable(zip(task_ids, documents, strict=True))

    def tasks(self, status: Status | None = None, type: str | None = None, limit: int = 50) -> list[Stored]:
        """Tasks, newest first. Filters apply before `limit`, to the newest 1,000 tasks of each structure. Of
        many scheduled or retrying tasks, only some of those that are due last are looked at.
        """
        found: list[Stored] = []
        for name in self._places(status):
            found += self._newest(name, status, type, limit)
        return sorted(found, key=lambda task: task.created_at or LONG_AGO, reverse=True)[:limit]

    def headers(self, task_ids: Iterable[bytes]) -> list[Stored]:
        """The tasks without their payloads, which may be large; unknown ids are left out."""
        ids = list(map(_text, task_ids))
        documents = self.redis.eval(HEADERS, len(ids), *(self.keys.task + task_id for task_id in ids), HEADER)
        return self._readable(zip(ids, documents, strict=True))

    def counts(self) -> dict[str, int]:
        """How many tasks are in each place. `pending` counts both priorities, `completed` all tasks ever."""
        k = self.keys
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.llen(k.pending).llen(k.pending_high).zcard(k.processing).zcard(k.delayed).zcard(k.waiting)
            pipe.llen(k.dead_letter).get(k.completed).zcard(k.parked).llen(k.unreadable)
            normal, high, processing, delayed, waiting, dead, completed, parked, unreadable = pipe.execute()
        return {
            "pending": normal + high + parked,
            "pending_high": high,
            "parked": parked,
            "processing": processing,
            "delayed": delayed,
            "waiting": waiting,
            "dead_letter": dead,
            "unreadable": unreadable,
            "completed": int(completed or 0),
        }

    def workers(self) -> list[WorkerInfo]:
        """The live workers as they described themselves at their last heartbeat, ordered by id."""
        ids = sorted(map(_text, self.redis.smembers(self.keys.workers)))
        documents = self.redis.mget([self.keys.worker + worker for worker in ids]) if ids else []
        return [worker for document in documents if (worker := worker_info.parse(document or b""))]

    def unknown_types(self, types: Iterable[str]) -> list[str]:
        """Those of these types that no live worker knows, in order; none while no worker lives."""
        asked = sorted(set(types))
        with self.redis.pipeline(transaction=False) as pipe:
            for type in asked:
                pipe.zscore(self.keys.types, type)
            *known, alive = pipe.exists(self.keys.types).execute()
        return [type for type, until in zip(asked, known, strict=True) if alive and until is None]

    def persistent(self) -> bool:
        """Whether the server writes what it acknowledges to disk (AOF or snapshots)."""
        if self.redis.info("persistence").get("aof_enabled"):
            return True
        try:
            return bool(self.redis.config_get("save")["save"])
        except redis.ResponseError:  # a managed server that hides its settings looks after them itself
            return True

    # ---------------------------------------------------------------- helpers

    def _places(self, status: Status | None) -> Iterable[str]:
        k = self.keys
        places = {
            Status.PENDING: [k.pending, k.pending_high, k.parked],
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
            ids = list(map(_text, read(place, start, start + 99)))
            if place == self.keys.parked:
                ids = [member[PARKED_ID:] for member in ids]
            found += [
                task
                for task in self.get_many(ids)
                if status in (None, task.status) and type in (None, task.type)
            ]
            if len(found) >= limit or len(ids) < 100:
                break
        return found

    def _from_dead_letter(self, transition: str, task_ids: Sequence[str] | None) -> list[str]:
        done, at = list[bytes](), 0
        left = self.redis.llen(self.keys.dead_letter) if task_ids is None else len(task_ids)
        while at < left:
            some = task_ids[at : at + bounds.WORK] if task_ids else self._oldest_dead()
            looked_at, *found = self.scripts.run(transition, *some)
            done, at = done + found, at + looked_at if some else left
        return list(map(_text, done))

    def _oldest_dead(self) -> list[bytes]:
        return self.redis.lrange(self.keys.dead_letter, -bounds.WORK, -1)[::-1]

    def _readable(self, named: Iterable[tuple[str, bytes | None]]) -> list[Stored]:
        """Parses the documents of these ids. Those that nobody can read are set aside; None is left out."""
        tasks, broken = list[Stored](), list[str]()
        for task_id, document in named:
            try:
                tasks += [parse(document)] if document else []
            except (msgspec.MsgspecError, UnicodeDecodeError):
                broken.append(task_id)
        if broken:
            self.scripts.run("set_aside", *broken[: bounds.SET_ASIDE])
        return tasks


def _id(document: bytes) -> str:
    """The id of a task from a document that a script has written: it is the first member."""
    return cast(str, msgspec.json.decode(document[len('{"id":') : document.index(b',"type":')]))


def _text(task_id: bytes) -> str:
    """An id in a place. Somebody may have written it by hand: if it is no text, there is no task of it."""
    return task_id.decode(errors="replace")


def _flat(parts: Iterable[Iterable[Any]]) -> Iterator[Any]:
    return chain.from_iterable(parts)
