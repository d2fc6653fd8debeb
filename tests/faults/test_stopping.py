"""Workers that are asked to stop, and handlers that do not."""

from collections.abc import Callable
from pathlib import Path

from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.task import Status
from tests.helpers import wait_until
from tests.steps import holder

STUBBORN = """
import time
from dtq.tasks import task

@task("loop", timeout=0.3, max_retries=0)
def loop(data, context):
    while True:
        data = not data

@task("nap", timeout=0.3, max_retries=0)
def nap(data, context):
    time.sleep(600)

@task("deaf", timeout=0.3)
def deaf(data, context):
    while True:
        try:
            time.sleep(600)
        except BaseException as error:
            print("not now:", error)
"""


def test_a_worker_that_is_stopped_in_the_middle_of_a_task_finishes_it(cluster: LocalCluster) -> None:
    task_id = cluster.client.submit("sleep", 3)
    worker = wait_until(lambda: holder(cluster.broker, task_id), what="somebody runs it")

    cluster.stop_worker(worker)

    task = cluster.client.get(task_id)
    assert (task.status, task.worker_id, task.attempts) == (Status.COMPLETED, worker, 1)
    assert worker not in [shown.id for shown in cluster.client.workers()]


def test_an_idle_worker_stops_and_says_goodbye(cluster: LocalCluster) -> None:
    name = cluster.workers[0]

    cluster.stop_worker(name)

    assert "stopped after 0 tasks, 0 given back" in cluster.logs(name)
    assert len(cluster.client.workers()) == 2


def test_handlers_that_never_return_are_interrupted_and_their_workers_go_on(
    make_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    cluster = make_cluster(workers=1, tasks=str(tmp_path / "stubborn.py"))

    tasks = cluster.client.wait(
        cluster.client.submit_many("loop", [0]) + cluster.client.submit_many("nap", [0])
    )

    assert [task.status for task in tasks] == [Status.FAILED] * 2
    assert [task.history[0].outcome for task in tasks] == ["timeout"] * 2
    after = cluster.client.wait(cluster.client.submit("noop"), progress=False)
    assert after.status == Status.COMPLETED
    assert after.worker_id == cluster.workers[0]


def test_a_handler_that_ignores_its_limit_costs_its_worker_its_life(
    make_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    cluster = make_cluster(workers=3, tasks=str(tmp_path / "stubborn.py"))

    task = cluster.client.wait(cluster.client.submit("deaf"), progress=False)

    assert task.status == Status.FAILED
    assert [attempt.outcome for attempt in task.history] == ["worker lost"] * 3
