"""`dtq up` and `dtq gateway` with their own Redis server, which is killed or does not answer."""

import json
import os
import re
import signal
from contextlib import AbstractContextManager, closing
from pathlib import Path

from dtq.redis_server import RedisServer, free_port
from tests.commands import Program, said, started, system, workers
from tests.helpers import alive, family, wait_until


def server(folder: Path) -> dict[str, object]:
    """What is written down of the folder's Redis server: url, port, pid."""
    record: dict[str, object] = json.loads((folder / ".dtq" / "redis.json").read_text())
    return record


def kill_server(folder: Path) -> None:
    """Kills the Redis server, and waits until another process has its place."""
    pid = server(folder)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server(folder)["pid"] != pid, what="it is started again")


def keep_every_write(folder: Path) -> None:
    assert said(folder, "redis", "CONFIG", "SET", "appendfsync", "always") == "OK\n"


def test_a_redis_server_that_is_killed_comes_back_and_all_goes_on(tmp_path: Path) -> None:
    with system(tmp_path):
        before, url = workers(tmp_path), server(tmp_path)["url"]
        for _ in range(3):
            keep_every_write(tmp_path)
            old = said(tmp_path, "submit", "noop", "--delay", "1000").strip()
            kill_server(tmp_path)

            assert said(tmp_path, "submit", "process", "1", "--wait").endswith('{"processed": 1}\n')
            assert json.loads(said(tmp_path, "redis", "GET", f"task:{old}"))["status"] == "scheduled"
        assert server(tmp_path)["url"] == url
        assert workers(tmp_path) == before
    assert "the Redis server has ended, it is started again\n" in (tmp_path / "up.log").read_text()


def test_the_redis_server_of_a_gateway_comes_back_too(tmp_path: Path) -> None:
    with started(tmp_path, "gateway", "--port", "0") as gateway:
        gateway.url()
        keep_every_write(tmp_path)
        task_id = said(tmp_path, "submit", "noop").strip()
        kill_server(tmp_path)
        with started(tmp_path, "worker"):
            wait_until(
                lambda: f"{task_id} noop " in " ".join(said(tmp_path, "status").split()), "it is there"
            )
            assert said(tmp_path, "submit", "process", "1", "--wait").endswith('{"processed": 1}\n')


def test_a_second_gateway_leaves_a_redis_server_alone_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    home = str(tmp_path / ".dtq")
    with started(tmp_path, "gateway", "--port", "0") as first:
        first.url()
        ids = [said(tmp_path, "submit", "noop").strip() for _ in range(5)]
        pid = server(tmp_path)["pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGSTOP)
        with started(tmp_path / "second", "gateway", "--port", "0", DTQ_HOME=home) as second:
            try:
                second.says("listening on")
            finally:
                os.kill(pid, signal.SIGCONT)
            assert server(tmp_path)["pid"] == pid
            ids += [said(tmp_path, "submit", "noop").strip()]
    with started(tmp_path, "gateway", "--port", "0") as again:
        again.url()
        keys = [f"task:{task_id}" for task_id in ids]
        assert said(tmp_path, "redis", "EXISTS", *keys) == f"{len(ids)}\n"


def test_a_second_up_on_the_same_redis_names_its_workers_otherwise(tmp_path: Path) -> None:
    def up(name: str, *arguments: str) -> AbstractContextManager[Program]:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return started(folder, "up", "--workers", "2", *arguments, DTQ_HOME=str(tmp_path / ".dtq"))

    def live() -> dict[str, int]:
        return workers(tmp_path)

    def are_there(*prefixes: str) -> bool:
        return live().keys() == {f"{prefix}-{n}" for prefix in prefixes for n in (1, 2)}

    port = str(free_port())
    with up("one", "--port", "0") as one:
        one.url()
        wait_until(lambda: are_there("worker"), what="the first two are there")
        with up("two", "--port", port), up("three", "--port", "0") as three:
            three.says("Gateway  http://127.0.0.1:")
            free = re.findall(r"Gateway  http://127\.0\.0\.1:(\d+) ", three.log.read_text())[0]
            wait_until(lambda: are_there("worker", f"worker-{port}", f"worker-{free}"), what="all are there")
            name, before = f"worker-{port}-1", live()
            os.kill(before[name], signal.SIGKILL)
            wait_until(lambda: live().get(name, before[name]) != before[name], what="it is back")
            assert live().keys() == before.keys()


def test_an_up_that_was_killed_leaves_its_names_to_the_next(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        world = {"REDIS_URL": redis.url}
        with closing(Program(tmp_path, "up", "--port", "0", "--workers", "1", **world)) as first:
            first.says("worker-1 INFO ready")
            everybody = family(first.process.pid)
            first.process.kill()
            first.process.wait()
            wait_until(lambda: not any(map(alive, everybody)), what="the reaper has ended the others")
        (tmp_path / "later").mkdir()
        with started(tmp_path / "later", "up", "--port", "0", "--workers", "1", **world) as second:
            second.says("Ctrl-C ends them all.")
            assert "Workers  worker-1\n" in second.log.read_text()
