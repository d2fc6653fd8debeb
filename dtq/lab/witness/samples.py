"""The queue's depth over time, measured beside an experiment."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pandas as pd

from dtq.lab.witness.background import repeated
from dtq.transient import TRANSIENT

COUNTED = ("pending", "pending_high", "processing", "delayed", "waiting", "dead_letter", "completed")


class Samples:
    """The measurements until now.

    Args:
        broker: the queue.
    """

    def __init__(self, broker: Any) -> None:
        self._broker = copy.copy(broker)
        self._broker.redis = broker.once  # raises at once while Redis is away, instead of trying again
        self._rows: list[dict[str, Any]] = []

    @property
    def frame(self) -> pd.DataFrame:
        """One row per measurement: at (UTC), time_s (since the first one), how many tasks are pending (of
        these pending_high), processing, delayed, waiting, dead_letter and completed (ever), and how many
        workers live. While Redis is away there are no numbers.
        """
        frame = pd.DataFrame(self._rows, columns=["at", *COUNTED, "workers"])
        frame["at"] = pd.to_datetime(frame["at"], unit="s", utc=True)
        frame.insert(1, "time_s", (frame["at"] - frame["at"].min()).dt.total_seconds())
        return frame

    def take(self) -> None:
        """Measures once."""
        row: dict[str, Any] = {"at": time.time()}
        with suppress(*TRANSIENT):
            row |= self._broker.counts() | {"workers": len(self._broker.workers())}
        self._rows.append(row)


@contextmanager
def sample(queue: Any, interval: float = 0.1) -> Iterator[Samples]:
    """Measures in the background while its block runs, first at its start and last at its end.

        with sample(cluster) as samples:
            ...
        plot.depth(samples.frame)

    Args:
        queue: a `LocalCluster` or a `Broker`.
        interval: seconds between two measurements.
    """
    samples = Samples(getattr(queue, "broker", queue))
    samples.take()
    try:
        with repeated(samples.take, interval, "sample"):
            yield samples
    finally:
        samples.take()
