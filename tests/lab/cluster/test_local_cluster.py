"""A cluster in a notebook: what it can do, and that nothing of it outlives the notebook."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from dtq.errors import DtqError
from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.queue.task import Status
from tests.helpers import PATIENCE, alive, family, wait_until

START = """
from dtq.lab import LocalCluster
cluster = LocalCluster(workers=2)
ids = cluster.client.submit_many("sleep", [0.2] * 200)
print(cluster._supervisor.pid)
"""


RAISES = """
from dtq.lab import LocalCluster
with LocalCluster(workers=1) as cluster:
    print(cluster._supervisor.pid, flush=True)
    input()
    1 / 0
"""
SUBMITS = "print(cluster.client.wait(cluster.client.submit('noop', priority='high'), progress=False).status)"


def gone(pids: list[int]) -> bool:
    return not any(map(alive, pids))


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=2, heartbeat=0.25, lease=4.0) as cluster:
        yield cluster


def test_it_starts_and_its_parts_know_each_other(cluster: LocalCluster) -> None:
    health = cluster.client.health()
    assert (health["status"], health["workers"]) == ("healthy", 2)
    assert cluster.redis.smembers("workers:active") == set(cluster.workers) == {"worker-1", "worker-2"}
    assert repr(cluster) == f"LocalCluster: {cluster.url}, {cluster.redis_url}, workers: worker-1, worker-2"


def test_workers_are_added_stopped_and_killed(cluster: LocalCluster) -> None:
    (added,) = cluster.add_workers(1)
    assert cluster.stop_worker() == added
    assert "stopped after 0 tasks" in cluster.logs(added)
    (added,) = cluster.add_workers(1)
    assert cluster.kill_worker(added) == added
    assert added not in cluster.workers
    wait_until(lambda: len(cluster.client.workers()) == 2, what="the dead one is not listed any more")


def test_a_busy_worker_is_paused_and_resumed(cluster: LocalCluster) -> None:
    task_id = cluster.client.submit("sleep", 2)
    name = cluster.pause_worker()
    assert cluster.client.get(task_id).worker_id == name
    cluster.resume_worker(name)
    assert cluster.client.wait(task_id, progress=False).status == Status.COMPLETED


def test_redis_is_killed_and_started_again(cluster: LocalCluster) -> None:
    task_id = cluster.client.submit("process", "kept")
    cluster.client.wait(task_id, progress=False)
    address = cluster.redis_url
    cluster.redis.bgrewriteaof()  # flushes what "everysec" has not written yet
    wait_until(lambda: not cluster.redis.info("persistence")["aof_rewrite_in_progress"], what="it is written")
    cluster.kill_redis()
    cluster.restart_redis()
    assert cluster.redis_url == address
    assert cluster.client.get(task_id).result == {"processed": "kept"}


def test_settings_reach_workers_and_broker(tmp_path: Path) -> None:
    with LocalCluster(workers=1, env={"DTQ_MAX_RETRIES": "0"}, directory=tmp_path) as cluster:
        assert cluster.broker.settings.max_retries == 0
        task = cluster.client.wait(cluster.client.submit("fail"), progress=False)
        assert (task.status, task.attempts) == (Status.FAILED, 1)
    assert "failed, as asked" in (tmp_path / "worker-1.log").read_text()


def test_task_types_of_the_learners_own(tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text(
        "from dtq.tasks import task\n\n@task('double')\ndef double(data, context):\n    return 2 * data\n"
    )
    with LocalCluster(workers=1, tasks=str(module)) as cluster:
        assert cluster.client.wait(cluster.client.submit("double", 21), progress=False).result == 42


def test_a_worker_that_cannot_start_tells_why() -> None:
    with pytest.raises(DtqError, match=r"worker-1 did not start: (?s:.*)no_such_module"):
        LocalCluster(workers=1, tasks="no_such_module")
    assert LocalCluster._current is None


def test_a_new_cluster_stops_the_one_before_and_stopping_twice_is_fine() -> None:
    first = LocalCluster(workers=1)
    pids, folder = family(first._supervisor.pid), first.directory
    assert len(pids) == 5  # supervisor, its guard, Redis, gateway, worker
    second = LocalCluster(workers=0)
    assert gone(pids)
    assert not folder.exists()
    second.stop()
    second.stop()
    with pytest.raises(DtqError, match="not running any more"):
        second.add_workers(1)


def test_nothing_is_left_after_an_exception() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RAISES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as script:
        assert script.stdin
        assert script.stdout
        pids = family(int(script.stdout.readline()))
        assert len(pids) == 5
        script.stdin.write("\n")
    assert script.returncode == 1
    assert gone(pids)


class Kernel:
    """A notebook's kernel, as JupyterLab runs it."""

    def __init__(self, folder: str) -> None:
        self.manager = KernelManager(transport="ipc", ip=f"{folder}/kernel")
        self.manager.start_kernel()
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)
        supervisor = int(self.run(START))
        self.supervisor, self.pids = supervisor, family(supervisor)
        assert len(self.pids) == 6  # supervisor, its guard, Redis, gateway, two workers

    def run(self, code: str) -> str:
        """What the code has printed."""
        said: list[str] = []
        reply = self.client.execute_interactive(
            code,
            timeout=PATIENCE,
            output_hook=lambda message: said.append(message["content"].get("text", "")),
        )
        assert reply["content"]["status"] == "ok", reply
        return "".join(said)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.context.destroy()


@pytest.fixture
def kernel() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        kernel = Kernel(folder)
        yield kernel
        kernel.close()
    wait_until(lambda: gone(kernel.pids), what="all is gone at the end")


def test_nothing_is_left_after_a_stop_in_a_notebook(kernel: Kernel) -> None:
    kernel.run("cluster.stop()")
    assert gone(kernel.pids)


def test_an_interrupt_leaves_the_cluster_at_work_and_nothing_after_the_end(kernel: Kernel) -> None:
    kernel.client.execute("cluster.client.wait(ids)")
    wait_until(lambda: kernel.client.get_iopub_msg(timeout=PATIENCE)["msg_type"] == "stream", what="it waits")
    kernel.manager.interrupt_kernel()
    reply = kernel.client.get_shell_msg(timeout=PATIENCE)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert all(map(alive, kernel.pids))
    assert kernel.run(SUBMITS) == "completed\n"
    kernel.manager.shutdown_kernel()
    wait_until(lambda: gone(kernel.pids), what="all is gone")


def test_nothing_is_left_after_a_kernel_restart(kernel: Kernel) -> None:
    kernel.manager.restart_kernel()
    wait_until(lambda: gone(kernel.pids), what="all is gone")
    kernel.client.wait_for_ready(timeout=PATIENCE)
    assert kernel.run("print(1)") == "1\n"


def test_nothing_is_left_after_kill_9_of_the_kernel_in_the_middle_of_a_run(kernel: Kernel) -> None:
    kernel.client.execute("cluster.client.wait(ids)")
    wait_until(lambda: kernel.client.get_iopub_msg(timeout=PATIENCE)["msg_type"] == "stream", what="it waits")
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    wait_until(lambda: gone(kernel.pids), what="all is gone")
    assert gone(kernel.pids)


def test_nothing_is_left_after_kill_9_of_the_kernel_while_a_fork_holds_its_pipe(kernel: Kernel) -> None:
    quiet = "import os, time, warnings\nwarnings.simplefilter('ignore')\n"  # 3.12 warns of a fork
    forked = int(kernel.run(f"{quiet}pid = os.fork()\nif not pid:\n    time.sleep(600)\nprint(pid)"))
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    wait_until(lambda: gone(kernel.pids), what="all is gone")
    assert alive(forked)
    os.kill(forked, signal.SIGKILL)


def test_nothing_is_left_after_kill_9_of_the_supervisor(kernel: Kernel) -> None:
    os.kill(kernel.supervisor, signal.SIGKILL)
    wait_until(lambda: gone(kernel.pids), what="all is gone")
    assert kernel.run("cluster.stop(); print('fine')") == "fine\n"
