"""The queue against a model of it: random transitions in random order, and after each the two must agree.

Hypothesis searches for a sequence of transitions after which the real queue differs from its model, and
shrinks it to the shortest one. Time does not pass by itself: leases, delays and results last an hour, until a
rule ends them. One machine lets each script do so little that maintenance must often go on with it; the other
has workers that do not know all types.
"""

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
from dtq.queue import bounds
from dtq.queue.broker import PARKED_ID, Broker
from dtq.queue.maintenance import Maintained
from dtq.queue.reports import Completed, Failed
from dtq.queue.task import NewTask, Priority, Status, Stored, parse
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from tests.queue.model import ACTIVE, BURST, CRASHES, ENDED, Handle, Known, Model
from tests.steps import (
    claim_one,
    complete,
    end_leases,
    fail,
    maintain,
    make_due,
    make_old,
    now,
    places,
    status,
    submit,
)

log = logging.getLogger(__name__)
WORKERS = ("ann", "bob", "cid")
HOUR = 3600.0
SMALL_WORK = 4  # so many tasks are the most that a script reads
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
BREAKAGES: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda document: b"no JSON",
    "cut off": lambda document: document[: len(document) // 3],
    "no attempts": lambda document: document.replace(b'"attempts":', b'"tries":', 1),
    "another id": lambda document: document.replace(b'{"id":"', b'{"id":"not-', 1),
}


class Order:
    """The pending tasks in Redis, the next to be claimed first.

    Attributes:
        queues: ids by priority.
        parked: the same for those that wait for a worker who knows them.
        has_ties: whether parked tasks of two types have the same turn, so that either may be the next.
    """

    def __init__(self, broker: Broker) -> None:
        with broker.redis.pipeline() as pipe:
            pipe.lrange(broker.keys.pending_high, 0, -1).lrange(broker.keys.pending, 0, -1)
            high, normal, members = pipe.zrange(broker.keys.parked, 0, -1).execute()
        self.queues = {"high": decoded(high)[::-1], "normal": decoded(normal)[::-1]}
        self.parked: dict[str, list[str]] = {"high": [], "normal": []}
        # A member is 40 characters for the type, 1 for the priority, 20 for the turn, then the id.
        members.sort(key=lambda member: member[41:PARKED_ID])
        for member in members:
            self.parked["high" if member[40:41] == b"h" else "normal"].append(member[PARKED_ID:].decode())
        self.has_ties = len({member[40:PARKED_ID] for member in members}) < len(members)


class Observed:
    """All that is in Redis, read in three round trips."""

    def __init__(self, broker: Broker) -> None:
        k, self.order = broker.keys, Order(broker)
        with broker.redis.pipeline() as pipe:
            pipe.lrange(k.dead_letter, 0, -1).lrange(k.unreadable, 0, -1)
            for key in (k.processing, k.delayed, k.waiting, k.finished, k.completed_at, k.task_times):
                pipe.zrange(key, 0, -1)
            pipe.get(k.completed).zcard(k.wake).hgetall(k.counters).keys()
            *ids, completed, self.markers, counted, keys = pipe.execute()
        places = ("dead_letter", "unreadable", "processing", "delayed", "waiting", "finished")
        self.places = dict(zip(places, map(decoded, ids[:-2]), strict=True))
        pending = [*self.order.queues.values(), *self.order.parked.values()]
        self.places["pending"] = [task_id for place in pending for task_id in place]
        self.dead = self.places["dead_letter"][::-1]
        self.timed = [sorted(decoded(members)) for members in ids[-2:]]
        self.completed = int(completed or 0)
        self.counters = {name.decode(): int(n) for name, n in counted.items()}
        self._read(broker, sorted(decoded(keys)))

    def _read(self, broker: Broker, keys: list[str]) -> None:
        k = broker.keys
        self.ids = [key.removeprefix(k.task) for key in keys if key.startswith(k.task)]
        ids = [task_id for task_id in self.ids if task_id not in self.places["unreadable"]]
        unmet = [key for key in keys if key.startswith(k.dependencies)]
        children = [key for key in keys if key.startswith(k.dependents)]
        with broker.redis.pipeline() as pipe:
            for task_id in ids:
                pipe.get(k.task + task_id)
            for task_id in ids:
                pipe.ttl(k.task + task_id)
            for key in unmet:
                pipe.smembers(key)
            for key in children:
                pipe.zrange(key, 0, -1)
            answers = pipe.execute()
        n = len(ids)
        self.tasks = dict(zip(ids, map(parse, answers[:n]), strict=True))
        self.forgettable = {task_id for task_id, ttl in zip(ids, answers[n : 2 * n], strict=True) if ttl > 0}
        links = zip([*unmet, *children], answers[2 * n :], strict=True)
        self.links = {key: set(decoded(members)) for key, members in links}


def decoded(members: Iterable[bytes]) -> list[str]:
    return [member.decode() for member in members]


numbers = st.integers(0, 1000)
indexes = st.lists(numbers, min_size=1, max_size=3)
outcome = st.sampled_from(["complete", "complete", "complete", "fail", "timeout", "hopeless"])
wish = st.tuples(
    st.sampled_from(["normal", "high"]),
    st.sampled_from([False, False, True]),  # delayed?
    st.just([]) | st.lists(numbers, max_size=2),  # parents
    st.sampled_from([0, 0, 1]),  # which of the types
)
Wish = tuple[Priority, bool, list[int], int]
traffic = st.tuples(st.lists(wish, max_size=2), numbers, st.lists(outcome, max_size=3), st.integers(0, 3))


def some(things: Sequence[Any], numbers: Sequence[int]) -> list[Any]:
    """A choice: different things, in the order of the numbers; small numbers choose from all of them."""
    chosen = dict.fromkeys(number * 7919 % len(things) for number in numbers) if things else {}
    return [things[i] for i in chosen]


def in_parts(ids: list[str]) -> list[list[str]]:
    """As many at a time as a script can do."""
    return [ids[at : at + SMALL_WORK] for at in range(0, len(ids), SMALL_WORK)]


def transition(*needed: str, **arguments: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that needs a task in one of these states. After it the world goes on: tasks come and go."""

    def decorate(do: Callable[..., None]) -> Any:
        @functools.wraps(do)
        def step(self: "Queue", traffic: tuple[list[Wish], int, list[str], int], **drawn: Any) -> None:
            do(self, **drawn)
            self.tally["steps"] += 1
            self.go_on(*traffic)

        possible = precondition(lambda self: not needed or bool(self.model.having(*needed)))
        return possible(rule(traffic=traffic, **arguments)(step))

    return decorate


class Queue(RuleBasedStateMachine):
    """Does each thing to the model and to the broker; answers and states must be the same.

    Its scripts may do so little that children are told in slices: see the test.
    """

    broker: Broker  # set by the test
    types: ClassVar[list[str]] = ["noop"]
    knows: ClassVar[dict[str, list[str]]] = {worker: [] for worker in WORKERS}  # they claim whatever is next
    sure: ClassVar[int] = 0  # so many children that became free may be there when the same worker claims
    tally: ClassVar[Counter[str]] = Counter()  # of what it has met

    def __init__(self) -> None:
        super().__init__()
        self.broker.redis.flushall()
        self.model = Model()
        self.handles: list[Handle] = []
        self.results: dict[str, bytes] = {}  # the first that was ever stored
        self.submitted = 0
        self.tied = False  # whether two parked tasks have the same turn

    # ------------------------------------------------------------ rules

    @transition(wishes=st.lists(wish, min_size=1, max_size=5))
    def submit(self, wishes: list[Wish]) -> None:
        self._submit(self._batch(wishes, [*self._possible_parents() * 4, *self.model.tasks, "ghost"]))

    @transition(*PLACES, number=numbers)
    def submit_again(self, number: int) -> None:
        [old] = some([self.model.tasks[task_id].request for task_id in self.model.having(*PLACES)], [number])
        assert self.broker.submit([old]) == []
        with pytest.raises(Refused):
            self.broker.submit([self._new(), msgspec.structs.replace(old, fingerprint="other")])

    @transition("pending", worker=st.sampled_from(WORKERS), n=st.integers(1, 4))
    def claim(self, worker: str, n: int) -> None:
        self.broker.redis.zpopmin(self.broker.keys.wake)  # as an idle worker does
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
        info = WorkerInfo(id=mine[0].worker, status="busy", types=self.knows[mine[0].worker])
        lost = self.broker.heartbeat(info, [handle.task for handle in mine])
        assert lost == {handle.task.id for handle in mine if not self.model.held(handle)}
        published = self.broker.redis.zrangebyscore(self.broker.keys.types, now(self.broker), "+inf")
        assert set(info.types) <= set(decoded(published))

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

    @transition(*ENDED, number=numbers, wish=wish)
    def use_again(self, number: int, wish: Wish) -> None:
        """An id whose document has expired names another task. Its entry of old must not harm the new one."""
        free = [task_id for task_id in self.model.having(*ENDED) if not self.model.children_left(task_id)]
        for task_id in some(free, [number]):
            make_old(self.broker, task_id)
            self.broker.redis.delete(self.broker.keys.task + task_id)
            assert self.model.age([task_id]) == 1
            self.results.pop(task_id, None)
            self._submit([self._new(*self._drawn(wish, self._possible_parents()), name=task_id)])
            assert maintain(self.broker) == Maintained()
            self.tally["ids used again"] += 1

    @transition(*ACTIVE, number=numbers, how=st.sampled_from([*BREAKAGES, "a list"]))
    def break_document(self, number: int, how: str) -> None:
        """Somebody writes into Redis by hand. The task is set aside, and nobody else is affected."""
        [task_id] = some(self.model.having(*ACTIVE), [number])
        redis, key = self.broker.redis, self.broker.keys.task + task_id
        document = redis.get(key)
        assert document is not None
        if how == "a list":
            redis.delete(key)
            redis.rpush(key, document)
        else:
            redis.set(key, BREAKAGES[how](document))
        self.model.break_document(task_id)
        assert maintain(self.broker) == Maintained()
        assert self.broker.cancel(task_id) == "unknown"
        for reason, new in (
            ("conflict", self.model.tasks[task_id].request),
            ("unknown", self._new(parents=[task_id])),
        ):
            with pytest.raises(Refused) as refused:
                self.broker.submit([new])
            assert (refused.value.reason, refused.value.task_id) == (reason, task_id)
        self.tally["broken documents"] += 1

    @transition(*ACTIVE, "unreadable", number=numbers)
    def delete_document(self, number: int) -> None:
        self._delete_documents(some(self.model.having(*ACTIVE, "unreadable"), [number]))
        self.tally["deleted documents"] += 1

    @transition(*PLACES, number=numbers)
    def cancel(self, number: int) -> None:
        [task_id] = some([*self.model.tasks, "ghost"], [number])
        assert self.broker.cancel(task_id) == self.model.cancel(task_id)
        self._settle()

    @transition("failed", numbers=indexes, discard=st.booleans())
    def decide(self, numbers: list[int], discard: bool) -> None:
        """About dead tasks; others that are named too must be left alone."""
        ids = some([*self.model.dead * 5, *self.model.tasks, "ghost"], numbers)
        expected = (self.model.discard if discard else self.model.requeue)(ids)
        assert (self.broker.discard if discard else self.broker.requeue)(ids) == expected
        self._settle()

    @transition("failed", discard=st.booleans())
    def decide_about_all(self, discard: bool) -> None:
        expected = (self.model.discard if discard else self.model.requeue)(list(self.model.dead))
        assert (self.broker.discard if discard else self.broker.requeue)() == expected
        self._settle()

    def go_on(self, wishes: list[Wish], number: int, outcomes: list[str], n: int) -> None:
        """Some tasks are submitted; one worker reports what it has done, and claims."""
        if wishes:
            self._submit(self._batch(wishes, self._possible_parents()))
        mine = self._of_one_worker([number, number + 1, number + 2])
        worker = mine[0].worker if mine else WORKERS[number % len(WORKERS)]
        self._exchange(worker, list(zip(mine, outcomes, strict=False)), n)

    # ------------------------------------------------------------ what the rules are made of

    def _new(
        self,
        priority: Priority = "normal",
        delayed: bool = False,
        parents: Sequence[str] = (),
        type: str = "noop",
        name: str = "",
    ) -> NewTask:
        self.submitted += 1
        content = f"t{self.submitted}"
        data = msgspec.Raw(f'{{"name": "{content}", "empty": [], "n": 12345678901234567890}}'.encode())
        delay = HOUR if delayed else 0.0
        return NewTask(id=name or content, type=type, data=data, priority=priority, delay=delay,
                       depends_on=list(parents), fingerprint=content)  # fmt: skip

    def _drawn(self, wish: Wish, parents: list[str]) -> tuple[Priority, bool, list[str], str]:
        priority, delayed, chosen, nth = wish
        return priority, delayed, some(parents, chosen), self.types[nth % len(self.types)]

    def _batch(self, wishes: list[Wish], parents: list[str]) -> list[NewTask]:
        batch: list[NewTask] = []
        for wish in wishes:
            batch.append(self._new(*self._drawn(wish, parents)))
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
        recovered, dead = self.model.lose(ids)
        assert maintain(self.broker) == Maintained(recovered=recovered, dead=dead)
        self.tally["recoveries"] += recovered

    def _come_due(self, ids: list[str]) -> None:
        make_due(self.broker, *ids)
        self.model.come_due(ids)
        assert maintain(self.broker) == Maintained(due=len(ids))

    def _exchange(self, worker: str, outcomes: list[tuple[Handle, str]], n: int) -> None:
        self._adopt_order()
        claims = [(Handle(worker, handle.task), how) for handle, how in outcomes]
        reports = [self._report(handle, how) for handle, how in claims]
        words = self._expected_words(list(zip(claims, reports, strict=True)))
        types = self.knows[worker]
        if len(self.model.unordered) > self.sure or (self.tied and len(types) > 1):
            n = 0  # which of them comes next is not for the model to say
        expected = self.model.claim(worker, n, types)
        verdicts, claimed = self.broker.report_and_claim(worker, reports, n, types)
        assert [verdict.word for verdict in verdicts] == words
        assert [task.id for task in claimed] == expected
        self.handles += [Handle(worker, task) for task in claimed]
        self.tally["stale reports"] += words.count("stale")
        self._settle()

    def _delete_documents(self, ids: list[str]) -> None:
        """By hand: maintenance lets the ids go, and cancels what waits for them."""
        for task_id in ids:
            self.broker.redis.delete(self.broker.keys.task + task_id)
        hopeless, rounds = self.model.let_go(ids), 0
        while any(places(self.broker, task_id) for task_id in ids) or any(
            status(self.broker, child) != "cancelled" for child in hopeless
        ):
            rounds += 1
            assert rounds <= 60 + len(hopeless)  # chance decides which of a child's parents is looked at
            assert maintain(self.broker) == Maintained()
            self._settle()

    def _settle(self) -> None:
        """Maintenance tells the children that a script has left to it."""
        while self.broker.redis.exists(self.broker.keys.unsettled):
            assert maintain(self.broker) == Maintained()
            self.tally["slices"] += 1

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
        self._check_order(seen.order)
        assert set(seen.ids) == model.tasks.keys()  # nothing disappears, nothing comes up by itself
        self.tally.update(task.status for task in model.tasks.values())
        self._check_places(seen)
        for task_id, task in seen.tasks.items():
            self._check_task(task, model.tasks[task_id])
        self._check_links(seen)
        assert seen.dead == model.dead
        assert seen.completed == model.completions
        assert seen.timed == [sorted(model.having("completed"))] * 2
        assert seen.counters == {name: n for name, n in model.counters.items() if n}
        assert seen.markers == 1 or not any(seen.order.queues.values())  # nobody sleeps while there is work

    def _adopt_order(self) -> None:
        """What Redis may choose in the order of pending tasks is read before it matters."""
        if self.model.unordered or any(self.model.parked.values()):
            self._check_order(Order(self.broker))

    def _check_order(self, seen: Order) -> None:
        """The order of the queues. Siblings that became free at once may be in any, and so may parked tasks
        of two types that were parked within a millisecond: it is adopted.
        """
        model = self.model
        for priority, queue in model.queues.items():
            settled = [task_id for task_id in queue if task_id not in model.unordered]
            assert [task_id for task_id in seen.queues[priority] if task_id not in model.unordered] == settled
            assert sorted(seen.queues[priority]) == sorted(queue)
            assert sorted(seen.parked[priority]) == sorted(model.parked[priority])
            assert self._by_type(seen.parked[priority]) == self._by_type(model.parked[priority])
        model.queues, model.parked, model.unordered = seen.queues, seen.parked, set()
        self.tied = seen.has_ties

    def _by_type(self, ids: list[str]) -> dict[str, list[str]]:
        """In the same order for each type."""
        requests = [self.model.tasks[task_id].request for task_id in ids]
        return {name: [new.id for new in requests if new.type == name] for name in self.types}

    def _check_places(self, seen: Observed) -> None:
        """Each id is in exactly one place, and its status says in which."""
        found = Counter(task_id for place in seen.places.values() for task_id in place)
        assert found == Counter(seen.ids)
        assert set(seen.places["unreadable"]) == set(self.model.having("unreadable"))
        for place, ids in seen.places.items():
            if place != "unreadable":
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
        reasons = {f"cancelled because it depends on {reason}" for reason in known.reasons}
        assert not reasons or task.error in reasons
        if known.status == "completed":
            assert bytes(task.result) == self.results.setdefault(task.id, known.result)
        else:
            assert task.result is None
            assert task.id not in self.results  # a result that was stored once is never lost

    def _check_links(self, seen: Observed) -> None:
        model, k = self.model, self.broker.keys
        links = {
            k.dependencies + task_id: model.unmet(model.tasks[task_id]) for task_id in model.having("waiting")
        }
        assert all(links.values())  # who waits has someone to wait for
        needed = {task_id: children for task_id in model.tasks if (children := model.children_left(task_id))}
        links |= {k.dependents + task_id: children for task_id, children in needed.items()}
        assert seen.links == links
        assert seen.forgettable == set(model.having(*ENDED)) - needed.keys()

    # ------------------------------------------------------------ in the end

    def teardown(self) -> None:
        """Whatever happened: with good workers and a human who decides, each task comes to its end."""
        rounds = 0
        while active := self.model.having(*ACTIVE):
            rounds += 1
            assert rounds <= 4 * self.submitted + 4, active
            self._lose(self.model.having("processing"))
            for ids in in_parts(self.model.having("scheduled", "retrying")):
                self._come_due(ids)
            assert self.broker.requeue() == self.model.requeue(list(self.model.dead))
            before, worker = len(self.handles), WORKERS[rounds % len(WORKERS)]
            self._exchange(worker, [], SMALL_WORK)
            self._exchange(worker, [(handle, "complete") for handle in self.handles[before:]], 0)
            self.agrees()
        self._delete_documents(self.model.having("unreadable"))  # nobody can mend them
        assert not self.model.having("waiting")
        self.agrees()
        self.tally["parked tasks"] += self.model.parkings


class Specialists(Queue):
    """Workers that do not know all types: what they meet and do not know is parked for one that does."""

    types: ClassVar[list[str]] = ["noop", "rare"]
    knows: ClassVar[dict[str, list[str]]] = {"ann": ["noop", "rare"], "bob": ["noop"], "cid": ["rare"]}
    sure: ClassVar[int] = 1
    tally: ClassVar[Counter[str]] = Counter()  # of what it has met


def known_to_the_server(broker: Broker) -> None:
    """Runs the scripts that share a round trip once: one that is unknown there runs after the others."""
    for end in (complete, fail):
        submit(broker)
        assert end(broker, claim_one(broker)) in ("completed", "retry")


def run_against_the_model(machine: type[Queue], folder: Path) -> None:
    """Runs it on a server of its own, and logs what it has seen."""
    rules = {
        "lease": HOUR,
        "backoff_base": HOUR,
        "backoff_cap": HOUR,
        "max_crashes": CRASHES,
        "high_burst": BURST,
    }
    with RedisServer(folder) as server:
        machine.broker = Broker(server.url, Settings(_env_file=None, **rules))  # type: ignore[arg-type]
        known_to_the_server(machine.broker)
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            machine,
            settings=settings(
                max_examples=100,
                stateful_step_count=25,
                deadline=None,
                report_multiple_bugs=False,
                phases=set(Phase) - {Phase.explain},  # which would take minutes
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
        machine.broker.close()
    machine.tally = +machine.tally  # without what was never there
    log.info("%s has seen %s", machine.__name__, dict(machine.tally))


ALWAYS = {
    *Status,
    "steps",
    "recoveries",
    "stale reports",
    "ids used again",
    "unreadable",
    "broken documents",
    "deleted documents",
}


@pytest.mark.timeout(600)  # a failure is shrunk, which takes longer than to find it
def test_the_queue_does_what_its_model_does_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "WORK", SMALL_WORK)
    run_against_the_model(Queue, tmp_path)
    assert Queue.tally.keys() >= ALWAYS | {"slices"}  # else the rules would not lead far enough


@pytest.mark.timeout(600)
def test_workers_that_know_other_types_do_what_the_model_does(tmp_path: Path) -> None:
    run_against_the_model(Specialists, tmp_path)
    assert Specialists.tally.keys() >= ALWAYS | {"parked tasks"}
