"""A ledger of executions that does not trust the queue: each handler signs it before it does anything else.

It lies outside the queue's keys. A worker that loads `dtq.lab.witness.ledger_hook` signs it.
"""

import dataclasses
import functools
import uuid
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

from dtq.config import Settings
from dtq.connection import Redis, connect
from dtq.observe import logs
from dtq.redis_server import locate
from dtq.tasks import Context, Handler, registry

LEDGER = "lab:executions:"  # set, followed by a task id: one member for each time that its handler was called


def counted(client: Redis, task_ids: Iterable[str]) -> dict[str, int]:
    """How often each task's handler was called, as the handlers themselves signed for it."""
    ids = list(task_ids)
    with client.pipeline(transaction=False) as pipe:
        for task_id in ids:
            pipe.scard(LEDGER + task_id)
        return dict(zip(ids, pipe.execute(), strict=True))


def claimed(texts: Iterable[str]) -> Counter[str]:
    """How often each task was claimed, by the workers' logs, which keep what Redis may lose."""
    return Counter(chain.from_iterable(map(logs.claims, texts)))


def signing(handler: Handler, client: Redis) -> Handler:
    """A handler that signs first, then does the same. A signature is unique, so it may be sent twice."""

    @functools.wraps(handler)
    def signed(data: Any, context: Context) -> Any:
        client.sadd(LEDGER + context.task_id, f"attempt {context.attempt}, {uuid.uuid4()}")
        return handler(data, context)

    return signed


def sign_all(settings: Settings) -> None:
    """Makes every registered handler sign the ledger at the queue's server."""
    client = connect(locate(settings), settings, retries=1)
    for name, kind in registry.items():
        registry[name] = dataclasses.replace(kind, handler=signing(kind.handler, client))
