"""The queue against a model of it: random transitions in random order, and after each the two must agree.

The model is the queue without Redis, processes and time: plain lists and dictionaries, one short method per
transition. Hypothesis searches for a sequence of transitions after which the real queue differs, and shrinks
it to the shortest one. Time does not pass by itself: leases, delays and results last an hour, until a rule
ends them.
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dtq.config import Settings
from dtq.errors import Refused
from dtq.queue.broker import Broker
from dtq.queue.reports import Completed, Failed
from dtq.queue.task import NewTask, Priority, Status, Stored, parse
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from tests.steps import claim_one, complete, end_leases, fail, maintain, make_due, make_old, submit

WORKERS = ("ann", "bob", "cid")
BURST, CRASHES, HOUR = 2, 2, 3600.0
ENDED = ("completed", "cancelled")
PLACES = {
    "pending": "pending",
    "processing": "processing",
    "retrying": "delayed",
    "scheduled": "delayed",
    "waiting": "waiting",
    "completed": "finished",
    "cancelled": "finished",
    "failed": "dead_letter",
}


@dataclass(frozen=True)
class Handle:
    """What a worker believes to hold. It may be mistaken: handles are kept when the task is long gone."""

    worker: str
    task: Stored


@dataclass
class Known:
    """A task as the model sees it."""

    id: str
    request: NewTask
    status: str = ""
    attempts: int = 0
    retries: int = 0
    crashes: int = 0
    worker: str | None = None
    result: bytes = b""
    history: list[tuple[int, str, str]] = field(default_factory=list)  # attempt, worker, outcome

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
        self.queues: dict[Priority, list[str]] = {"high": [], "normal": []}  # the next to be claimed is first
        self.dead: list[str] = []  # the oldest first
        self.unordered: set[str] = (
            set()
        )  # siblings that became free at once: their order is Redis's to choose
        self.streak = 0
        self.completions = 0
        self.counters: Counter[str] = Counter()

    def having(self, *status: str) -> list[str]:
        return [task.id for task in self.tasks.values() if task.status in status]

    def unmet(self, task: Known) -> set[str]:
        return {parent for parent in task.parents if self.tasks[parent].status != "completed"}

    def children_left(self, parent: str) -> set[str]:
        return {t.id for t in self.tasks.values() if parent in t.parents and t.status not in ENDED}

    def refusal(self, batch: Sequence[NewTask]) -> tuple[str, str] | None:
        """Why this batch cannot be stored: reason and the id in the way."""
        known = {task.id: task.status for task in self.tasks.values()}
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

    def claim(self, worker: str, n: int) -> list[str]:
        claimed: list[str] = []
        while len(claimed) < n:
            before, queue = self.streak, self._next_queue()
            if not queue:
                break
            task = self.tasks[queue[0]]
            if task.crashes and claimed:
                self.streak = before
                break
            claimed.append(queue.pop(0))
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
        last = task.history[-1] if task and task.history else None
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
        return len(gone)

    def cancel(self, task_id: str) -> str:
        task = self.tasks.get(task_id)
        if task is None:
            return "unknown"
        if task.status not in ("pending", "scheduled", "retrying", "waiting"):
            return task.status
        if task.status == "pending":
            self.queues[task.request.priority].remove(task_id)
        task.status = "cancelled"
        self.counters["cancelled"] += 1
        self._cancel_children(task_id)
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
            self._cancel_children(task_id)
        self.counters["discarded"] += len(found)
        return found

    def _next_queue(self) -> list[str]:
        high, normal = self.queues.values()
        normal_turn = self.streak >= BURST
        queue = normal if normal and (normal_turn or not high) else high
        self.streak = self.streak + 1 if queue is high and normal and not normal_turn else 0
        return queue

    def _release(self, task: Known) -> None:
        """To where a task goes that is new or has lost a parent it waited for."""
        if self.unmet(task):
            task.status = "waiting"
        elif task.request.delay:
            task.status = "scheduled"
        else:
            self._enqueue(task)

    def _enqueue(self, task: Known, front: bool = False) -> None:
        task.status, queue = "pending", self.queues[task.request.priority]
        queue.insert(0 if front else len(queue), task.id)

    def _bury(self, task: Known) -> None:
        task.status = "failed"
        self.dead.append(task.id)
        self.counters["dead_lettered"] += 1

    def _dig_up(self, ids: Sequence[str]) -> list[str]:
        found = [task_id for task_id in dict.fromkeys(ids) if task_id in self.dead]
        self.dead = [task_id for task_id in self.dead if task_id not in found]
        return found

    def _cancel_children(self, task_id: str) -> None:
        while children := self.children_left(task_id):
            child = children.pop()
            self.tasks[child].status = "cancelled"
            self.counters["cancelled"] += 1
            self._cancel_children(child)


class Observed:
    """All that is in Redis, read in two round trips."""

    def __init__(self, broker: Broker) -> None:
        k = broker.keys
        with broker.redis.pipeline() as pipe:
            for key in (k.pending_high, k.pending, k.dead_letter):
                pipe.lrange(key, 0, -1)
            for key in (k.processing, k.delayed, k.waiting, k.finished):
                pipe.zrange(key, 0, -1)
            pipe.get(k.completed).zcard(k.wake).hgetall(k.counters).keys()
            *places, completed, self.markers, counted, keys = pipe.execute()
        high, normal, dead, processing, delayed, waiting, finished = (
            [member.decode() for member in place] for place in places
        )
        self.queues: dict[Priority, list[str]] = {"high": high[::-1], "normal": normal[::-1]}
        self.dead = dead[::-1]
        self.places = {"pending": high + normal, "processing": processing, "delayed": delayed}
        self.places |= {"waiting": waiting, "finished": finished, "dead_letter": dead}
        self.completed = int(completed or 0)
        self.counters = {name.decode(): int(n) for name, n in counted.items()}
        self._read(broker, sorted(key.decode() for key in keys))

    def _read(self, broker: Broker, keys: list[str]) -> None:
        k = broker.keys
        ids = [key.removeprefix(k.task) for key in keys if key.startswith(k.task)]
        sets = [key for key in keys if key.startswith((k.dependencies, k.dependents))]
        with broker.redis.pipeline() as pipe:
            for task_id in ids:
                pipe.get(k.task + task_id).ttl(k.task + task_id)
            for key in sets:
                pipe.smembers(key)
            answers = pipe.execute()
        self.tasks = dict(zip(ids, map(parse, answers[: 2 * len(ids) : 2]), strict=True))
        self.forgettable = {
            task_id for task_id, ttl in zip(ids, answers[1 : 2 * len(ids) : 2], strict=True) if ttl > 0
        }
        self.sets = {
            key: {member.decode() for member in members}
            for key, members in zip(sets, answers[2 * len(ids) :], strict=True)
        }


numbers = st.integers(0, 1000)
indexes = st.lists(numbers, min_size=1, max_size=3)
outcome = st.sampled_from(["complete", "complete", "complete", "fail", "timeout", "hopeless"])
wish = st.tuples(
    st.sampled_from(["normal", "high"]),
    st.sampled_from([False, False, True]),  # delayed?
    st.just([]) | st.lists(numbers, max_size=2),  # parents
)
Wish = tuple[Priority, bool, list[int]]
traffic = st.tuples(st.lists(wish, max_size=2), numbers, st.lists(outcome, max_size=3), st.integers(0, 3))


def some(things: Sequence[Any], numbers: Sequence[int]) -> list[Any]:
    """A choice: different things, in the order of the numbers; small numbers choose from all of them."""
    chosen = dict.fromkeys(number * 7919 % len(things) for number in numbers) if things else {}
    return [things[i] for i in chosen]


def transition(*needed: str, **arguments: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that needs a task in one of these states. After it the world goes on: tasks come and go."""

    def decorate(do: Callable[..., None]) -> Any:
        @functools.wraps(do)
        def step(self: "Queue", traffic: tuple[list[Wish], int, list[str], int], **drawn: Any) -> None:
            do(self, **drawn)
            self.go_on(*traffic)

        possible = precondition(lambda self: not needed or bool(self.model.having(*needed)))
        return possible(rule(traffic=traffic, **arguments)(step))

    return decorate


class Queue(RuleBasedStateMachine):
    """Does each thing to the model and to the broker; answers and states must be the same."""

    broker: Broker  # set by the test
    reached: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.broker.redis.flushall()
        self.model = Model()
        self.handles: list[Handle] = []
        self.results: dict[str, bytes] = {}  # the first that was ever stored
        self.submitted = 0

    # ------------------------------------------------------------ rules

    @transition(wishes=st.lists(wish, min_size=1, max_size=5))
    def submit(self, wishes: list[Wish]) -> None:
        self._submit(self._batch(wishes, [*self._possible_parents() * 4, *self.model.tasks, "ghost"]))

    @transition(*PLACES, number=numbers)
    def submit_again(self, number: int) -> None:
        [old] = some([task.request for task in self.model.tasks.values()], [number])
        assert self.broker.submit([old]) == []
        with pytest.raises(Refused):
            self.broker.submit(
                [self._new("normal", False, []), msgspec.structs.replace(old, fingerprint="other")]
            )

    @transition("pending", worker=st.sampled_from(WORKERS), n=st.integers(1, 4))
    def claim(self, worker: str, n: int) -> None:
        self.broker.wait(0.01)  # takes the marker, as an idle worker does
        self._exchange(worker, [], n)

    @transition("processing", number=numbers, how=outcome)
    def report_twice(self, number: int, how: str) -> None:
        """The second time, nothing must change."""
        [handle] = some(self._held(), [number])
        self._exchange(handle.worker, [(handle, how)], 0)
        self._exchange(handle.worker, [(handle, how)], 0)

    @transition(*PLACES, numbers=indexes, worker=st.sampled_from(WORKERS), how=outcome)
    def report_late(self, numbers: list[int], worker: str, how: str) -> None:
        """On tasks that were held once, perhaps by somebody else."""
        handles = some(self.handles, numbers)
        self._exchange(worker, [(handle, how) for handle in handles], 0)

    @transition("processing", numbers=indexes, started=st.booleans())
    def release(self, numbers: list[int], started: bool) -> None:
        mine = self._of_one_worker(numbers)
        expected = self.model.release(mine, started)
        assert self.broker.release(mine[0].worker, [handle.task for handle in mine], started) == expected

    @transition("processing", numbers=indexes)
    def beat(self, numbers: list[int]) -> None:
        mine = self._of_one_worker(numbers)
        lost = self.broker.heartbeat(
            WorkerInfo(id=mine[0].worker, status="busy"), [handle.task for handle in mine]
        )
        assert lost == {handle.task.id for handle in mine if not self.model.held(handle)}

    @transition("processing", numbers=indexes)
    def lose_workers(self, numbers: list[int]) -> None:
        self._lose(some(self.model.having("processing"), numbers))

    @transition("scheduled", "retrying", numbers=indexes)
    def come_due(self, numbers: list[int]) -> None:
        self._come_due(some(self.model.having("scheduled", "retrying"), numbers))

    @transition(*ENDED, numbers=indexes)
    def age(self, numbers: list[int]) -> None:
        ids = some(self.model.having(*ENDED), numbers)
        make_old(self.broker, *ids)
        assert maintain(self.broker) == (0, 0, 0, 0, self.model.age(ids), 0)

    @transition(*PLACES, number=numbers)
    def cancel(self, number: int) -> None:
        [task_id] = some([*self.model.tasks, "ghost"], [number])
        assert self.broker.cancel(task_id) == self.model.cancel(task_id)

    @transition("failed", numbers=indexes, discard=st.booleans())
    def decide(self, numbers: list[int], discard: bool) -> None:
        """About dead tasks; others that are named too must be left alone."""
        ids = some([*self.model.dead * 5, *self.model.tasks, "ghost"], numbers)
        expected = (self.model.discard if discard else self.model.requeue)(ids)
        assert (self.broker.discard if discard else self.broker.requeue)(ids) == expected

    @transition("failed", discard=st.booleans())
    def decide_about_all(self, discard: bool) -> None:
        expected = (self.model.discard if discard else self.model.requeue)(list(self.model.dead))
        assert (self.broker.discard if discard else self.broker.requeue)() == expected

    def go_on(self, wishes: list[Wish], number: int, outcomes: list[str], n: int) -> None:
        """Some tasks are submitted; one worker reports what it has done, and claims."""
        if wishes:
            self._submit(self._batch(wishes, self._possible_parents()))
        mine = self._of_one_worker([number, number + 1, number + 2])
        worker = mine[0].worker if mine else WORKERS[number % len(WORKERS)]
        self._exchange(worker, list(zip(mine, outcomes, strict=False)), n)

    # ------------------------------------------------------------ what the rules are made of

    def _new(self, priority: Priority, delayed: bool, parents: list[str]) -> NewTask:
        self.submitted += 1
        name = f"t{self.submitted}"
        data = msgspec.Raw(f'{{"name": "{name}", "empty": [], "n": 12345678901234567890}}'.encode())
        delay = HOUR if delayed else 0.0
        return NewTask(id=name, type="noop", data=data, priority=priority, delay=delay, depends_on=parents,
                       fingerprint=name)  # fmt: skip

    def _batch(self, wishes: list[Wish], parents: list[str]) -> list[NewTask]:
        batch: list[NewTask] = []
        for priority, delayed, chosen in wishes:
            batch.append(self._new(priority, delayed, some(parents, chosen)))
            parents.append(batch[-1].id)  # a parent may be in the same batch
        return batch

    def _possible_parents(self) -> list[str]:
        return self.model.having(*PLACES.keys() - {"cancelled"})

    def _held(self) -> list[Handle]:
        """Handles whose owners are right."""
        return [handle for handle in self.handles if self.model.held(handle)]

    def _of_one_worker(self, numbers: Sequence[int]) -> list[Handle]:
        """Handles of one worker: tasks that it holds, and some that it only believes to hold."""
        held = self._held()
        if not held:
            return []
        [worker] = {handle.worker for handle in some(held, numbers[:1])}
        mine = [handle for handle in [*held, *self.handles[-3:]] if handle.worker == worker]
        return some(mine, [mine.index(some(held, numbers[:1])[0]), *numbers[1:]])

    def _submit(self, batch: list[NewTask]) -> None:
        if refusal := self.model.refusal(batch):
            with pytest.raises(Refused) as refused:
                self.broker.submit(batch)
            assert (refused.value.reason, refused.value.task_id) == refusal
        else:
            self.model.submit(batch)
            assert self.broker.submit(batch) == [task.id for task in batch]

    def _lose(self, ids: list[str]) -> None:
        end_leases(self.broker, *ids)
        assert maintain(self.broker) == (0, *self.model.lose(ids), 0, 0, 0)

    def _come_due(self, ids: list[str]) -> None:
        make_due(self.broker, *ids)
        self.model.come_due(ids)
        assert maintain(self.broker) == (len(ids), 0, 0, 0, 0, 0)

    def _exchange(self, worker: str, outcomes: list[tuple[Handle, str]], n: int) -> None:
        claims = [(Handle(worker, handle.task), how) for handle, how in outcomes]
        reports = [self._report(handle, how) for handle, how in claims]
        words = self._expected_words(list(zip(claims, reports, strict=True)))
        if len(self.model.unordered) > 1:
            n = 0  # which of them comes next is not for the model to say
        expected = self.model.claim(worker, n) if n else []
        verdicts, claimed = self.broker.report_and_claim(worker, reports, n)
        assert [verdict.word for verdict in verdicts] == words
        assert [task.id for task in claimed] == expected
        self.handles += [Handle(worker, task) for task in claimed]

    def _report(self, handle: Handle, how: str) -> Completed | Failed:
        task, ended = handle.task, time.monotonic()
        if how == "complete":
            result = (
                f'{{"of": "{task.id}", "by": "{handle.worker}", "attempt": {task.attempts}, "empty": {{}}}}'
            )
            return Completed(task, 0.0, ended, result.encode())
        outcome, retries = ("timeout" if how == "timeout" else "failed"), (0 if how == "hopeless" else 2)
        return Failed(task, 0.0, ended, outcome, how, retries)  # type: ignore[arg-type]

    def _expected_words(self, said: list[tuple[tuple[Handle, str], Completed | Failed]]) -> list[str]:
        """What the verdicts should be."""
        return [
            self.model.complete(handle, report.result)
            if isinstance(report, Completed)
            else self.model.fail(handle, report.retries, report.outcome)
            for (handle, _), report in said
        ]

    # ------------------------------------------------------------ what must hold after each step

    @invariant()
    def agrees(self) -> None:
        seen, model = Observed(self.broker), self.model
        self._check_order(seen)
        assert seen.tasks.keys() == model.tasks.keys()  # nothing disappears, nothing comes up by itself
        self.reached.update(task.status for task in model.tasks.values())
        self._check_places(seen)
        for task_id, task in seen.tasks.items():
            self._check_task(task, model.tasks[task_id])
        self._check_dependencies(seen)
        assert seen.dead == model.dead
        assert seen.completed == model.completions
        assert seen.counters == {name: n for name, n in model.counters.items() if n}
        assert seen.markers == 1 or not seen.places["pending"]  # nobody sleeps while there is work

    def _check_order(self, observed: Observed) -> None:
        """The order of the queues. Siblings that became free at once may be in any: it is adopted."""
        seen, model = observed.queues, self.model
        for priority, queue in model.queues.items():
            settled = [task_id for task_id in queue if task_id not in model.unordered]
            assert [task_id for task_id in seen[priority] if task_id not in model.unordered] == settled
            assert sorted(seen[priority]) == sorted(queue)
        model.queues, model.unordered = seen, set()

    def _check_places(self, seen: Observed) -> None:
        """Each id is in exactly one place, and its status says in which."""
        found = Counter(task_id for place in seen.places.values() for task_id in place)
        assert found == Counter(seen.tasks.keys())
        for place, ids in seen.places.items():
            assert {PLACES[seen.tasks[task_id].status] for task_id in ids} <= {place}

    def _check_task(self, task: Stored, known: Known) -> None:
        held = known.status in ("processing", "completed")
        assert (task.status, task.attempts, task.retry_count, task.crashes) == (
            known.status, known.attempts, known.retries, known.crashes,
        )  # fmt: skip
        assert task.worker_id == (known.worker if held else None)
        assert [(entry.attempt, entry.worker, entry.outcome) for entry in task.history] == known.history
        assert (task.priority, task.depends_on) == (known.request.priority, known.parents)
        assert bytes(task.data) == bytes(known.request.data)
        later = known.status == "waiting" and known.request.delay > 0
        assert (task.due is not None) == (later or known.status in ("retrying", "scheduled"))
        assert (task.completed_at is not None) == (known.status in ENDED)
        if known.status == "completed":
            assert bytes(task.result) == self.results.setdefault(task.id, known.result)
        else:
            assert task.result is None
            assert task.id not in self.results  # a result that was stored once is never lost

    def _check_dependencies(self, seen: Observed) -> None:
        model, k = self.model, self.broker.keys
        sets = {
            k.dependencies + task_id: model.unmet(model.tasks[task_id]) for task_id in model.having("waiting")
        }
        assert all(sets.values())  # who waits has someone to wait for
        needed = {task_id: children for task_id in model.tasks if (children := model.children_left(task_id))}
        sets |= {k.dependents + task_id: children for task_id, children in needed.items()}
        assert seen.sets == sets
        assert seen.forgettable == set(model.having(*ENDED)) - needed.keys()

    # ------------------------------------------------------------ in the end

    def teardown(self) -> None:
        """Whatever happened: with one good worker and a human who requeues, each task comes to its end."""
        rounds = 0
        while unfinished := [task for task in self.model.tasks.values() if task.status not in ENDED]:
            rounds += 1
            assert rounds <= 3 * self.submitted + 3, unfinished
            self._lose(self.model.having("processing"))
            self._come_due(self.model.having("scheduled", "retrying"))
            assert self.broker.requeue() == self.model.requeue(list(self.model.dead))
            before = len(self.handles)
            self._exchange("ann", [], 10)
            self._exchange("ann", [(handle, "complete") for handle in self.handles[before:]], 0)
            self.agrees()


def known_to_the_server(broker: Broker) -> None:
    """Runs the scripts that share a round trip once: one that is unknown there runs after the others."""
    for end in (complete, fail):
        submit(broker)
        assert end(broker, claim_one(broker)) in ("completed", "retry")


@pytest.mark.timeout(600)  # a failure is shrunk, which takes longer than to find it
def test_the_queue_does_what_its_model_does(tmp_path: Path) -> None:
    rules = {
        "lease": HOUR,
        "backoff_base": HOUR,
        "backoff_cap": HOUR,
        "max_crashes": CRASHES,
        "high_burst": BURST,
    }
    with RedisServer(tmp_path) as server:
        Queue.broker = Broker(server.url, Settings(_env_file=None, **rules))  # type: ignore[arg-type]
        known_to_the_server(Queue.broker)
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Queue,
            settings=settings(
                max_examples=60,
                stateful_step_count=25,
                deadline=None,
                report_multiple_bugs=False,
                phases=set(Phase) - {Phase.explain},  # which would take minutes
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
        assert Queue.reached == set(Status)  # else the rules would not lead far enough
        Queue.broker.close()
