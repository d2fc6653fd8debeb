"""What a worker says of an attempt that ended, and what the broker answers."""

import random
import time
from typing import Any, Literal, NamedTuple

Outcome = Literal["failed", "timeout"]


class Completed(NamedTuple):
    """A result. `duration` is in seconds, `ended` a reading of `time.monotonic`, `result` JSON."""

    task_id: str
    attempt: int
    duration: float
    ended: float
    result: bytes

    def arguments(self) -> tuple[Any, ...]:
        """As `complete.lua` wants it: the age of the end, since two machines share no clock."""
        return self.task_id, self.attempt, self.duration, time.monotonic() - self.ended, self.result


class Failed(NamedTuple):
    """A failure. `retries` is how many the task is allowed: 0 where another try is hopeless. `raised` is the
    name of the error's class, for the log.
    """

    task_id: str
    attempt: int
    duration: float
    ended: float
    outcome: Outcome
    error: str
    retries: int
    raised: str = ""

    def arguments(self, jitter: float) -> tuple[Any, ...]:
        """As `fail.lua` wants it. `jitter` is the share of the wait that is left to chance."""
        chance = 1 + random.uniform(0, jitter)
        age = time.monotonic() - self.ended
        return (
            self.task_id,
            self.attempt,
            self.outcome,
            self.error,
            self.retries,
            chance,
            self.duration,
            age,
        )


Report = Completed | Failed


class Verdict(NamedTuple):
    """What became of a report: `completed`, `retry` (its number, and the wait in seconds), `failed`,
    `repeated` (it was known already) or `stale` (the task is no longer this attempt's, and was left alone).
    """

    word: str
    retry: int = 0
    wait: float = 0.0
