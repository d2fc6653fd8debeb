"""Redis dies without warning and comes back: gateway and workers resume, and nothing acknowledged is lost."""

import threading
from collections.abc import Callable

from dtq.errors import DtqError
from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.task import Status
from tests.helpers import PATIENCE, wait_until


def at_work(cluster: LocalCluster, ids: list[str]) -> set[str | None]:
    """Who has completed some of these."""
    done = cluster.broker.tasks(Status.COMPLETED, limit=100)
    return {task.worker_id for task in done if task.id in ids}


def test_nothing_acknowledged_is_lost_when_redis_is_killed_under_load(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(appendfsync="always")  # with "everysec" Redis may forget its last second
    acknowledged: list[str] = []
    enough = threading.Event()

    def submit() -> None:
        while not enough.is_set():
            try:
                acknowledged.append(cluster.client.submit("sleep", 0.02))
            except DtqError:
                enough.wait(0.05)  # refused, so not acknowledged

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        wait_until(lambda: cluster.broker.counts()["completed"] >= 20, what="the load is on")
        cluster.kill_redis()
        before = len(acknowledged)
        cluster.restart_redis()
        wait_until(lambda: at_work(cluster, acknowledged[before:]) == set(cluster.workers), "all resume")
    finally:
        enough.set()
        thread.join()

    tasks = cluster.client.wait(acknowledged, timeout=PATIENCE, progress=False)
    assert {task.status for task in tasks} == {Status.COMPLETED}
