"""High tasks start before normal ones that were there first."""

from collections.abc import Callable

from dtq.lab.cluster.local_cluster import LocalCluster


def test_all_high_tasks_start_before_all_normal_ones_and_each_kind_in_order(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(workers=0)
    normal = [cluster.client.submit("sleep", 0.02) for _ in range(10)]
    high = [cluster.client.submit("sleep", 0.02, priority="high") for _ in range(5)]
    cluster.add_workers(1)

    tasks = cluster.client.wait(normal + high, progress=False)

    started = sorted(tasks, key=lambda task: task.started_at)
    assert [task.id for task in started] == high + normal
