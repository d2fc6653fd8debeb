"""The tasks that a worker has claimed and not yet reported. Its two threads share them."""

import threading
import time
from collections import deque

from dtq.queue.reports import Report
from dtq.queue.task import Stored


class Claimed:
    """A worker's claimed tasks: those not started, the one that runs, and those ended but not reported.

    Every method is atomic. Leases are timed by this machine's clock, which goes on while the process is
    stopped: a worker that wakes up too late drops the tasks that it had not started.

    Args:
        lease: seconds for which a claim or a heartbeat leases a task.
    """

    def __init__(self, lease: float) -> None:
        self._lock = threading.Lock()
        self._lease = lease
        self._good_until = 0.0
        self._unstarted: deque[Stored] = deque()
        self._returning: list[Stored] = []
        self._unreported: list[Report] = []
        self.current: Stored | None = None
        self.taken_at = 0.0  # when the batch was claimed, time.monotonic

    def take(self, tasks: list[Stored], asked_at: float) -> None:
        """Adds tasks that were just claimed. `asked_at`: when the claim was sent, before the leases began."""
        with self._lock:
            self._unstarted.extend(tasks)
            self.taken_at = asked_at
            self._good_until = asked_at + self._lease

    def start(self) -> Stored | None:
        """Makes the next task the current one and returns it; None if there is none or the leases ended."""
        with self._lock:
            if time.monotonic() > self._good_until:
                self._unstarted.clear()
            self.current = self._unstarted.popleft() if self._unstarted else None
            return self.current

    def end(self, report: Report | None) -> None:
        """Ends the current task, with its report, or with None if the task was given back."""
        with self._lock:
            if self.current and report:
                self._unreported.append(report)
            self.current = None

    def reports(self) -> list[Report]:
        """The reports that are to be sent. They stay here until `reported` removes them."""
        with self._lock:
            return list(self._unreported)

    def reported(self, n: int) -> None:
        """Removes the first `n` reports, which the broker has received."""
        with self._lock:
            del self._unreported[:n]

    def give_back(self, unstarted: bool = True) -> list[Stored]:
        """The tasks to give back, in order; with `unstarted`, all that were not started join them. They are
        held until `given_back`: the broker may not hear of them at once.
        """
        with self._lock:
            if unstarted:
                self._returning += self._unstarted
                self._unstarted.clear()
            return list(self._returning)

    def given_back(self) -> None:
        """Forgets the tasks that were to be given back: the broker has them."""
        with self._lock:
            self._returning.clear()

    def held(self) -> list[Stored]:
        """All tasks whose leases must be extended."""
        with self._lock:
            current = [self.current] if self.current else []
            reported = [report.task for report in self._unreported]
            return reported + current + list(self._unstarted) + self._returning

    def extended(self, asked_at: float, lost: set[str]) -> None:
        """Extends the leases after a heartbeat sent at `asked_at`. Drops lost tasks that were not started."""
        with self._lock:
            self._good_until = asked_at + self._lease
            self._unstarted = deque(task for task in self._unstarted if task.id not in lost)

    def __len__(self) -> int:
        with self._lock:
            return len(self._unstarted)
