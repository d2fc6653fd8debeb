"""The audit that ends every experiment: what the queue promised, and what became of it.

It follows Jepsen's `total-queue` checker (https://jepsen-io.github.io/jepsen/jepsen.checker.html): what goes
in must come out. As there, the verdict means something only once the queue is drained. Executions and stored
results are counted apart: at-least-once execution may run a task twice, but only one result may be stored.
"""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dtq.lab.witness import record
from dtq.lab.witness.journal import results_stored
from dtq.lab.witness.ledger import counted
from dtq.queue.keys import Keys
from dtq.queue.task import Status, Stored, parse

LOST = "lost"
LISTED = 10  # ids that a row shows; the attributes have them all


@dataclass(frozen=True, repr=False)
class Audit:
    """What became of the tasks that a queue acknowledged.

    Args:
        queue: its name.
        fates: id -> the task's status, or `lost`: it has no result and is in no list, lease or live worker.
        executed: id -> how often its handler was called.
        stored: id -> how often a result was stored; None where the server's journal could not be read.
    """

    queue: str
    fates: dict[str, str]
    executed: dict[str, int]
    stored: dict[str, int] | None

    @property
    def acknowledged(self) -> list[str]:
        """The tasks that the queue promised to look after."""
        return list(self.fates)

    @property
    def completed(self) -> list[str]:
        """The tasks that have a stored result."""
        return self.ended_as(Status.COMPLETED)

    @property
    def lost(self) -> list[str]:
        """The tasks that will never have a result, although they were acknowledged."""
        return self.ended_as(LOST)

    @property
    def unfinished(self) -> list[str]:
        """The tasks that the queue still holds and will finish, given time."""
        ends = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, LOST)
        return [task_id for task_id, fate in self.fates.items() if fate not in ends]

    @property
    def executed_again(self) -> dict[str, int]:
        """Id -> how often it was executed, where that is more than once: retries, recoveries."""
        return _above_one(self.executed)

    @property
    def stored_again(self) -> dict[str, int]:
        """Id -> how often a result was stored, where that is more than once."""
        return _above_one(self.stored or {})

    @property
    def valid(self) -> bool:
        """Whether no task is lost and no result was stored over another."""
        return not self.lost and not self.stored_again

    def ended_as(self, fate: str) -> list[str]:
        """The ids with this fate, such as `failed` or `cancelled`."""
        return [task_id for task_id, its in self.fates.items() if its == fate]

    def counts(self) -> record.Counts:
        """The audit in figures."""
        return record.Counts(
            queue=self.queue,
            acknowledged=len(self.fates),
            completed=len(self.completed),
            lost=len(self.lost),
            executed_again=len(self.executed_again),
            stored_again=None if self.stored is None else len(self.stored_again),
        )

    def __repr__(self) -> str:
        rows = [f"  {name:<24}{number:>6}  {ids}".rstrip() for name, number, ids in self._rows()]
        return "\n".join([self._verdict(), *rows])

    def _repr_html_(self) -> str:
        left = "style='text-align: left'"
        rows = "".join(
            f"<tr><th {left}>{name}</th><td>{number}</td><td {left}>{html.escape(ids)}</td></tr>"
            for name, number, ids in self._rows()
        )
        return f"<p><b>{html.escape(self._verdict())}</b></p><table>{rows}</table>"

    def _verdict(self) -> str:
        return f"Audit of {self.queue}: {len(self.lost)} lost of {len(self.fates)} acknowledged tasks"

    def _rows(self) -> list[tuple[str, str, str]]:
        """Name, number, ids. Rows that are seldom needed are left out if they are empty."""
        failed, cancelled = self.ended_as(Status.FAILED), self.ended_as(Status.CANCELLED)
        rows: list[tuple[str, object, str]] = [
            ("acknowledged", len(self.fates), ""),
            ("completed", len(self.completed), ""),
            ("in the dead letter", len(failed), _listed(failed)),
            ("cancelled", len(cancelled), _listed(cancelled)),
            (
                "unfinished",
                len(self.unfinished),
                _listed([f"{i} ({self.fates[i]})" for i in self.unfinished]),
            ),
        ]
        always: list[tuple[str, object, str]] = [
            ("lost", len(self.lost), _listed(self.lost)),
            ("executed more than once", len(self.executed_again), _times(self.executed_again)),
            ("stored more than once", len(self.stored_again), _times(self.stored_again)),
        ]
        if self.stored is None:
            always[-1] = ("stored more than once", "?", "the server's append-only file cannot be read here")
        rows = [row for row in rows if row[1] or row[0] == "completed"]
        return [(name, str(number), ids) for name, number, ids in rows + always]


def audit(acknowledged: Iterable[str], queue: Any, executed: Mapping[str, int] | None = None) -> Audit:
    """Compares what a queue promised with what it did. Call it when all tasks should be done. It reads Redis
    and does not ask the queue.

    Args:
        acknowledged: ids of the tasks that were acknowledged.
        queue: a `LocalCluster`, a `Broker` or a `NaiveQueue`.
        executed: id -> how often it was executed, if the caller knows that better than a ledger in Redis.
    """
    ids = list(dict.fromkeys(acknowledged))
    source = getattr(queue, "broker", queue)
    documents, held = _look(source.redis, source.keys, ids)
    connected = {peer["name"] for peer in source.redis.client_list()}
    stored: dict[str, int] | None = results_stored(source.redis, source.keys.task)
    executed = counted(source.redis, ids) if executed is None else {i: executed.get(i, 0) for i in ids}
    if not any(executed.values()):  # the workers do not sign: the queue's own count must do
        executed = {task_id: task.attempts for task_id, task in documents.items()}
    fates = {task_id: _fate(documents.get(task_id), task_id in held, connected) for task_id in ids}
    if stored is not None:  # a result that was kept for its time and then deleted is no loss
        fates |= {i: Status.COMPLETED for i, fate in fates.items() if fate == LOST and i in stored}
        stored = {task_id: stored.get(task_id, 0) for task_id in ids}
    result = Audit(getattr(source, "name", "dtq"), fates, executed, stored)
    record.session.note_audit(result.counts())
    return result


def _look(client: Any, keys: Keys, ids: list[str]) -> tuple[dict[str, Stored], set[str]]:
    """The documents, and the ids that some structure of the queue holds, all read at one moment."""
    with client.pipeline(transaction=True) as pipe:
        for name in (keys.pending, keys.pending_high, keys.dead_letter):
            pipe.lrange(name, 0, -1)
        for name in (keys.processing, keys.delayed, keys.waiting, keys.finished):
            pipe.zrange(name, 0, -1)
        for task_id in ids:
            pipe.get(keys.task + task_id)
        answers = pipe.execute()
    held = {task_id.decode() for members in answers[:7] for task_id in members}
    return {i: parse(text) for i, text in zip(ids, answers[7:], strict=True) if text}, held


def _fate(task: Stored | None, held: bool, connected: set[str]) -> str:
    if task is None:
        return LOST
    in_hand = task.status is Status.PROCESSING and task.worker_id in connected
    return str(task.status) if held or in_hand or task.status is Status.COMPLETED else LOST


def _above_one(numbers: Mapping[str, int]) -> dict[str, int]:
    return {task_id: number for task_id, number in numbers.items() if number > 1}


def _times(numbers: Mapping[str, int]) -> str:
    return _listed([f"{task_id} ({number} times)" for task_id, number in numbers.items()])


def _listed(ids: list[str]) -> str:
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return ", ".join(ids[:LISTED]) + more
