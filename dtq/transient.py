"""Redis may be away, or refuse commands, for a while. Who has no user waiting tries again until it works."""

import logging
import threading

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError

# Errors of a server that restarts, loads its data, changes roles, is full, misses replicas, or is held up by
# a script of somebody else. They pass.
TRANSIENT = (
    redis.ConnectionError, redis.TimeoutError, ReadOnlyError, ClusterDownError, TryAgainError,
    OutOfMemoryError,
)  # fmt: skip
# Words in the text of those for which redis-py has no class.
TRANSIENT_WORDS = ("BUSY", "UNBLOCKED", "NOREPLICAS", "READONLY", "MISCONF", "maxmemory")


def is_transient(error: Exception) -> bool:
    """Whether the error passes, so that the same command may succeed later."""
    return isinstance(error, TRANSIENT) or any(word in str(error) for word in TRANSIENT_WORDS)


class Outage:
    """Counts failures in a row and logs the change of state, not each failure. Threads may share one.

    Args:
        log: gets the lines.
        cap: longest wait between two tries, seconds.
    """

    def __init__(self, log: logging.Logger, cap: float = 1.0) -> None:
        self._log = log
        self._backoff = ExponentialBackoff(cap=cap, base=0.02)
        self._lock = threading.Lock()
        self._failures = 0

    def failed(self, error: redis.RedisError) -> float:
        """Counts a failure; returns the seconds to wait before the next try. An error that does not pass by
        itself is waited out like the others: somebody may mend it, and the process is needed then.
        """
        with self._lock:
            if not self._failures:
                state = "is away" if is_transient(error) else "refuses this"
                self._log.warning("Redis %s, trying again until it is back (%s)", state, error)
            self._failures += 1
            return self._backoff.compute(min(self._failures, 16))

    def over(self) -> None:
        """Ends the outage, if there was one."""
        with self._lock:
            if self._failures:
                self._log.warning("Redis is back after %d tries", self._failures)
            self._failures = 0
