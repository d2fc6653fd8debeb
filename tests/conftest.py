"""Fixtures: one real Redis server for the session, one queue of its own for each test; executed notebooks."""

import itertools
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dtq import redis_server
from dtq.config import Settings
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests.redis_cluster import redis_cluster

if TYPE_CHECKING:
    from tests.notebooks.execution import Execution

_numbers = itertools.count()
if program := os.environ.get("TESTED_SERVER"):  # scripts/servers tries one after the other
    redis_server.find_program = lambda: program
# `nohup` ignores SIGHUP, and a shell's `&` SIGINT: all programs that tests start would, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "since(major, minor): the first server that can do it")


@pytest.fixture(scope="session")
def server_version() -> tuple[int, int]:
    """The first two numbers of the tested server's version."""
    said = subprocess.run([redis_server.find_program(), "--version"], capture_output=True, text=True).stdout
    major, minor = re.findall(r"v=(\d+)\.(\d+)", said)[0]
    return int(major), int(minor)


@pytest.fixture(autouse=True)
def new_enough(request: pytest.FixtureRequest, server_version: tuple[int, int]) -> None:
    """Skips what the tested server is too old for."""
    for mark in request.node.iter_markers("since"):
        if server_version < mark.args:
            pytest.skip("only with Redis {}.{} or newer".format(*mark.args))


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is the tests' own."""
    directory: Path = tmp_path_factory.mktemp("redis")
    with RedisServer(directory=directory) as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory, server_version: tuple[int, int]) -> Iterator[str]:
    """One node of a Redis Cluster that is the tests' own."""
    if server_version < (7, 0):
        pytest.skip("only with Redis 7.0 or newer, which has `cluster-port`")
    with redis_cluster(tmp_path_factory.mktemp("redis-cluster")) as nodes:
        yield nodes[0].url


@pytest.fixture(scope="session")
def redis_url(server_url: str) -> str:
    """The server that tests use, where they have no reason for another."""
    return server_url


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


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> "Callable[[Path, bool], Execution]":
    """Executes a notebook, with its solutions or without, once for all tests that ask for it."""
    from tests.notebooks.execution import run_once  # it takes a while, and few tests need it

    own = tmp_path_factory.getbasetemp()
    common = own if worker_id == "master" else own.parent  # of all processes that run tests
    return lambda path, solutions: run_once(path, solutions, common / f"{path.stem}-{solutions}")
