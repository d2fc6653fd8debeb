"""Failures are tried again after 2, 4 and 8 seconds, then left to a human."""

from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.task import Status


def test_three_retries_at_growing_distances_then_the_dead_letter(cluster: LocalCluster) -> None:
    task = cluster.client.wait(cluster.client.submit("fail"), progress=False)

    assert task.status == Status.FAILED
    assert [attempt.attempt for attempt in task.history] == [1, 2, 3, 4]
    pairs = zip(task.history, task.history[1:], strict=False)
    waits = [(later.started_at - earlier.ended_at).total_seconds() for earlier, later in pairs]
    assert all(wait >= least for wait, least in zip(waits, [2, 4, 8], strict=True)), waits
    assert [dead.id for dead in cluster.client.dead_letter()] == [task.id]
