"""The queue that everybody writes first, and that loses tasks. Kept small, and wrong on purpose.

A worker takes an id off the list, and from then on only that process knows of the task: if it dies, the task
is gone. Nobody else remembers it, and nobody notices that a worker is dead. `dtq.queue.broker` is the cure.

A worker process is `python -m dtq.lab.cluster.naive NAME`, with the server in `REDIS_URL`.
"""

import sys
import time
import uuid
from typing import Any

import msgspec
import redis

from dtq.config import load
from dtq.connection import PROTOCOL
from dtq.lab.witness.ledger import sign_all
from dtq.queue.keys import Keys
from dtq.queue.task import Task, parse_plain
from dtq.redis_server import locate
from dtq.tasks import Context, registry


class NaiveQueue:
    """A queue of three commands. Its keys are those of dtq with `naive:` before each.

    Args:
        url: the server, as `redis://host:port/0`.
        worker: name of the worker that uses it.
    """

    name = "naive"

    def __init__(self, url: str, worker: str | None = None) -> None:
        options: Any = {"protocol": PROTOCOL, "client_name": worker, "socket_timeout": None}
        self.redis: Any = redis.Redis.from_url(url, **options)
        self.keys = Keys("naive:")
        self.worker = worker

    def submit(self, type: str, data: Any = None) -> str:
        """Stores a task and puts its id on the list. Returns the id."""
        task = {
            "id": str(uuid.uuid4()),
            "type": type,
            "status": "pending",
            "created_at": time.time(),
            "data": data,
        }
        self._store(task)
        self.redis.lpush(self.keys.pending, task["id"])
        return str(task["id"])

    def run_one(self) -> None:
        """Takes a task, runs it, stores its result. From `brpop` on, only this process knows of the task."""
        _, task_id = self.redis.brpop(self.keys.pending)
        task = msgspec.json.decode(self.redis.get(self.keys.task + task_id.decode()))
        task |= {"status": "processing", "worker_id": self.worker, "started_at": time.time(), "attempts": 1}
        self._store(task)
        result = registry[task["type"]].handler(task["data"], Context(task["id"], attempt=1))
        self._store(task | {"status": "completed", "completed_at": time.time(), "result": result})

    def tasks(self, ids: list[str]) -> list[Task[Any]]:
        """The tasks as they are now."""
        return [parse_plain(document) for document in self.redis.mget([self.keys.task + i for i in ids])]

    def idle(self) -> bool:
        """Whether the list is empty and every living worker waits for more, all at one moment."""
        with self.redis.pipeline(transaction=True) as pipe:
            waiting, peers = pipe.llen(self.keys.pending).client_list().execute()
        workers = [peer for peer in peers if peer["name"].startswith("naive-")]
        return waiting == 0 and all("b" in peer["flags"] for peer in workers)

    def wait(self, timeout: float = 60.0) -> None:
        """Returns when nothing more will happen: the list is empty and the living workers are idle.

        Raises:
            TimeoutError: it takes longer than `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while not self.idle():
            if time.monotonic() > end:
                raise TimeoutError(f"The naive queue was still busy after {timeout:g} s.")
            time.sleep(0.05)

    def _store(self, task: dict[str, Any]) -> None:
        self.redis.set(self.keys.task + task["id"], msgspec.json.encode(task))


def main(name: str) -> None:
    """Works until it is killed."""
    settings = load()
    sign_all(settings)
    queue = NaiveQueue(locate(settings), name)
    while True:
        queue.run_one()


if __name__ == "__main__":
    main(sys.argv[1])
