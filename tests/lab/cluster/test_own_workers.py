"""Workers with other task types than the cluster's, and workers that are a learner's own program."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dtq.errors import DtqError
from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.lab.witness.audits import audit

TYPES = """
from dtq.tasks import task

@task("hello")
def hello(data, context):
    return "hello from {0}"
"""
PROGRAM = """
import sys

from dtq import tasks
from dtq.queue.broker import Broker
from dtq.config import load
from dtq.redis_server import locate
from dtq.worker.worker import Worker


class Own(Worker):
    def perform(self, task):
        print("own worker performs", task.id, flush=True)
        return super().perform(task)


name, *modules = sys.argv[1:]
for module in modules:
    tasks.load(module)
Own(Broker(locate(load()), load()), name).run()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    (tmp_path / "old.py").write_text(TYPES.format("old"))
    (tmp_path / "new.py").write_text(TYPES.format("new"))
    (tmp_path / "own.py").write_text(PROGRAM)
    with LocalCluster(workers=1, tasks=str(tmp_path / "old.py")) as cluster:
        yield cluster


def test_new_workers_may_have_other_types(cluster: LocalCluster, tmp_path: Path) -> None:
    hello = [cluster.client.submit("hello")]
    assert cluster.client.wait(hello[0], progress=False).result == "hello from old"
    cluster.add_workers(1, tasks=str(tmp_path / "new.py"))
    cluster.stop_worker("worker-1")
    hello.append(cluster.client.submit("hello"))
    assert cluster.client.wait(hello[1], progress=False).result == "hello from new"
    cluster.stop_worker()
    cluster.add_workers(1)
    hello.append(cluster.client.submit("hello"))
    assert cluster.client.wait(hello[2], progress=False).result == "hello from old", (
        "the cluster's, as before"
    )


def test_a_program_of_ones_own_is_a_worker(cluster: LocalCluster, tmp_path: Path) -> None:
    (own,) = cluster.add_workers(1, program=str(tmp_path / "own.py"))
    cluster.stop_worker("worker-1")
    task_id = cluster.client.submit("hello")
    assert cluster.client.wait(task_id, progress=False).worker_id == own
    assert f"own worker performs {task_id}" in cluster.logs(own)
    assert audit([task_id], cluster).executed == {task_id: 1}, "its handlers sign, too"


def test_a_program_that_does_not_start_shows_why(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    with pytest.raises(DtqError, match=r"(?s)worker-2 did not start: .*No module named 'no_such_module'"):
        cluster.add_workers(1, program=str(tmp_path / "broken.py"))
