"""A worker's report of an attempt that ended, and the broker's answer to it."""

import random
import time
from typing import Any, Literal, NamedTuple

from dtq.queue.task import Stored

Outcome = Literal["failed", "timeout"]


class Completed(NamedTuple):
    """A result. `duration` is in seconds, `ended` a reading of `time.monotonic`, `result` JSON."""

    task: Stored
    duration: float
    ended: float
    result: bytes

    @property
    def transition(self) -> str:
        return "complete"

    def arguments(self, jitter: float = 0.0) -> tuple[Any, ...]:
        """The arguments of `complete.lua`. The end is given by its age, since two machines share no clock.
        `jitter` has no effect: nothing waits after a result.
        """
        age = time.monotonic() - self.ended
        return self.task.id, self.task.attempts, self.duration, age, self.result


class Failed(NamedTuple):
    """A failure. `retries` is how many the task is allowed: 0 where another try is hopeless. `raised` is the
    name of the error's class, for the log.
    """

    task: Stored
    duration: float
    ended: float
    outcome: Outcome
    error: str
    retries: int
    raised: str = ""

    @property
    def transition(self) -> str:
        return "fail"

    def arguments(self, jitter: float = 0.0) -> tuple[Any, ...]:
        """The arguments of `fail.lua`. A random share of the wait, at most `jitter`, is added to it."""
        chance, age = 1 + random.uniform(0, jitter), time.monotonic() - self.ended
        attempt = (self.task.id, self.task.attempts, self.outcome, self.error, self.retries)
        return *attempt, chance, self.duration, age


Report = Completed | Failed


class Verdict(NamedTuple):
    """What became of a report: `completed`, `retry` (its number, and the wait in seconds), `failed`,
    `repeated` (it was reported before) or `stale` (the task is no longer this attempt's and was not changed).
    """

    report: Report
    word: str
    retry: int = 0
    wait: float = 0.0


def verdict(report: Report, answer: list[bytes]) -> Verdict:
    """Reads a script's answer to a report: a word; for `retry` also its number and the wait in seconds."""
    word, *rest = answer
    return Verdict(report, word.decode(), *((int(rest[0]), float(rest[1])) if rest else ()))
