"""Redis may be away for a while: everybody who needs it waits, and says so once."""

import logging

import redis
from redis.backoff import ExponentialBackoff

# What a server that restarts, loads its data or changes roles answers. It passes.
PASSING = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError)


class Outage:
    """Counts failures in a row and logs the change of state, not each failure.

    Args:
        log: where to say it.
        cap: longest wait between two tries, seconds.
    """

    def __init__(self, log: logging.Logger, cap: float = 1.0) -> None:
        self._log = log
        self._backoff = ExponentialBackoff(cap=cap, base=0.02)
        self._failures = 0

    def failed(self, error: Exception) -> float:
        """Notes a failure; returns the seconds to wait before the next try."""
        if not self._failures:
            self._log.warning("Redis is away, trying again until it is back (%s)", error)
        self._failures += 1
        return self._backoff.compute(min(self._failures, 16))

    def over(self) -> None:
        """Notes a success."""
        if self._failures:
            self._log.warning("Redis is back after %d tries", self._failures)
        self._failures = 0
