"""The app on a queue of its own, and gateways as real processes."""

import json
import os
import subprocess
import sys
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
from tests.helpers import wait_until


@pytest.fixture
def http(broker: Broker) -> FlaskClient:
    """The app's calls, without a network between."""
    return create_app(broker).test_client()


class GatewayProcess:
    """`python -m dtq gateway` in a folder of its own, with nothing of this process's settings.

    Args:
        folder: its current folder.
        environment: settings.
        arguments: of the command.
    """

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self.note = folder / ".dtq" / "gateway.json"
        kept = {
            name: text for name, text in os.environ.items() if not name.startswith(("DTQ_", "REDIS_", "PORT"))
        }
        self.log = folder / "gateway.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dtq", "gateway", *arguments],
                cwd=folder,
                env=kept | environment,
                stdout=output,
                stderr=output,
            )

    def url(self) -> str:
        """Where it listens, as soon as it does."""
        wait_until(lambda: self.note.exists() or self.process.poll() is not None, what="the gateway is up")
        assert self.note.exists(), self.log.read_text()
        return str(json.loads(self.note.read_text())["url"])

    def stop(self) -> None:
        """Ends it whatever it does."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=20)


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts gateways in `tmp_path`; keyword arguments are environment variables."""
    started: list[GatewayProcess] = []

    def start(*arguments: str, **environment: str) -> GatewayProcess:
        started.append(GatewayProcess(tmp_path, environment, *arguments))
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


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
