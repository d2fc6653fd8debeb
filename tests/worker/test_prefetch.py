"""Short tasks are claimed in batches, long ones one by one; what was claimed too early is given back."""

from collections.abc import Callable, Iterable, Sequence

import pytest

from dtq.config import Settings
from dtq.queue.broker import Broker
from dtq.queue.reports import Report, Verdict
from dtq.queue.task import Stored
from dtq.worker.worker import Worker
from tests.helpers import new_task, wait_until
from tests.worker.conftest import Gate, Started

pytestmark = pytest.mark.timeout(method="thread")  # the other method's timer is the worker's here
RunUntil = Callable[..., None]


class Counting(Broker):
    """Notes how many tasks each claim asked for and got."""

    def __init__(self, url: str, settings: Settings) -> None:
        super().__init__(url, settings)
        self.claims: list[tuple[int, int]] = []

    def report_and_claim(
        self, worker_id: str, reports: Sequence[Report], n: int, types: Iterable[str] = ()
    ) -> tuple[list[Verdict], list[Stored]]:
        verdicts, claimed = super().report_and_claim(worker_id, reports, n, types)
        self.claims.append((n, len(claimed)))
        return verdicts, claimed


@pytest.fixture
def patient(make_broker: Callable[..., Broker]) -> Broker:
    """Its worker claims 64 tasks at once even where each takes some ms, such as on a busy machine."""
    return make_broker(prefetch_seconds=1.0)


def learn(broker: Broker) -> None:
    """Lets the worker learn that tasks are short."""
    broker.submit([new_task() for _ in range(200)])
    wait_until(lambda: broker.counts()["completed"] >= 200, what="it knows short tasks")


def test_short_tasks_are_claimed_in_batches(broker: Broker, redis_url: str, run_until: RunUntil) -> None:
    broker.submit([new_task() for _ in range(1000)])
    worker = Worker(counter := Counting(redis_url, broker.settings), "worker-1")

    run_until(worker, lambda: broker.counts()["completed"] == 1000)

    got = [claimed for _, claimed in counter.claims if claimed]
    assert sum(got) == 1000
    assert got[0] == 1, "it knows nothing of its tasks yet"
    assert max(got) == 64, "no more than `prefetch_max`"
    assert len(got) < 250
    assert worker.processed == 1000


def test_long_tasks_are_claimed_one_by_one(
    make_broker: Callable[..., Broker], redis_url: str, run_until: RunUntil
) -> None:
    broker = make_broker(prefetch_seconds=0.01)
    broker.submit([new_task("sleep", 0.02) for _ in range(10)])
    counter = Counting(redis_url, broker.settings)

    run_until(Worker(counter, "worker-1"), lambda: broker.counts()["completed"] == 10)

    assert {asked for asked, _ in counter.claims if asked} == {1}, "0: a report of the heartbeat thread"


@pytest.mark.parametrize(("settings", "most"), [({"prefetch_max": 5}, 5), ({"prefetch_seconds": 0}, 1)])
def test_prefetch_can_be_bounded(
    make_broker: Callable[..., Broker],
    redis_url: str,
    run_until: RunUntil,
    settings: dict[str, float],
    most: int,
) -> None:
    broker = make_broker(**settings)
    broker.submit([new_task() for _ in range(100)])
    counter = Counting(redis_url, broker.settings)

    run_until(Worker(counter, "worker-1"), lambda: broker.counts()["completed"] == 100)

    assert max(asked for asked, _ in counter.claims) == most


def test_what_a_long_task_holds_up_is_reported_and_given_back(
    patient: Broker, start_worker: Callable[..., Started], gate: Gate
) -> None:
    worker = start_worker(patient)
    learn(patient)
    before = [new_task() for _ in range(5)]
    long = new_task("gate", str(gate.folder))
    after = [new_task() for _ in range(20)]
    patient.submit([*before, long, *after])
    wait_until(gate.started)

    worker.says("gave 20 tasks back, the one in hand takes long")
    wait_until(lambda: patient.counts()["completed"] == 205, what="what was done before is reported")
    _, claimed = patient.report_and_claim("worker-2", [], 64)
    assert [task.id for task in claimed] == [task.id for task in after], "in their old order"
    assert {(task.attempts, task.crashes) for task in claimed} == {(1, 0)}
    gate.open()
    worker.says(f"task {long.id} completed in")


def test_what_a_long_task_holds_up_is_done_later_where_nobody_else_takes_it(
    patient: Broker, start_worker: Callable[..., Started], gate: Gate
) -> None:
    worker = start_worker(patient)
    learn(patient)
    patient.submit([new_task("gate", str(gate.folder)), *[new_task() for _ in range(20)]])

    worker.says("gave 20 tasks back, the one in hand takes long")
    gate.open()

    wait_until(lambda: patient.counts()["completed"] == 221, what="all are done")
    assert {task.attempts for task in patient.tasks(limit=1000)} == {1}
