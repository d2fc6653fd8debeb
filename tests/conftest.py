"""Fixtures: one real Redis server for the session, one queue of its own for each test."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dtq.redis_server import RedisServer

from dtq.broker import Broker
from dtq.config import Settings

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is the tests' own."""
    directory: Path = tmp_path_factory.mktemp("redis")
    with RedisServer(directory=directory) as server:
        yield server.url


@pytest.fixture
def make_broker(redis_url: str) -> Iterator[Callable[..., Broker]]:
    """Makes brokers of one queue that is this test's alone; keyword arguments are settings."""
    prefix = f"{{test-{next(_numbers)}}}:"
    brokers: list[Broker] = []

    def make(**settings: Any) -> Broker:
        brokers.append(Broker(redis_url, Settings(_env_file=None, key_prefix=prefix, **settings)))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(make_broker: Callable[..., Broker]) -> Broker:
    """A queue with the default settings."""
    return make_broker()
