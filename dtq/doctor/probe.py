"""What the checks examine: a queue on its server."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from redis import ResponseError

from dtq.config import Settings
from dtq.doctor.finding import Finding
from dtq.queue import worker_info
from dtq.queue.broker import ANSWER_TIMEOUT, Broker
from dtq.queue.worker_info import WorkerInfo


class Alive(NamedTuple):
    """A live worker."""

    worker_info: WorkerInfo
    silent: float  # seconds since its last beat
    heartbeat: float  # seconds between two of its beats, by its own settings


class Probe:
    """A queue on its server, and what several checks read from it.

    Args:
        url: the server.
        settings: those of this process; the workers may have others.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self.settings, self.broker = settings, Broker(url, settings, timeout=ANSWER_TIMEOUT)
        self.redis, self.keys = self.broker.redis, self.broker.keys
        parts = urlsplit(url)  # without user and password
        self.address = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        if settings.redis_sentinels:
            self.address = f"The primary of {settings.redis_service}"

    def close(self) -> None:
        self.broker.close()

    @cached_property
    def info(self) -> dict[str, Any]:
        """The server's INFO."""
        return self.redis.info()

    def config(self, name: str) -> str | None:
        """A setting of the server; None where it hides them, as managed servers do."""
        try:
            return str(self.redis.config_get(name)[name])
        except (ResponseError, KeyError):
            return None

    @cached_property
    def counts(self) -> dict[str, int]:
        return self.broker.counts()

    @cached_property
    def workers(self) -> tuple[list[Alive], list[str]]:
        """The live workers, and the names of those that are registered but gone."""
        k = self.keys
        names = sorted(name.decode(errors="replace") for name in self.redis.smembers(k.workers))
        with self.redis.pipeline() as pipe:
            pipe.time()
            for name in names:
                pipe.get(k.worker + name).pttl(k.worker + name)
            (seconds, micros), *answers = pipe.execute()
        found = list(zip(names, answers[::2], answers[1::2], strict=True))
        now = seconds + micros / 1e6
        infos = [(name, worker_info.parse(document or b""), left) for name, document, left in found]
        alive = [_alive(info, left, now) for _, info, left in infos if info]
        return alive, [name for name, info, _ in infos if not info]

    def now(self) -> float:
        """Seconds since the epoch by Redis's clock, which decides on all deadlines."""
        seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6)


def _alive(worker: WorkerInfo, left: int, now: float) -> Alive:
    """A worker's key lives for three beats, so the rest of its life shows how long a beat is."""
    silent = max(0.0, now - worker.last_heartbeat.timestamp()) if worker.last_heartbeat else 0.0
    return Alive(worker, silent, (left / 1000 + silent) / 3)


Check: TypeAlias = Callable[[Probe], Finding]


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that an action took, and its result."""
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result
