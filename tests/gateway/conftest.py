"""The app on a queue of its own, and gateways as real processes."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from dtq.config import Settings
from dtq.gateway import create_app
from dtq.gateway.server import connect
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests.commands import Program


@pytest.fixture
def http(broker: Broker) -> FlaskClient:
    """The app's calls, without a network between."""
    return create_app(broker).test_client()


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts gateways in `tmp_path`; keyword arguments are environment variables."""
    started: list[Program] = []

    def start(*arguments: str, **environment: str) -> Program:
        started.append(Program(tmp_path, "gateway", *arguments, **environment))
        return started[-1]

    yield start
    for gateway in started:
        gateway.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may stop, fill or change."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def own_http(own_redis: RedisServer) -> Iterator[FlaskClient]:
    """The app on `own_redis`, connected as `serve` connects it."""
    settings = Settings(_env_file=None)
    with closing(connect(own_redis.url, settings)) as broker:
        yield create_app(broker).test_client()
