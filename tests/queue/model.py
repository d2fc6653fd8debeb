"""The queue without Redis, processes and time: plain lists and dictionaries, one short method per transition.

`test_state_machine` holds the queue against it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from dtq.queue.task import NewTask, Priority, Stored

BURST, CRASHES = 2, 2
ENDED = ("completed", "cancelled")
ACTIVE = ("pending", "processing", "retrying", "scheduled", "failed")  # these wait for no parent


@dataclass(frozen=True)
class Handle:
    """What a worker believes to hold. It may be mistaken: handles are kept when the task is long gone."""

    worker: str
    task: Stored


@dataclass
class Known:
    """A task as the model sees it. `unreadable` is no status of a task: somebody has broken its document."""

    id: str
    request: NewTask
    status: str = ""
    attempts: int = 0
    retries: int = 0
    crashes: int = 0
    worker: str | None = None
    result: bytes = b""
    history: list[tuple[int, str, str]] = field(default_factory=list)  # attempt, worker, outcome
    reasons: set[str] = field(default_factory=set)  # to be cancelled with a parent; one of them is told

    @property
    def parents(self) -> list[str]:
        return self.request.depends_on

    def held_as(self, handle: Handle) -> bool:
        return (self.status, self.worker, self.attempts) == (
            "processing",
            handle.worker,
            handle.task.attempts,
        )

    def remember(self, outcome: str) -> None:
        assert self.worker is not None
        self.history.append((self.attempts, self.worker, outcome))


class Model:
    """What the queue should be."""

    def __init__(self) -> None:
        self.tasks: dict[str, Known] = {}
        # The next to be claimed is first. In `parked` that is the next of those that a worker knows.
        self.queues: dict[str, list[str]] = {"high": [], "normal": []}
        self.parked: dict[str, list[str]] = {"high": [], "normal": []}
        self.dead: list[str] = []  # the oldest first
        self.gone: set[tuple[str, str]] = set()  # parent and child; somebody has deleted the child's document
        self.unordered: set[str] = (
            set()
        )  # siblings that became free at once: their order is Redis's to choose
        self.streak = 0
        self.completions = self.parkings = 0
        self.counters: Counter[str] = Counter()

    def having(self, *status: str) -> list[str]:
        return [task.id for task in self.tasks.values() if task.status in status]

    def unmet(self, task: Known) -> set[str]:
        return {parent for parent in task.parents if self.tasks[parent].status != "completed"}

    def children_left(self, parent: str) -> set[str]:
        left = {t.id for t in self.tasks.values() if parent in t.parents and t.status not in ENDED}
        return left | {child for its, child in self.gone if its == parent}

    def refusal(self, batch: Sequence[NewTask]) -> tuple[str, str] | None:
        """Why this batch cannot be stored: reason and the id in the way."""
        known = {task.id: task.status for task in self.tasks.values() if task.status != "unreadable"}
        for new in batch:
            for parent in new.depends_on:
                if known.get(parent, "unknown") in ("unknown", "cancelled"):
                    return known.get(parent, "unknown"), parent
            known[new.id] = "new"
        return None

    def submit(self, batch: Sequence[NewTask]) -> None:
        for new in batch:
            task = self.tasks[new.id] = Known(new.id, new)
            self._release(task)
            self.counters["submitted"] += 1

    def claim(self, worker: str, n: int, types: Collection[str] = ()) -> list[str]:
        """The ids that a worker gets who knows these types, or takes any."""
        claimed: list[str] = []
        while len(claimed) < n:
            before = self.streak
            place = self._next_place(types)
            if not place:
                break
            task = self.tasks[self._first(place, types)]
            if task.crashes and claimed and self._suits(task, types):
                self.streak = before
                break
            place.remove(task.id)
            if not self._suits(task, types):
                self.parked[task.request.priority].append(task.id)
                self.parkings += 1
                self.streak = before
                continue
            claimed.append(task.id)
            task.status, task.worker, task.attempts = "processing", worker, task.attempts + 1
            if task.crashes:
                break
        return claimed

    def complete(self, handle: Handle, result: bytes) -> str:
        task = self.tasks.get(handle.task.id)
        if task and task.held_as(handle):
            task.status, task.result = "completed", result
            self.completions += 1
            waiting = (self.tasks[child] for child in self.children_left(task.id))
            freed = [child for child in waiting if child.status == "waiting" and not self.unmet(child)]
            for child in freed:
                self._release(child)
            self.unordered |= {child.id for child in freed}
            return "completed"
        if task and (task.status, task.worker, task.attempts) == (
            "completed",
            handle.worker,
            handle.task.attempts,
        ):
            return "repeated"
        self.counters["stale"] += 1
        return "stale"

    def fail(self, handle: Handle, retries: int, outcome: str) -> str:
        task = self.tasks.get(handle.task.id)
        if task and task.held_as(handle):
            task.remember(outcome)
            if task.retries >= retries:
                self._bury(task)
                return "failed"
            task.status, task.retries = "retrying", task.retries + 1
            self.counters["retried"] += 1
            return "retry"
        last = task.history[-1] if task and task.history and task.status != "unreadable" else None
        if last and last[:2] == (handle.task.attempts, handle.worker) and last[2] != "worker lost":
            return "repeated"
        self.counters["stale"] += 1
        return "stale"

    def release(self, handles: Sequence[Handle], started: bool) -> int:
        released = 0
        for handle in reversed(handles):
            task = self.tasks.get(handle.task.id)
            if task and task.held_as(handle):
                task.attempts -= not started
                self._enqueue(task, front=True)
                released += 1
        self.counters["released"] += released
        return released

    def held(self, handle: Handle) -> bool:
        """Whether a worker is right to believe that it holds this task."""
        return handle.task.id in self.tasks and self.tasks[handle.task.id].held_as(handle)

    def lose(self, ids: Sequence[str]) -> tuple[int, int]:
        """The workers of these are lost. Returns how many tasks are recovered and how many are dead."""
        dead = 0
        for task in (self.tasks[task_id] for task_id in reversed(ids)):
            task.crashes += 1
            task.remember("worker lost")
            if task.crashes >= CRASHES:
                self._bury(task)
                dead += 1
            else:
                self._enqueue(task, front=True)
        self.counters["recovered"] += len(ids) - dead
        return len(ids) - dead, dead

    def come_due(self, ids: Sequence[str]) -> None:
        for task_id in ids:
            self._enqueue(self.tasks[task_id])

    def age(self, ids: Sequence[str]) -> int:
        """The time of these results is up. Returns how many are deleted: no child needs them."""
        gone = [task_id for task_id in ids if not self.children_left(task_id)]
        for task_id in gone:
            del self.tasks[task_id]
        self.gone -= {(parent, child) for parent, child in self.gone if parent in ids}
        return len(gone)

    def cancel(self, task_id: str) -> str:
        task = self.tasks.get(task_id)
        if task is None or task.status == "unreadable":
            return "unknown"
        if task.status not in ("pending", "scheduled", "retrying", "waiting"):
            return task.status
        self._take_out(task)
        task.status = "cancelled"
        self.counters["cancelled"] += 1
        self._cancel_children(task_id, {task_id})
        return "cancelled"

    def requeue(self, ids: Sequence[str]) -> list[str]:
        found = self._dig_up(ids)
        for task in (self.tasks[task_id] for task_id in found):
            task.retries = task.crashes = 0
            self._enqueue(task)
        self.counters["requeued"] += len(found)
        return found

    def discard(self, ids: Sequence[str]) -> list[str]:
        found = self._dig_up(ids)
        for task_id in found:
            self.tasks[task_id].status = "cancelled"
        for task_id in found:
            self._cancel_children(task_id, set(found))
        self.counters["discarded"] += len(found)
        return found

    def break_document(self, task_id: str) -> None:
        """Nobody can read this task any more: it is set aside, and its children wait."""
        self._take_out(self.tasks[task_id])
        self.tasks[task_id].status = "unreadable"

    def let_go(self, ids: Sequence[str]) -> list[str]:
        """Somebody has deleted these documents. Returns the children that have nothing to wait for now."""
        waiting = self.having("waiting")
        for task in (self.tasks.pop(task_id) for task_id in ids):
            self._take_out(task)
            self.gone |= {(parent, task.id) for parent in task.parents}
        for task_id in ids:
            self._cancel_children(task_id, {f"{parent}, which is gone" for parent in ids})
        return [task_id for task_id in waiting if self.tasks[task_id].status == "cancelled"]

    def _suits(self, task: Known, types: Collection[str]) -> bool:
        return not types or task.request.type in types

    def _known_parked(self, priority: Priority, types: Collection[str]) -> list[str]:
        return [task_id for task_id in self.parked[priority] if self.tasks[task_id].request.type in types]

    def _place(self, priority: Priority, types: Collection[str]) -> list[str]:
        """Where the next task of this priority is: among the parked ones, if the worker knows one of them."""
        return self.parked[priority] if self._known_parked(priority, types) else self.queues[priority]

    def _first(self, place: list[str], types: Collection[str]) -> str:
        """The next task in this place for a worker who knows these types."""
        parked = any(place is those for those in self.parked.values())
        return next(id for id in place if not parked or self.tasks[id].request.type in types)

    def _next_place(self, types: Collection[str]) -> list[str]:
        high, normal = self._place("high", types), self._place("normal", types)
        normal_turn = self.streak >= BURST
        place = normal if normal and (normal_turn or not high) else high
        self.streak = self.streak + 1 if place is high and high and normal and not normal_turn else 0
        return place

    def _release(self, task: Known) -> None:
        """To where a task goes that is new or has lost a parent it waited for."""
        if self.unmet(task):
            task.status = "waiting"
        elif task.request.delay:
            task.status = "scheduled"
        else:
            self._enqueue(task)

    def _enqueue(self, task: Known, front: bool = False) -> None:
        """To the end of its queue; or to its front, and before the parked tasks of its type."""
        queue, parked = self.queues[task.request.priority], self.parked[task.request.priority]
        task.status, alike = "pending", self._known_parked(task.request.priority, [task.request.type])
        if front and alike:
            parked.insert(parked.index(alike[0]), task.id)
        else:
            queue.insert(0 if front else len(queue), task.id)

    def _take_out(self, task: Known) -> None:
        """Out of the place where it is."""
        for place in (*self.queues.values(), *self.parked.values(), self.dead):
            if task.id in place:
                place.remove(task.id)

    def _bury(self, task: Known) -> None:
        task.status = "failed"
        self.dead.append(task.id)
        self.counters["dead_lettered"] += 1

    def _dig_up(self, ids: Sequence[str]) -> list[str]:
        found = [task_id for task_id in dict.fromkeys(ids) if task_id in self.dead]
        self.dead = [task_id for task_id in self.dead if task_id not in found]
        return found

    def _cancel_children(self, task_id: str, reasons: set[str]) -> None:
        while children := self.children_left(task_id):
            child = self.tasks[children.pop()]
            child.status, child.reasons = "cancelled", reasons
            self.counters["cancelled"] += 1
            self._cancel_children(child.id, reasons)
