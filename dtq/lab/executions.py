"""A ledger of executions that does not trust the queue: each handler signs it before it does anything else.

It lies outside the queue's keys. A worker that loads `dtq.lab.signed` signs it.
"""

import dataclasses
import functools
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

from dtq.config import Settings
from dtq.connection import connect
from dtq.redis_server import locate
from dtq.tasks import Context, Handler, registry

LEDGER = "lab:executions:"  # set, followed by a task id: one member for each time that its handler was called

CLAIMED = re.compile(r"task (\S+) \(.*\) claimed, attempt")  # a worker says so just before it runs a task


def counted(redis_client: Any, task_ids: Iterable[str]) -> dict[str, int]:
    """How often each task's handler was called, as the handlers themselves signed for it."""
    ids = list(task_ids)
    with redis_client.pipeline(transaction=False) as pipe:
        for task_id in ids:
            pipe.scard(LEDGER + task_id)
        return dict(zip(ids, pipe.execute(), strict=True))


def told(logs: Iterable[str]) -> Counter[str]:
    """The same as the workers' logs tell. They are no part of Redis, and remember what it may forget."""
    return Counter(task_id for log in logs for task_id in CLAIMED.findall(log))


def signing(handler: Handler, redis_client: Any) -> Handler:
    """The handler, made to sign first. A signature is unique, so that sending it twice does no harm."""

    @functools.wraps(handler)
    def signed(data: Any, context: Context) -> Any:
        redis_client.sadd(LEDGER + context.task_id, f"attempt {context.attempt}, {uuid.uuid4()}")
        return handler(data, context)

    return signed


def sign_all(settings: Settings) -> None:
    """Makes every registered handler sign the ledger at the queue's server."""
    client = connect(locate(settings), settings, retries=1)
    for name, kind in registry.items():
        registry[name] = dataclasses.replace(kind, handler=signing(kind.handler, client))
