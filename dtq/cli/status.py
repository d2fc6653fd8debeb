"""`dtq status`: health, workers, queues and the last tasks, as a table in a terminal."""

import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import click

from dtq.cli.terminal import printable
from dtq.client import Client
from dtq.errors import ApiError, NoGatewayError
from dtq.queue.task import Task
from dtq.queue.worker_info import WorkerInfo

Row: TypeAlias = tuple[str, ...]

INTERVAL = 0.5  # seconds between two drawings of the table
TASKS = 10  # newest tasks that are shown
QUEUES = ("pending_tasks", "processing", "delayed", "waiting", "dead_letter", "completed_tasks")
AMISS = ("parked", "unreadable")  # shown where there are any
HOME, REST_OF_LINE, REST_OF_SCREEN, ALL = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


def show() -> None:
    """Prints the table once."""
    with Client() as client:
        click.echo("\n".join(lines(client)))


def watch() -> None:
    """Redraws the table in place until Ctrl-C, also while no gateway answers."""
    click.echo(ALL, nl=False)
    try:
        with Client() as client:
            while True:
                try:
                    shown = list(lines(client))
                except (NoGatewayError, ApiError) as error:
                    shown = [str(error)]
                click.echo(HOME + _fitted(shown) + REST_OF_SCREEN, nl=False)
                time.sleep(INTERVAL)
    except KeyboardInterrupt:
        click.echo()


def lines(client: Client) -> Iterator[str]:
    """The lines of the table."""
    health = client.health()
    yield " ".join([client.url, "is", f"{health['status']}.", *health["reasons"]])
    if health["status"] == "unhealthy":
        return
    yield ", ".join(f"{name.removesuffix('_tasks').replace('_', ' ')} {health[name]}" for name in QUEUES)
    if amiss := [f"{name} {health[name]}" for name in AMISS if health[name]]:
        yield f"{', '.join(amiss)}: `dtq doctor` says more"
    now = datetime.fromisoformat(health["timestamp"])
    yield ""
    yield from _table("worker status done beat task", [_worker(worker, now) for worker in client.workers()])
    yield ""
    tasks = [_task(task, now) for task in client.list(limit=TASKS)]
    yield from _table("task type priority status attempts worker age", tasks)


def _worker(worker: WorkerInfo, now: datetime) -> Row:
    done = str(worker.tasks_processed)
    return worker.id, worker.status, done, _age(worker.last_heartbeat, now), worker.current_task or ""


def _task(task: Task[Any], now: datetime) -> Row:
    last = str(task.attempts), task.worker_id or "", _age(task.created_at, now)
    return task.id, task.type, task.priority, str(task.status), *last


def _table(head: str, rows: list[Row]) -> Iterator[str]:
    cells = [[printable(cell) for cell in row] for row in [head.split(), *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _age(moment: datetime | None, now: datetime) -> str:
    return f"{max(0.0, (now - moment).total_seconds()):.1f}s" if moment else ""


def _fitted(shown: Sequence[str]) -> str:
    """As much text as the terminal has room for, so that the first line stays where it is."""
    columns, rows = shutil.get_terminal_size()
    return "".join(f"{line[:columns]}{REST_OF_LINE}\n" for line in shown[: rows - 1])
