"""What a worker holds: the tasks it has claimed and not yet accounted for. Shared by its two threads."""

import threading
import time
from collections import deque

from dtq.queue.reports import Report
from dtq.queue.task import Stored


class Claimed:
    """Claimed tasks on their way from not started, over the one that runs, to reported.

    Every method is atomic. Leases are watched on this machine's clock, which goes on while the process is
    stopped: a worker that wakes up late drops what it had not started.

    Args:
        lease: seconds that a claim or a beat is good for.
    """

    def __init__(self, lease: float) -> None:
        self._lock = threading.Lock()
        self._lease = lease
        self._good_until = 0.0
        self._unstarted: deque[Stored] = deque()
        self._unreported: list[Report] = []
        self.current: Stored | None = None
        self.taken_at = 0.0  # when the batch was claimed, time.monotonic

    def take(self, tasks: list[Stored], asked_at: float) -> None:
        """Tasks that were just claimed. `asked_at`: when the claim was sent, so before the lease began."""
        with self._lock:
            self._unstarted.extend(tasks)
            self.taken_at = asked_at
            self._good_until = asked_at + self._lease

    def start(self) -> Stored | None:
        """The next task to run, now the current one; None where there is none, or the leases have run out."""
        with self._lock:
            if time.monotonic() > self._good_until:
                self._unstarted.clear()
            self.current = self._unstarted.popleft() if self._unstarted else None
            return self.current

    def end(self, report: Report | None) -> None:
        """The current task has ended, with something to report or (given back) with nothing."""
        with self._lock:
            if self.current and report:
                self._unreported.append(report)
            self.current = None

    def reports(self) -> list[Report]:
        """What the broker has to hear of; it stays here until it is `reported`."""
        with self._lock:
            return list(self._unreported)

    def reported(self, n: int) -> None:
        """The first `n` reports have arrived."""
        with self._lock:
            del self._unreported[:n]

    def give_back(self) -> list[Stored]:
        """Takes out all that was not started, in its order."""
        with self._lock:
            tasks = list(self._unstarted)
            self._unstarted.clear()
            return tasks

    def held(self) -> list[Stored]:
        """Everything that needs its lease extended."""
        with self._lock:
            current = [self.current] if self.current else []
            return [report.task for report in self._unreported] + current + list(self._unstarted)

    def extended(self, asked_at: float, lost: set[str]) -> None:
        """A beat got through: leases run from `asked_at`, except of the lost ones, which are not started."""
        with self._lock:
            self._good_until = asked_at + self._lease
            self._unstarted = deque(task for task in self._unstarted if task.id not in lost)

    def __len__(self) -> int:
        with self._lock:
            return len(self._unstarted)
