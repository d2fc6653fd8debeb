"""The audit after a soak: what became of each acknowledged task, by the server's append-only file.

That file holds every write that Redis ever accepted, also those of tasks that have expired since. A task's id
lives more than once if its Idempotency-Key is used again after its result has expired. Each life has its own
`created_at`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import hiredis
import msgspec

from dtq.queue.broker import Broker
from dtq.queue.task import Status, parse
from scripts.soaking.ledger import Ledger

CHUNK = 65536  # bytes of a piece; small, since the reader moves all unread bytes again and again
SHOWN = 5  # ids in a complaint
EMPTY = ("pending", "parked", "processing", "delayed", "waiting")  # places without a task when all have ended


class Lives:
    """All lives of all tasks, as the append-only file tells them.

    Args:
        folder: the server's, with its data.
        task_key: what goes before the id in the key of a task's document.

    Attributes:
        last: id -> the last status that was written.
        results: id and time of creation -> how often a result was stored.
    """

    def __init__(self, folder: Path, task_key: str) -> None:
        self.last: dict[str, Status] = {}
        self.results: Counter[tuple[str, datetime | None]] = Counter()
        prefix = task_key.encode()
        for command in _commands(folder):
            if command[0].upper() != b"SET" or not command[1].startswith(prefix):
                continue
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # it was broken on purpose
                task = parse(command[2])
                self.last[task.id] = task.status
                self.results[task.id, task.created_at] += task.status is Status.COMPLETED

    @property
    def completed(self) -> int:
        """How many lives have a result."""
        return sum(number > 0 for number in self.results.values())

    @property
    def stored_twice(self) -> list[str]:
        """The tasks of which a result was stored over another."""
        return [task_id for (task_id, _), number in self.results.items() if number > 1]

    def ended_as(self, *statuses: Status) -> set[str]:
        """The tasks with one of these statuses at the end of their last life."""
        return {task_id for task_id, status in self.last.items() if status in statuses}


def _commands(folder: Path) -> Iterator[list[Any]]:
    reader = hiredis.Reader()
    for path in sorted(path for path in folder.glob("**/*.aof") if ".base." not in path.name):
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                reader.feed(chunk)
                while (command := reader.gets()) is not False:
                    yield command


def lost(acknowledged: set[str], lives: Lives, dead: Iterable[str]) -> list[str]:
    """The tasks that have not ended, or wait for a human's decision where no human finds them.

    Args:
        acknowledged: the tasks that the gateway promised to look after.
        lives: say how they ended.
        dead: ids in the dead letter.
    """
    decided = lives.ended_as(Status.COMPLETED, Status.CANCELLED)
    return sorted(acknowledged - decided - lives.ended_as(Status.FAILED).intersection(dead))


def untrue(broker: Broker, ledger: Ledger, lives: Lives) -> Iterator[str]:
    """What the queue says wrongly when all tasks have ended."""
    k, counts = broker.keys, broker.counts()
    redis: Any = broker.redis
    yield from (f"{counts[place]} tasks are {place}" for place in EMPTY if counts[place])
    if counts["completed"] != lives.completed:
        yield f"{counts['completed']} tasks are counted as completed, not {lives.completed}"
    submitted = int(redis.hget(k.counters, "submitted") or 0)
    if submitted != len(lives.results):
        yield f"{submitted} tasks are counted as submitted, not {len(lives.results)}"
    if left := list(redis.scan_iter(match=f"{k.dependencies}*", count=1000)):
        yield f"{len(left)} tasks wait for their parents: {left[:SHOWN]}"
    yield from _compared("the dead letter", members(broker, k.dead_letter), lives.ended_as(Status.FAILED))
    yield from _compared("the list of unreadable tasks", members(broker, k.unreadable), ledger.broken)


def members(broker: Broker, key: str) -> list[str]:
    """The ids in a list."""
    return [task_id.decode() for task_id in broker.redis.lrange(key, 0, -1)]


def _compared(place: str, found: list[str], wanted: set[str]) -> Iterator[str]:
    differences = {"should not hold": Counter(found) - Counter(wanted), "misses": wanted.difference(found)}
    for what, ids in differences.items():
        if ids:
            yield f"{place} {what} {len(ids)} ids: {', '.join(list(ids)[:SHOWN])}"
