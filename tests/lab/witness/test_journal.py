"""The append-only file as a witness of results that were stored over others."""

from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from dtq.lab.witness.journal import results_stored
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests import steps
from tests.helpers import wait_until


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("journal")) as server:
        yield server


@pytest.fixture
def queue(own_server: RedisServer) -> Iterator[Broker]:
    broker = Broker(own_server.url)
    yield broker
    broker.close()


def test_results_are_counted_and_other_writes_are_not(queue: Broker) -> None:
    done, pending = steps.submit(queue), steps.submit(queue)
    steps.run(queue, done)
    assert results_stored(queue.redis, queue.keys.task) == Counter({done: 1})

    queue.redis.set(queue.keys.task + done, queue.redis.get(queue.keys.task + done))
    assert results_stored(queue.redis, queue.keys.task) == Counter({done: 2})
    assert queue.get(pending) is not None


def test_it_goes_on_over_a_restart(own_server: RedisServer, queue: Broker) -> None:
    first = steps.submit(queue)
    steps.run(queue, first)
    own_server.stop()
    own_server.start()
    second = steps.submit(queue)
    steps.run(queue, second)

    assert results_stored(queue.redis, queue.keys.task) == Counter({first: 1, second: 1})


def test_a_journal_that_was_rewritten_has_forgotten(queue: Broker) -> None:
    steps.run(queue, steps.submit(queue))
    queue.redis.bgrewriteaof()
    wait_until(lambda: results_stored(queue.redis, queue.keys.task) is None, what="it was rewritten")

    assert not queue.redis.info("persistence")["aof_rewrite_in_progress"]


def test_without_a_journal_there_is_no_answer(queue: Broker) -> None:
    queue.redis.config_set("appendonly", "no")

    assert results_stored(queue.redis, queue.keys.task) is None


def test_a_server_that_hides_its_settings_gives_no_answer(queue: Broker) -> None:
    queue.redis.acl_setuser("guest", enabled=True, passwords=["+secret"], commands=["+get"], keys=["*"])
    address = queue.redis.connection_pool.connection_kwargs
    with redis.Redis(port=address["port"], username="guest", password="secret") as guest:
        assert results_stored(guest, queue.keys.task) is None
