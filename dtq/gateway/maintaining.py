"""The gateway maintains the queue too, so that leases end and delays pass also where no worker lives."""

import logging
import threading
from collections.abc import Callable

import redis

from dtq.queue.maintenance import INTERVAL
from dtq.transient import Outage


def keep_maintaining(maintain: Callable[[], object], ended: threading.Event, log: logging.Logger) -> None:
    """Maintains a queue twice a second until `ended` is set. Waits while Redis is away."""
    outage, pause = Outage(log), 0.0
    while not ended.wait(pause):
        try:
            maintain()
            outage.over()
            pause = INTERVAL
        except redis.RedisError as error:
            pause = outage.failed(error)
        except Exception:  # a mistake of ours must not end maintenance for good
            log.exception("maintenance failed, it is tried again")
            pause = INTERVAL
