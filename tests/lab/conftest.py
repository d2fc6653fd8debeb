"""A server of its own for each file: these tests read the server's journal, and see every command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dtq.lab.witness import record
from dtq.redis_server import RedisServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    directory: Path = tmp_path_factory.mktemp("redis")
    with RedisServer(directory) as server:
        yield server


@pytest.fixture(scope="module")
def redis_url(server: RedisServer) -> str:
    return server.url


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Progress is kept here, and not in the learner's folder."""
    monkeypatch.setenv("DTQ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DTQ_CHECKS", raising=False)
    yield tmp_path / "home"
    record.session = record.Session()
