"""`dtq stress`: puts the queue under load and reports how fast it was."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, quantiles
from time import perf_counter
from typing import Any, NoReturn

from tqdm import tqdm

from dtq.client import Client
from dtq.errors import DtqError
from dtq.queue.task import Status, Task

SUBMITTED = 100  # tasks in one request, at most
FOLLOWED = 200  # tasks that are waited for together: the oldest, which the queue serves first
WIDTH = 40  # characters of the longest bar


def run(tasks: int, type: str, data: Any, concurrency: int) -> int:
    """Submits tasks, waits until they have ended and prints a report.

    Args:
        tasks: how many.
        type, data: type and payload of each.
        concurrency: how many requests are under way at a time.

    Returns:
        0, or 1 where some task was not completed.

    Raises:
        DtqError: no worker runs that knows the type, so the tasks would never end.
    """
    with Client() as client:
        if not (workers := client.workers()):
            raise DtqError("No worker runs, so nothing would be done: start one with `dtq worker`.")
        if type not in (known := {name for worker in workers for name in worker.types}):
            raise DtqError(f"No worker knows the type {type!r}: take one of {', '.join(sorted(known))}.")
        began = perf_counter()
        ids = submit(client, [data] * tasks, type, concurrency)
        print(f"submitted   {tasks} tasks of type {type} in {perf_counter() - began:.2f} s", flush=True)
        done = follow(client, ids)
    print("\n".join(report(done)))
    return int(any(task.status is not Status.COMPLETED for task in done))


def submit(client: Client, items: Sequence[Any], type: str, concurrency: int) -> list[str]:
    """Submits a task for each item, by several threads at once. Returns their ids in order."""
    size = max(1, min(SUBMITTED, len(items) // concurrency))
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    ids: list[str] = []
    with ThreadPoolExecutor(concurrency) as pool, _bar("submitted", len(items)) as bar:
        for accepted in pool.map(lambda batch: client.submit_many(type, batch), batches):
            ids += accepted
            bar.update(len(accepted))
    return ids


def follow(client: Client, ids: Sequence[str]) -> list[Task[Any]]:
    """Waits until all tasks have ended; returns them."""
    ended: list[Task[Any]] = []
    with _bar("completed", len(ids)) as bar:
        for start in range(0, len(ids), FOLLOWED):
            ended += client.wait(ids[start : start + FOLLOWED], progress=False)
            bar.update(len(ended) - bar.n)
    return ended


def report(tasks: Sequence[Task[Any]]) -> Iterator[str]:
    """The report's lines: how tasks ended, how fast, and on which workers. Times are by Redis's clock."""
    ends = Counter(str(task.status) for task in tasks)
    yield "ended       " + ", ".join(f"{number} {status}" for status, number in ends.most_common())
    for error, number in Counter(task.error for task in tasks if task.error).most_common(3):
        yield f"error       {error} ({number} times)"
    spans = [(task.created_at, task.completed_at) for task in tasks if task.status is Status.COMPLETED]
    done = [(start, end) for start, end in spans if start and end]
    if not done:
        return
    seconds = (max(end for _, end in done) - min(start for start, _ in done)).total_seconds()
    latencies = [(end - start).total_seconds() for start, end in done]
    p95 = quantiles(latencies, n=20, method="inclusive")[-1] if len(latencies) > 1 else latencies[0]
    yield f"time        {seconds:.2f} s from the first submission to the last result"
    yield f"throughput  {len(done) / max(seconds, 1e-4):.0f} tasks/s"
    yield f"latency     mean {1000 * fmean(latencies):.0f} ms, p95 {1000 * p95:.0f} ms"
    shares = Counter(task.worker_id or "" for task in tasks if task.status is Status.COMPLETED)
    width = max(map(len, shares))
    for worker, number in sorted(shares.items()):
        share = number / len(done)
        yield f"{worker:<{width}}  {number:>6}  {share:>4.0%}  {'#' * round(WIDTH * share)}".rstrip()


def _bar(what: str, total: int) -> "tqdm[NoReturn]":
    """A progress bar, shown only in a terminal."""
    return tqdm(desc=what, total=total, unit="task", leave=False, ascii=True, disable=None)
