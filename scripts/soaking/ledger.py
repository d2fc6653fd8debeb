"""The ledger of a soak: what the gateway acknowledged, and how often it did not."""

import threading
import time
from collections import Counter
from random import Random
from typing import Any, NamedTuple


class Submission(NamedTuple):
    """A request that was acknowledged.

    Args:
        key: its Idempotency-Key.
        tasks: what it asked for.
        ids: of its tasks.
        at: when it was acknowledged, time.monotonic.
    """

    key: str
    tasks: list[dict[str, Any]]
    ids: list[str]
    at: float


class Ledger:
    """Threads share one.

    Attributes:
        acknowledged: ids of all tasks that the gateway promised to look after.
        broken: ids of the tasks whose documents were broken by hand.
        counts: tries that were refused, submissions that were given up, and the like.
        complaints: what should never happen.
    """

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.broken: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._submissions: list[Submission] = []
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        """Counts one more of these."""
        with self._lock:
            self.counts[what] += 1

    def acknowledge(self, key: str, tasks: list[dict[str, Any]], ids: list[str]) -> None:
        """Notes an acknowledgement."""
        with self._lock:
            self.acknowledged.update(ids)
            self._submissions.append(Submission(key, tasks, ids, time.monotonic()))

    def recent(self, chance: Random) -> Submission | None:
        """One of the newest submissions."""
        with self._lock:
            return chance.choice(self._submissions[-20:]) if self._submissions else None

    def old(self, chance: Random, seconds: float) -> Submission | None:
        """A submission, acknowledged so long ago, that can be sent again: no parents are needed for it."""
        before = time.monotonic() - seconds
        with self._lock:
            found = [one for one in self._submissions if one.at < before and _independent(one)]
            return chance.choice(found) if found else None


def _independent(submission: Submission) -> bool:
    return not any("depends_on" in task for task in submission.tasks)
