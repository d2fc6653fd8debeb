"""The broker and its server: forgotten scripts, lost replies, full memory, several queues."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from dtq.config import Settings
from dtq.connection import OLDEST
from dtq.errors import NoServerError
from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from tests.helpers import new_task
from tests.steps import (
    bury,
    claim,
    claim_one,
    complete,
    completed,
    end_leases,
    fail,
    failed,
    lose,
    maintain,
    make_due,
    places,
    report,
    run,
    snapshot,
    status,
    stored,
    submit,
)

# ---------------------------------------------------------------- scripts that the server has forgotten


def test_every_transition_works_on_a_server_that_knows_no_script(broker: Broker) -> None:
    def forget() -> None:
        broker.redis.script_flush()

    forget()
    first, second = submit(broker), submit(broker)
    forget()
    tasks = claim(broker, n=2)
    forget()
    assert broker.heartbeat(WorkerInfo(id="worker-1", status="busy"), tasks) == set()
    forget()
    assert broker.release("worker-1", tasks) == 2
    tasks = claim(broker, n=2)
    forget()
    verdicts, claimed = broker.report_and_claim("worker-1", [completed(tasks[0]), failed(tasks[1], 0)], 1)
    assert ([verdict.word for verdict in verdicts], claimed) == (["completed", "failed"], [])
    forget()
    assert broker.requeue([second]) == [second]
    run(broker, second)
    dead = bury(broker)
    forget()
    assert broker.discard([dead]) == [dead]
    third = submit(broker)
    forget()
    assert broker.cancel(third) == "cancelled"
    forget()
    assert maintain(broker).deleted == 0
    assert [status(broker, task_id) for task_id in (first, second, third)] == [
        "completed",
        "completed",
        "cancelled",
    ]


# ---------------------------------------------------------------- lost replies


class LossyWay:
    """A way to Redis that can swallow the next reply and hang up: the command was done, nobody knows."""

    def __init__(self, port: int) -> None:
        self._redis_port = port
        self._lose = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def lose_next_reply(self) -> None:
        self._lose.set()

    def lost(self) -> bool:
        return not self._lose.is_set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._hang_up(*self._open)
        for thread in self._threads:
            thread.join()
        for end in [self._listener, *self._open]:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._redis_port))
                self._open += [near, far]
                for ends in ((near, far, False), (far, near, True)):
                    self._threads.append(threading.Thread(target=self._carry, args=ends))
                    self._threads[-1].start()

    def _carry(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):  # the other end hung up
            while chunk := source.recv(65536):
                if replies and self._lose.is_set():
                    self._lose.clear()
                    break
                target.sendall(chunk)
        self._hang_up(source, target)

    @staticmethod
    def _hang_up(*ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):  # it has hung up already
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def way(broker: Broker) -> Iterator[LossyWay]:
    way = LossyWay(int(broker.redis.config_get("port")["port"]))
    yield way
    way.close()


@pytest.fixture
def far(way: LossyWay, broker: Broker) -> Iterator[Broker]:
    """The same queue as `broker`, reached over the lossy way; both of its clients are connected."""
    if broker.settings.redis_cluster:
        broker.redis.config_set("cluster-announce-port", way.port)
    far = Broker(way.url, broker.settings)
    run(far, submit(far))
    bury(far)
    far.discard()
    yield far
    far.close()
    if broker.settings.redis_cluster:
        broker.redis.config_set("cluster-announce-port", 0)


def test_a_submit_whose_reply_was_lost_is_sent_again_and_stores_once(
    way: LossyWay, far: Broker, broker: Broker
) -> None:
    task = new_task()
    way.lose_next_reply()
    far.submit([task])
    assert way.lost()
    assert (places(broker, task.id), broker.counts()["pending"]) == (["pending"], 1)


def test_a_claim_whose_reply_was_lost_is_not_sent_again(way: LossyWay, far: Broker, broker: Broker) -> None:
    broker.submit([new_task(id="a"), new_task(id="b")])
    way.lose_next_reply()
    with pytest.raises(redis.ConnectionError):
        claim(far)
    assert (places(broker, "a"), places(broker, "b")) == (["processing"], ["pending"])
    assert lose(broker, "a").recovered == 1
    assert [task.id for task in claim(far)] == ["a"]


@pytest.mark.parametrize(("word", "after"), [("completed", "completed"), ("failed", "retrying")])
def test_a_report_whose_reply_was_lost_can_be_sent_again(
    way: LossyWay, far: Broker, broker: Broker, word: str, after: str
) -> None:
    task_id = submit(broker)
    task = claim_one(far)
    what = completed(task) if word == "completed" else failed(task)
    way.lose_next_reply()
    with pytest.raises(redis.ConnectionError):
        report(far, what)
    assert status(broker, task_id) == after
    before = snapshot(broker)
    assert report(far, what).word == "repeated"
    assert snapshot(broker) == before


# ---------------------------------------------------------------- a full server


FULL = 1  # bytes that the server may use


@contextmanager
def room(broker: Broker) -> Iterator[None]:
    """Memory for what a test does by hand."""
    broker.redis.config_set("maxmemory", 0)
    yield
    broker.redis.config_set("maxmemory", FULL)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Broker]:
    """A queue on a server of its own, whose memory can be limited."""
    with RedisServer(tmp_path) as server:
        broker = Broker(server.url, Settings(_env_file=None))
        yield broker
        broker.close()


@pytest.mark.since(7, 0)  # an older server lets no script write when its memory is full
def test_a_full_server_refuses_new_work_and_finishes_the_old(small: Broker) -> None:
    dead = [bury(small), bury(small)]
    names = ["good", "bad", "lost", "back", "unwanted", "extra"]
    small.submit([new_task(id=name) for name in names] + [new_task(id="child", depends_on=["good"])])
    small.submit([new_task(id="later", delay=60.0)])
    claim(small, n=1)
    small.redis.config_set("maxmemory", FULL)
    before = snapshot(small)
    with pytest.raises(redis.OutOfMemoryError):
        small.submit([new_task()])
    assert snapshot(small) == before

    with room(small):
        end_leases(small, "good")
    assert maintain(small).recovered == 1
    good, bad, lost, back = claim(small) + claim(small, n=3)
    assert small.heartbeat(WorkerInfo(id="worker-1", status="busy"), [good, bad, lost, back]) == set()
    assert (complete(small, good, result=b'"kept"'), fail(small, bad)) == ("completed", "retry")
    assert small.release("worker-1", [back]) == 1
    with room(small):
        end_leases(small, "lost")
        make_due(small, "later", "bad")
    assert maintain(small)[:2] == (2, 1)
    assert small.cancel("unwanted") == "cancelled"
    assert (small.requeue([dead[0]]), small.discard([dead[1]])) == ([dead[0]], [dead[1]])
    while tasks := claim(small, n=10):
        assert [complete(small, task) for task in tasks] == ["completed"] * len(tasks)
    finished = {name: status(small, name) for name in [*names, "child", "later", *dead]}
    assert finished == dict.fromkeys(finished, "completed") | {"unwanted": "cancelled", dead[1]: "cancelled"}
    assert bytes(stored(small, "good").result) == b'"kept"'

    small.redis.config_set("maxmemory", 0)
    assert status(small, submit(small)) == "pending"


def test_whether_the_server_writes_to_disk(small: Broker) -> None:
    assert small.persistent()
    small.redis.config_set("appendonly", "no")
    assert not small.persistent()
    small.redis.config_set("save", "900 1")
    assert small.persistent()


def test_a_server_that_was_started_again_knows_all_it_acknowledged(tmp_path: Path) -> None:
    with RedisServer(tmp_path, appendfsync="always") as server:
        broker = Broker(server.url, Settings(_env_file=None))
        done, held, free = submit(broker), submit(broker), submit(broker)
        run(broker, done, result=b"[1]")
        task = claim_one(broker)
        before = snapshot(broker)
    with RedisServer(tmp_path, port=server.port):  # the broker's connections are dead, and made anew
        assert snapshot(broker).keys() == before.keys()
        assert complete(broker, task) == "completed"
        run(broker, free)
        assert [status(broker, task_id) for task_id in (done, held, free)] == ["completed"] * 3
        assert bytes(stored(broker, done).result) == b"[1]"
        broker.close()


# ---------------------------------------------------------------- several queues on one server


def test_queues_with_different_prefixes_do_not_see_each_other(
    redis_url: str, make_broker: Callable[..., Broker]
) -> None:
    ours = make_broker()
    prefix = ours.settings.key_prefix + "{theirs}:"
    theirs = Broker(redis_url, ours.settings.model_copy(update={"key_prefix": prefix}))
    task_id = submit(ours)
    ours.heartbeat(WorkerInfo(id="ann", status="idle"))
    assert (theirs.get(task_id), claim(theirs), theirs.tasks(), theirs.workers()) == (None, [], [], [])
    assert theirs.submit([new_task(id=task_id, depends_on=[])]) == [task_id]
    run(theirs, task_id)
    assert (status(ours, task_id), status(theirs, task_id)) == ("pending", "completed")
    assert ours.counts()["completed"] == 0
    theirs.close()


def test_a_server_that_is_too_old_is_named(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OLDEST:
        monkeypatch.setitem(OLDEST, name, (99, 0))
    with pytest.raises(NoServerError, match=r"(Valkey|Redis) [\d.]+ is too old: dtq works with Redis 5\.0"):
        submit(broker)
