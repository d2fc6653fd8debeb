#!/usr/bin/env python
"""Does one parent with very many children stop the queue? Shows it on this machine, in half a minute:

    python scripts/benchmarks/fan_out.py [--children 100000]

Starts a Redis server of its own. A parent is completed, another one cancelled: when do all children know it,
how long takes the longest script, and how long does another client wait for an answer?
"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec

from dtq.config import Settings
from dtq.queue.broker import Broker
from dtq.queue.reports import Completed
from dtq.queue.task import NewTask
from dtq.redis_server import RedisServer

NULL = msgspec.Raw(b"null")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--children", type=click.IntRange(min=1), default=100_000, show_default=True)
def main(children: int) -> None:
    """Complete and cancel a parent of very many children, and time the scripts."""
    click.echo(
        f"{'parent is':<10} {'children are':<13} {'after':>7} {'longest script':>15} {'longest wait':>13}"
    )
    for end, outcome in (("completed", "pending"), ("cancelled", "cancelled")):
        with (
            TemporaryDirectory() as folder,
            RedisServer(Path(folder)) as server,
            closing(Broker(server.url, Settings(_env_file=None))) as broker,
        ):
            parent = fan_out(broker, children)
            with waits(server.url) as waited:
                began = time.monotonic()
                longest = tell(broker, parent, end)
                took = time.monotonic() - began
        waits_ms = 1000 * max(waited)
        click.echo(f"{end:<10} {outcome:<13} {took:5.1f} s {longest:12.0f} ms {waits_ms:10.0f} ms")


def fan_out(broker: Broker, children: int) -> str:
    """A parent and its children; returns its id."""
    parent = NewTask(type="noop", data=NULL)
    broker.submit([parent])
    for start in range(0, children, 1000):
        n = min(1000, children - start)
        broker.submit([NewTask(type="noop", data=NULL, depends_on=[parent.id]) for _ in range(n)])
    return parent.id


def tell(broker: Broker, parent: str, end: str) -> float:
    """Ends the parent and waits until its last child knows. Returns the time of the longest script, ms."""
    broker.redis.config_set("slowlog-log-slower-than", 1000)
    broker.redis.slowlog_reset()
    if end == "cancelled":
        broker.cancel(parent)
    else:
        [task] = broker.report_and_claim("worker-1", [], 1)[1]
        broker.report_and_claim("worker-1", [Completed(task, 0.0, time.monotonic(), b"null")], 0)
    while broker.redis.zcard(broker.keys.waiting):
        broker.maintain()
    return max((entry["duration"] for entry in broker.redis.slowlog_get(1000)), default=0) / 1000


@contextmanager
def waits(url: str) -> Iterator[list[float]]:
    """The seconds that another client waits for each of its answers, while the block runs."""
    seconds, ended = [0.0], threading.Event()

    def ask() -> None:
        with closing(Broker(url, Settings(_env_file=None))) as other:
            while not ended.wait(0.005):
                began = time.monotonic()
                other.counts()
                seconds.append(time.monotonic() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield seconds
    finally:
        ended.set()
        asking.join()


if __name__ == "__main__":
    main()
