"""The story of each task, as a worker tells it in its log and in traces."""

import logging

from dtq.observe import logs, tracing
from dtq.queue.reports import Completed, Verdict
from dtq.queue.task import Stored


def tell_claim(log: logging.Logger, task: Stored) -> None:
    """A task is about to start; perhaps a lost worker had it before."""
    log.info(logs.CLAIMED, task.id, task.type, task.attempts)
    last = task.history[-1] if task.history else None
    if last and last.outcome == "worker lost" and last.attempt == task.attempts - 1:
        log.info("task %s recovered from %s", task.id, last.worker)
        tracing.end_lost(task, last)


def tell_verdict(log: logging.Logger, verdict: Verdict) -> None:
    """An attempt was reported, and this was the answer."""
    report, task = verdict.report, verdict.report.task
    tracing.end_reported(verdict)
    with logs.about(task):
        if verdict.word == "stale":
            log.warning("task %s: late result refused, the task is no longer this worker's", task.id)
        elif isinstance(report, Completed):
            log.info("task %s completed in %.2f s", task.id, report.duration)
        else:
            error = logs.error_words(report.error, report.raised)
            log.warning("task %s failed (%s), %s", task.id, error, _what_follows(verdict))


def _what_follows(verdict: Verdict) -> str:
    """What follows a failure, in words."""
    if verdict.word == "retry":
        return f"retry {verdict.retry} in {verdict.wait:.1f} s"
    return "to the dead letter" if verdict.word == "failed" else "as it was reported before"
