"""The naive queue works, and loses what a killed worker had in its hands."""

from collections.abc import Iterator

import pytest

from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.lab.cluster.naive import NaiveQueue
from dtq.lab.witness.audits import audit
from dtq.queue.keys import Keys
from dtq.queue.task import Status
from tests.helpers import wait_until


@pytest.fixture
def queue(redis_url: str) -> Iterator[NaiveQueue]:
    queue = NaiveQueue(redis_url, "naive-1")
    queue.redis.flushall()  # this file's own server
    yield queue
    queue.redis.close()


def test_a_task_is_run_and_its_result_stored(queue: NaiveQueue) -> None:
    task_id = queue.submit("process", {"a": [1]})
    assert queue.tasks([task_id])[0].status == Status.PENDING

    queue.run_one()

    [task] = queue.tasks([task_id])
    assert (task.status, task.worker_id, task.result) == (
        Status.COMPLETED,
        "naive-1",
        {"processed": {"a": [1]}},
    )


def test_first_in_first_out(queue: NaiveQueue) -> None:
    first, second = queue.submit("noop"), queue.submit("noop")
    queue.run_one()

    assert [task.status for task in queue.tasks([first, second])] == [Status.COMPLETED, Status.PENDING]


def test_its_keys_are_its_own(queue: NaiveQueue) -> None:
    queue.submit("noop")

    assert {key.decode().split(":")[0] for key in queue.redis.scan_iter()} == {"naive"}
    assert Keys("naive:").pending == "naive:tasks:pending"


def test_it_says_when_it_waits_in_vain(queue: NaiveQueue) -> None:
    queue.submit("noop")

    with pytest.raises(TimeoutError, match=r"still busy after 0\.1 s"):
        queue.wait(timeout=0.1)


def test_a_killed_worker_takes_its_task_with_it() -> None:
    with LocalCluster(workers=0) as cluster:
        cluster.add_naive_workers(2)
        queue = NaiveQueue(cluster.redis_url)
        long = queue.submit("sleep", 600)
        victim = wait_until(lambda: queue.tasks([long])[0].worker_id, what="somebody runs it")
        short = [queue.submit("noop") for _ in range(5)]
        assert audit([long], queue).unfinished == [long], "a worker that lives may still finish it"
        cluster.kill_worker(victim)
        queue.wait()

        ledger = audit([long, *short], queue)
        queue.redis.close()

    assert (ledger.lost, ledger.completed) == ([long], short)
    assert (ledger.queue, ledger.valid) == ("naive", False)
    assert set(ledger.executed.values()) == {1}, "its workers sign too"
