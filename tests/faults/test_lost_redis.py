"""Redis dies without warning and comes back: everybody resumes, and nothing acknowledged is lost."""

import threading
from collections.abc import Callable

from dtq.errors import DtqError
from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.task import Status
from tests.helpers import wait_until


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
        wait_until(lambda: len(acknowledged) >= before + 20, timeout=20, what="the gateway resumes")
    finally:
        enough.set()
        thread.join()

    tasks = cluster.client.wait(acknowledged, timeout=60, progress=False)
    assert {task.status for task in tasks} == {Status.COMPLETED}
    assert {task.worker_id for task in tasks[before:]} == set(cluster.workers), "every worker resumed"
