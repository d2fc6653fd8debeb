"""Workers that die or fall silent: their tasks go to others, and what they say too late is refused."""

from collections.abc import Callable
from pathlib import Path

from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.task import Status
from tests.helpers import GATE, PATIENCE, new_task, wait_until
from tests.steps import holder


def starter(cluster: LocalCluster, task_id: str) -> str | None:
    """The worker that says that it runs the task: who has claimed it, but not begun, has no late result."""
    return next((worker.id for worker in cluster.client.workers() if worker.current_task == task_id), None)


def learn_to_prefetch(cluster: LocalCluster) -> None:
    """Lets the workers find that tasks are short: from now on they claim several at once."""
    cluster.client.wait(cluster.client.submit_many("noop", [None] * 200), progress=False)


def counter(cluster: LocalCluster, name: str) -> int:
    return int(cluster.redis.hget(cluster.broker.keys.counters, name) or 0)


def test_fifty_tasks_survive_the_death_of_one_of_three_workers(cluster: LocalCluster) -> None:
    ids = cluster.client.submit_many("sleep", [0.2] * 50)
    wait_until(lambda: cluster.broker.counts()["completed"] >= 5, what="the first tasks are done")
    victim = cluster.kill_worker()

    wait_until(lambda: len(cluster.client.workers()) == 2, what="the dead worker is no longer listed")
    tasks = cluster.client.wait(ids, timeout=PATIENCE, progress=False)

    assert [task.status for task in tasks] == [Status.COMPLETED] * 50
    assert int(cluster.redis.get(cluster.broker.keys.completed)) == 50, "each result was stored once"
    recovered = [task for task in tasks if task.history]
    assert recovered, "the victim had a task in its hands"
    assert {attempt.worker for task in recovered for attempt in task.history} == {victim}
    assert all(task.worker_id != victim for task in recovered)


def test_a_result_that_was_not_reported_is_computed_again(make_cluster: Callable[..., LocalCluster]) -> None:
    batches = {"DTQ_PREFETCH_SECONDS": "5"}  # two fit into one, and nothing of it is reported early
    cluster = make_cluster(workers=1, env=batches)
    (survivor,) = cluster.workers
    learn_to_prefetch(cluster)
    cluster.pause_worker(survivor)
    unreported, killer = new_task(), new_task("crash", {"times": 1})
    cluster.broker.submit([unreported, killer])
    cluster.resume_worker(survivor)

    wait_until(lambda: not cluster.client.workers(), what="the worker has killed itself")
    held = cluster.broker.get(unreported.id)
    assert held
    assert held.status != Status.COMPLETED, "it ran, but its result died with the worker"
    cluster.add_workers(1)
    done = cluster.client.wait([unreported.id, killer.id], progress=False)

    assert [task.status for task in done] == [Status.COMPLETED] * 2
    assert [task.attempts for task in done] == [2, 2]
    assert {attempt.outcome for task in done for attempt in task.history} == {"worker lost"}


def test_the_late_result_of_a_paused_worker_is_refused_and_the_worker_goes_on(
    make_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    cluster = make_cluster(tasks=GATE)
    task_id = cluster.client.submit("gate", str(tmp_path / "go"))
    paused = wait_until(lambda: starter(cluster, task_id), what="somebody has started it")
    cluster.pause_worker(paused)
    (tmp_path / "go").touch()
    done = cluster.client.wait(task_id, progress=False)
    assert done.status == Status.COMPLETED
    assert done.worker_id != paused

    cluster.resume_worker(paused)
    wait_until(lambda: counter(cluster, "stale") == 1, what="the late result was refused")
    assert cluster.client.get(task_id) == done, "the stored task is as it was"
    for name in [name for name in cluster.workers if name != paused]:
        cluster.stop_worker(name)
    again = cluster.client.wait(cluster.client.submit("process", "more"), progress=False)
    assert again.worker_id == paused


def test_a_task_that_kills_its_workers_is_dead_after_three(make_cluster: Callable[..., LocalCluster]) -> None:
    cluster = make_cluster(workers=4)
    task_id = cluster.client.submit("crash")

    task = cluster.client.wait(task_id, progress=False)

    assert task.status == Status.FAILED
    assert [attempt.outcome for attempt in task.history] == ["worker lost"] * 3
    assert len({attempt.worker for attempt in task.history}) == 3
    assert [dead.id for dead in cluster.client.dead_letter()] == [task_id]
    wait_until(lambda: len(cluster.client.workers()) == 1, what="one worker of four is left")
    assert cluster.client.wait(cluster.client.submit("noop"), progress=False).status == Status.COMPLETED


def test_neighbours_of_a_poisonous_task_are_not_taken_for_poisonous(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(workers=1)
    learn_to_prefetch(cluster)
    tasks = [new_task() for _ in range(10)] + [new_task("crash")] + [new_task() for _ in range(10)]
    cluster.broker.submit(tasks)
    for _ in range(3):
        wait_until(lambda: not cluster.client.workers(), what="the worker has killed itself")
        cluster.add_workers(1)

    done = cluster.client.wait([task.id for task in tasks], progress=False)

    assert [task.status for task in done] == [Status.COMPLETED] * 10 + [Status.FAILED] + [
        Status.COMPLETED
    ] * 10
    assert max(task.crashes for task in done if task.type == "noop") <= 1


def test_long_tasks_do_not_keep_short_ones_that_were_claimed_with_them(
    make_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    cluster = make_cluster(workers=1, tasks=GATE)
    learn_to_prefetch(cluster)
    (first,) = cluster.workers
    cluster.pause_worker(first)
    long, short = new_task("gate", str(tmp_path / "go")), [new_task() for _ in range(20)]
    cluster.broker.submit([long, *short])
    cluster.resume_worker(first)
    wait_until(lambda: holder(cluster.broker, long.id), what="the long task runs")
    (second,) = cluster.add_workers(1)

    done = cluster.client.wait([task.id for task in short], progress=False)

    assert holder(cluster.broker, long.id) == first, "the long task is still running"
    assert {task.worker_id for task in done} == {second}
    assert {task.crashes for task in done} == {0}
    (tmp_path / "go").touch()
