"""A worker: claims tasks, runs them one at a time, reports. One process; more processes for more parallelism.

The main thread runs the handlers, so that a time limit can interrupt them. A second thread sends heartbeats,
maintains the queue, gives back tasks that cannot start soon, and ends the process if a handler never returns.
"""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from redis import RedisError

from dtq import tasks
from dtq.errors import NameTaken
from dtq.observe import logs, story, tracing
from dtq.processes import forks, notes
from dtq.queue.broker import Broker
from dtq.queue.maintenance import INTERVAL
from dtq.queue.reports import Completed, Failed, Outcome, Report
from dtq.queue.task import Stored
from dtq.queue.worker_info import WorkerInfo
from dtq.tasks import Context, PermanentError, TaskType
from dtq.transient import Outage
from dtq.worker.claimed import Claimed
from dtq.worker.interrupts import Interrupted, Interrupts, TimeLimit
from dtq.worker.results import error_text, read_payload, write_result

T = TypeVar("T")
TICK = 0.1  # seconds between two rounds of the second thread
IDLE_WAIT = 2.0  # seconds: the longest that a lost wake-up can delay a task
STUCK = 70  # exit code of a worker that had to end itself


class Worker:
    """Runs tasks until a signal asks it to stop.

    Args:
        broker: the queue.
        name: its id. No two workers may have the same at a time.
        types: task types by name; by default all that are registered.

    Attributes:
        claimed: the tasks that it holds.
        interrupts: what signals asked it to do; with `reload`, its process is to start again.
    """

    def __init__(self, broker: Broker, name: str, types: dict[str, TaskType] | None = None) -> None:
        self.broker, self.name = broker, name
        self.settings = broker.settings
        self.types = tasks.registry if types is None else types
        me: Any = {"host": socket.gethostname(), "pid": os.getpid(), "instance": secrets.token_hex(8)}
        self._info = WorkerInfo(id=name, status="idle", **me)
        self.claimed = Claimed(self.settings.lease)
        self.log = logging.getLogger(name)
        self.interrupts = Interrupts(self.settings.drain_timeout, self.log)
        self.processed = 0
        self._average = self.settings.prefetch_seconds  # seconds a task takes, moving average
        self._outage = Outage(self.log)
        self._ended = threading.Event()
        self._exchanging = threading.Lock()

    # ---------------------------------------------------------------- main thread

    def run(self) -> None:
        """Works until a signal asks it to end; then ends the current task and gives the others back.

        Raises:
            NameTaken: another live worker has this name.
        """
        second = threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True)
        with self.interrupts.listening():
            if self._patiently(self._register):
                self.log.info("ready, knows %s", ", ".join(sorted(self.types)))
            second.start()
            while not self.interrupts.stopping:
                if not self._patiently(self._refill):
                    self._idle()
                while not self.interrupts.stopping and (task := self.claimed.start()):
                    self.claimed.end(self.perform(task))
            self._ended.set()
            second.join()
            self._leave()

    def perform(self, task: Stored) -> Report | None:
        """Runs one task. Returns its report, or None if it was given back because the worker must end."""
        with logs.about(task):
            story.tell_claim(self.log, task)
            began = time.monotonic()
            try:
                with tracing.run(task):
                    result = self._handle(task)
            except Interrupted:
                self.log.warning("task %s abandoned, this worker has to go", task.id)
                self._patiently(lambda: self.broker.release(self.name, [task], started=True))
                tracing.end_given_back(task)
                return None
            except BaseException as error:  # also a handler's sys.exit: the task fails, the worker goes on
                return self._failure(task, error, *self._took(began))
            return Completed(task, *self._took(began), result)

    def _took(self, began: float) -> tuple[float, float]:
        """Updates the moving average. Returns the seconds since `began`, and the time now."""
        ended = time.monotonic()
        self._average += 0.3 * (ended - began - self._average)
        return ended - began, ended

    def _handle(self, task: Stored) -> bytes:
        """Calls the handler under its time limit. Returns its result as JSON."""
        kind = self.types.get(task.type)
        if kind is None:
            raise PermanentError(f"unknown type {task.type!r}; known are {', '.join(sorted(self.types))}")
        parents = self._patiently(lambda: self._parents(task)) if task.depends_on else {}
        if parents is None:
            raise Interrupted
        context = Context(task.id, task.attempts, self.settings.work_time, parents)
        seconds = task.timeout or kind.timeout or self.settings.task_timeout
        data = read_payload(task.data)
        return write_result(self.interrupts.limit(seconds, lambda: kind.handler(data, context)))

    def _failure(self, task: Stored, error: BaseException, duration: float, ended: float) -> Failed:
        kind = self.types.get(task.type)
        wishes = (task.max_retries, kind.max_retries if kind else None, self.settings.max_retries)
        retries = next(wish for wish in wishes if wish is not None)
        if isinstance(error, PermanentError):
            retries = 0
        self.log.debug("task %s", task.id, exc_info=error)
        outcome: Outcome = "timeout" if isinstance(error, TimeLimit) else "failed"
        return Failed(task, duration, ended, outcome, error_text(error), retries, type(error).__name__)

    def _parents(self, task: Stored) -> dict[str, Any]:
        parents = (self.broker.get(task_id) for task_id in task.depends_on)
        return {parent.id: msgspec.json.decode(parent.result) for parent in parents if parent}

    def _refill(self) -> int:
        """Sends the reports and claims a new batch. Returns how many tasks are ready to start."""
        n = int(self.settings.prefetch_seconds / max(self._average, 1e-6))
        self._exchange(min(max(n, 1), self.settings.prefetch_max) if self.types else 0)
        return len(self.claimed)

    def _exchange(self, n: int = 0) -> None:
        """Sends the reports and claims up to `n` tasks, in one round trip."""
        with self._exchanging:
            asked_at = time.monotonic()
            reports = self.claimed.reports()
            verdicts, tasks = self.broker.report_and_claim(self.name, reports, n, self.types)
            if tasks:
                self.claimed.take(tasks, asked_at)
            self.claimed.reported(len(verdicts))
            for verdict in verdicts:
                self.processed += isinstance(verdict.report, Completed) and verdict.word != "stale"
                story.tell_verdict(self.log, verdict)

    def _idle(self) -> None:
        """Waits for a wake-up or a signal, `IDLE_WAIT` seconds at most."""
        try:
            self.interrupts.wait(lambda: self._patiently(lambda: self.broker.wait(IDLE_WAIT)))
        except Interrupted:
            self.broker.once.connection_pool.disconnect()  # its reply may still be on the way

    def _patiently(self, action: Callable[[], T]) -> T | None:
        """Repeats an action until Redis answers. Gives up and returns None if the worker was asked to end."""
        self.interrupts.watchdog.relax()  # what follows may take longer than a handler may
        while True:
            try:
                result = action()
            except RedisError as error:
                time.sleep(self._outage.failed(error))
                if self.interrupts.stopping:
                    return None
            else:
                self._outage.over()
                return result

    def _leave(self) -> None:
        """Sends the last reports, gives back the tasks that were not started, and deregisters."""
        try:
            self._exchange()
            given_back = self.broker.release(self.name, self.claimed.give_back())
            self.broker.deregister(self.name, self._info.instance)
            self.log.info("stopped after %d tasks, %d given back", self.processed, given_back)
        except RedisError as error:
            self.log.warning("stopped without goodbye, others take over when the lease ends (%s)", error)
        self.broker.close()

    # ---------------------------------------------------------------- second thread

    def _keep_alive(self) -> None:
        """Lets this process end if the thread does: a worker that does not beat must not claim."""
        try:
            # A signal goes to any thread that lets it through, but only the main thread can act on it.
            signal.pthread_sigmask(signal.SIG_BLOCK, forks.HANDLED)
            self._beat_and_maintain()
        except NameTaken as error:
            self.log.error("%s This worker ends.", error)
            self.interrupts.stopping = True
        except BaseException:
            self.log.exception("the heartbeat ended by a mistake: this worker ends itself")
            os._exit(STUCK)

    def _beat_and_maintain(self) -> None:
        next_beat = next_maintenance = 0.0
        while not self._ended.wait(TICK):
            self._end_if_stuck()
            try:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self.settings.heartbeat
                    self._beat()
                    self._outage.over()
                if time.monotonic() >= next_maintenance:
                    next_maintenance = time.monotonic() + INTERVAL
                    self.broker.maintain()
                self._relieve()
            except RedisError as error:
                next_beat = next_maintenance = 0.0
                self._ended.wait(self._outage.failed(error))

    def _register(self) -> bool:
        """Takes the name. A process of this machine that had it and is dead gives it up at once."""
        try:
            self._beat()
        except NameTaken as other:
            gone = other.pid == self._info.pid or not notes.lives(other.pid)  # in containers all pids are 1
            if other.host != self._info.host or not gone:
                raise
            self._beat(instead_of=other.instance)
        return True

    def _beat(self, instead_of: str = "") -> None:
        """Sends a heartbeat, which extends the leases."""
        current, held, asked_at = self.claimed.current, self.claimed.held(), time.monotonic()
        status = "draining" if self.interrupts.stopping else "busy" if current else "idle"
        self._info.status, self._info.tasks_processed = status, self.processed
        self._info.types = sorted(self.types)
        self._info.current_task = current.id if current else None
        lost = self.broker.heartbeat(self._info, held, instead_of)
        self.claimed.extended(asked_at, lost)
        if current and current is self.claimed.current and current.id in lost:
            with logs.about(current):
                self.log.warning(
                    "task %s was given to another worker, its result will be refused", current.id
                )

    def _relieve(self) -> None:
        """Gives back the tasks that were not started and sends the reports, if the batch takes too long."""
        late = time.monotonic() - self.claimed.taken_at >= 2 * self.settings.prefetch_seconds
        if waiting := self.claimed.give_back(late):
            self.broker.release(self.name, waiting)
            self.claimed.given_back()
            self.log.info("gave %d tasks back, the one in hand takes long", len(waiting))
        if late and self.claimed.reports():
            self._exchange()

    def _end_if_stuck(self) -> None:
        """Ends the process if its handler does not return: it would hold the worker for ever."""
        if self.interrupts.is_stuck():
            with logs.about(self.claimed.current):
                logs.log_stack(
                    self.log, "a handler does not return after its time limit: this worker ends itself"
                )
            os._exit(STUCK)
