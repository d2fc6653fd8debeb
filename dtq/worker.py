"""A worker: claims tasks, runs them one at a time, reports. One process; more processes for more parallelism.

The main thread runs the handlers, so that a time limit can interrupt them. A second thread shows signs of
life, gives back what was claimed but cannot be started soon, and ends the process if a handler never returns.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import msgspec
from redis import RedisError

from dtq import logs, tasks, tracing
from dtq.broker import MAINTENANCE_INTERVAL, Broker
from dtq.hand import Hand
from dtq.outage import Outage
from dtq.presence import Presence
from dtq.report import Completed, Failed, Outcome, Report, Verdict
from dtq.task import Stored
from dtq.tasks import Context, PermanentError, TaskType

T = TypeVar("T")
TICK = 0.1  # seconds between two looks of the second thread
IDLE_WAIT = 2.0  # seconds: the longest that a lost wake-up can delay a task
LAST_WORDS = 1.0  # seconds that a handler gets to end once its time limit has interrupted it
RESULT_LIMIT = 2**20  # bytes
RESULT_DEPTH = 100  # levels; who reads it has a stack of limited depth
STUCK = 70  # exit code of a worker that had to end itself


class TimeLimit(BaseException):
    """Raised in a handler whose time is up; a BaseException, so that `except Exception` lets it by."""


class Interrupted(BaseException):
    """Raised in the main thread by a signal: the idle wait is over, or the handler is to be abandoned."""


class Worker:
    """Runs tasks until it is told to stop.

    Args:
        broker: the queue.
        name: its id. Two workers at a time must not have the same.
        types: task types by name; by default all that are registered.

    Attributes:
        reload: whether it was SIGHUP that ended `run`: its process is to start anew.
    """

    def __init__(self, broker: Broker, name: str, types: dict[str, TaskType] | None = None) -> None:
        self.broker, self.name = broker, name
        self.settings = broker.settings
        self.types = tasks.registry if types is None else types
        self.hand = Hand(self.settings.lease)
        self.log = logging.getLogger(name)
        self.processed = 0
        self.reload = False
        self._average = self.settings.prefetch_seconds  # seconds a task takes, moving average
        self._outage = Outage(self.log)
        self._draining = False  # no Event: its lock would stop a signal that interrupts another for ever
        self._ended = threading.Event()
        self._exchanging = threading.Lock()
        self._interruptible = ""  # "idle" or "handler" while a signal may raise in the main thread
        self._deadline = float("inf")  # when the running handler must be over, time.monotonic
        self._overdue = False

    # ---------------------------------------------------------------- main thread

    def run(self) -> None:
        """Works until a signal ends it; then ends the task in hand, gives the rest back and says goodbye."""
        second = threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True)
        with self._signals():
            self._patiently(self._beat)
            self.log.info("ready, knows %s", ", ".join(sorted(self.types)))
            second.start()
            while not self._draining:
                if not self._patiently(self._exchange):
                    self._idle()
                while not self._draining and (task := self.hand.start()):
                    self.hand.end(self.perform(task))
            self._ended.set()
            second.join()
            self._leave()

    def perform(self, task: Stored) -> Report | None:
        """Runs one task. Returns what to report; None where it was given back because the worker must go."""
        with logs.about(task):
            self._tell_claim(task)
            began = time.monotonic()
            try:
                with tracing.run(task):
                    result = self._handle(task)
            except Interrupted:
                self.log.warning("task %s abandoned, this worker has to go", task.id)
                self._patiently(lambda: self.broker.release(self.name, [task], started=True))
                tracing.end(task)
                return None
            except BaseException as error:  # also a handler's sys.exit: it fails, its worker goes on
                return self._failure(task, error, *self._took(began))
            return Completed(task.id, task.attempts, *self._took(began), result)

    def _took(self, began: float) -> tuple[float, float]:
        """Seconds since `began`, and the time now, which go into the moving average and the report."""
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
        data = _as_python(task.data)
        with self._time_limit(task.timeout or kind.timeout or self.settings.task_timeout):
            result = kind.handler(data, context)
        return _as_json(result)

    def _failure(self, task: Stored, error: BaseException, duration: float, ended: float) -> Failed:
        kind = self.types.get(task.type)
        wishes = (task.max_retries, kind.max_retries if kind else None, self.settings.max_retries)
        retries = next(wish for wish in wishes if wish is not None)
        if isinstance(error, PermanentError):
            retries = 0
        self.log.debug("task %s", task.id, exc_info=error)
        outcome: Outcome = "timeout" if isinstance(error, TimeLimit) else "failed"
        raised = type(error).__name__
        return Failed(task.id, task.attempts, duration, ended, outcome, _as_text(error), retries, raised)

    def _parents(self, task: Stored) -> dict[str, Any]:
        parents = (self.broker.get(task_id) for task_id in task.depends_on)
        return {parent.id: msgspec.json.decode(parent.result) for parent in parents if parent}

    def _exchange(self) -> int:
        """Reports and claims in one round trip. Returns how many tasks are in hand now."""
        n = int(self.settings.prefetch_seconds / max(self._average, 1e-6))
        self._report(min(max(n, 1), self.settings.prefetch_max))
        return len(self.hand)

    def _report(self, n: int = 0) -> None:
        with self._exchanging:
            reports, asked_at = self.hand.reports(), time.monotonic()
            verdicts, claimed = self.broker.report_and_claim(self.name, reports, n)
            if claimed:
                self.hand.take(claimed, asked_at)
            for task, report, verdict in zip(self.hand.told(len(reports)), reports, verdicts, strict=True):
                with logs.about(task):
                    self._tell_verdict(task, report, verdict)

    def _idle(self) -> None:
        """Waits for a wake-up, a signal, or `IDLE_WAIT`."""
        try:
            self._interruptible = "idle"
            if not self._draining:
                self._patiently(lambda: self.broker.wait(IDLE_WAIT))
            self._interruptible = ""
        except Interrupted:
            self.broker.once.connection_pool.disconnect()  # its reply may still be on the way

    def _patiently(self, action: Callable[[], T]) -> T | None:
        """Does it as soon as Redis answers; gives up only when the worker has to go."""
        while True:
            try:
                result = action()
            except RedisError as error:
                time.sleep(self._outage.failed(error))
                if self._draining:
                    return None
            else:
                self._outage.over()
                return result

    def _leave(self) -> None:
        """Reports what is done, gives back what was not started, says goodbye."""
        try:
            self._report()
            given_back = self.broker.release(self.name, self.hand.give_back())
            self.broker.deregister(self.name)
            self.log.info("stopped after %d tasks, %d given back", self.processed, given_back)
        except RedisError as error:
            self.log.warning("stopped without goodbye, others take over when the lease ends (%s)", error)
        self.broker.close()

    # ---------------------------------------------------------------- signals and time limits

    @contextmanager
    def _signals(self) -> Iterator[None]:
        actions = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._stop) | {signal.SIGALRM: self._alarm}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else `nohup` wants it so
            actions[signal.SIGHUP] = self._stop
        before = {number: signal.signal(number, action) for number, action in actions.items()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # see `Successor`
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._draining:
            return
        again, self._draining = self._draining and not self.reload, True
        self.reload = number == signal.SIGHUP
        if self._interruptible == "idle" or (again and self._interruptible == "handler"):
            self._interruptible = ""
            raise Interrupted
        if self._interruptible == "handler":
            self.log.info("stopping; the task in hand has %g s", self.settings.drain_timeout)
            self._allow(min(self._deadline - time.monotonic(), self.settings.drain_timeout))

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self._interruptible == "handler":
            self._interruptible = ""
            raise Interrupted if self._draining else TimeLimit

    def _allow(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))

    @contextmanager
    def _time_limit(self, seconds: float) -> Iterator[None]:
        try:
            self._interruptible = "handler"
            self._allow(seconds)
            if self._draining:  # asked afterwards: a signal may come in between
                self._allow(min(seconds, self.settings.drain_timeout))
            yield
            self._interruptible = ""
        except TimeLimit:
            raise TimeLimit(f"was not done within its {seconds:g} s") from None
        finally:
            self._interruptible = ""
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._deadline = float("inf")

    # ---------------------------------------------------------------- second thread

    def _keep_alive(self) -> None:
        next_beat = next_maintenance = 0.0
        while not self._ended.wait(TICK):
            self._end_if_stuck()
            try:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self.settings.heartbeat
                    self._beat()
                    self._outage.over()
                if time.monotonic() >= next_maintenance:
                    next_maintenance = time.monotonic() + MAINTENANCE_INTERVAL
                    self.broker.maintain()
                self._relieve()
            except RedisError as error:
                next_beat = next_maintenance = 0.0
                self._ended.wait(self._outage.failed(error))

    def _beat(self) -> None:
        """Shows a sign of life and extends the leases."""
        current, held, asked_at = self.hand.current, self.hand.held(), time.monotonic()
        status = "draining" if self._draining else "busy" if current else "idle"
        lost = self.broker.heartbeat(
            Presence(
                id=self.name,
                status=status,
                current_task=current.id if current else None,
                tasks_processed=self.processed,
                host=socket.gethostname(),
                pid=os.getpid(),
            ),
            held,
        )
        self.hand.extended(asked_at, lost)
        if current and current is self.hand.current and current.id in lost:
            with logs.about(current):
                self.log.warning(
                    "task %s was given to another worker, its result will be refused", current.id
                )

    def _relieve(self) -> None:
        """When the batch takes longer than planned: reports what is done, gives back what was not started."""
        if time.monotonic() - self.hand.taken_at < 2 * self.settings.prefetch_seconds:
            return
        if waiting := self.hand.give_back():
            self.broker.release(self.name, waiting)
            self.log.info("gave %d tasks back, the one in hand takes long", len(waiting))
        if self.hand.reports():
            self._report()

    def _end_if_stuck(self) -> None:
        """A handler that its time limit could not interrupt holds a worker for ever: the process must go."""
        before, self._overdue = self._overdue, time.monotonic() > self._deadline + LAST_WORDS
        if before and self._overdue:  # twice in a row: after a SIGSTOP the alarm may still be on its way
            sentence = "a handler does not return after its time limit: this worker ends itself"
            with logs.about(self.hand.current):
                logs.tell_stack(self.log, sentence)
            os._exit(STUCK)

    # ---------------------------------------------------------------- what a learner reads in log and trace

    def _tell_claim(self, task: Stored) -> None:
        self.log.info("task %s (%s) claimed, attempt %d", task.id, task.type, task.attempts)
        last = task.history[-1] if task.history else None
        if last and last.outcome == "worker lost" and last.attempt == task.attempts - 1:
            self.log.info("task %s recovered from %s", task.id, last.worker)
            tracing.lost(task, last)

    def _tell_verdict(self, task: Stored, report: Report, verdict: Verdict) -> None:
        tracing.end(task, report, verdict)
        if verdict.word == "stale":
            self.log.warning("task %s: late result refused, the task is no longer this worker's", task.id)
        elif isinstance(report, Completed):
            self.processed += 1
            self.log.info("task %s completed in %.2f s", task.id, report.duration)
        else:
            retry = f"retry {verdict.retry} in {verdict.wait:.1f} s"
            then = {"retry": retry, "failed": "to the dead letter", "repeated": "as it was told before"}
            words = logs.words(report.error, report.raised)
            self.log.warning("task %s failed (%s), %s", task.id, words, then[verdict.word])


def _as_python(payload: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PermanentError(f"the payload cannot be read: {error}") from None


def _as_text(error: BaseException) -> str:
    """What the error says, in at most 1,000 characters that can be stored."""
    name = "" if isinstance(error, PermanentError | TimeLimit) else f"{type(error).__name__}: "
    try:
        text = f"{name}{error}"
    except Exception:  # a learner's own class may fail in its __str__
        text = f"{name}its text cannot be read"
    return text[:1000].encode(errors="backslashreplace").decode()


def _as_json(result: Any) -> bytes:
    """The result as JSON. Raises PermanentError where it is none, or too long."""
    try:
        text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(f"the result is not JSON: {error}") from None
    if _is_deeper(result, RESULT_DEPTH):
        raise PermanentError(f"the result is nested deeper than {RESULT_DEPTH} levels")
    if len(text) > RESULT_LIMIT:
        raise PermanentError(f"the result has {len(text):,} bytes, the limit is {RESULT_LIMIT:,}")
    return text


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return not levels or any(_is_deeper(item, levels - 1) for item in value)
