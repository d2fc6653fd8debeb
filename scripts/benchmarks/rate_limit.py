#!/usr/bin/env python
"""Do several gateways keep one limit? Shows it on this machine, in some seconds:

    python scripts/benchmarks/rate_limit.py [--gateways 3] [--clients 20] [--seconds 10]

Starts a Redis server and gateways of its own. The clients share one API key, and submit one task after the
other as fast as they are answered. A refused task is sent again, with the same Idempotency-Key, until it is
accepted.
"""

import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import click
import requests

from dtq import announcement
from dtq.config import Settings
from dtq.gateway.access import ApiKeys, Scope
from dtq.lab.cluster.supervisor import Supervisor
from dtq.processes.program import dtq
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer


class Answer(NamedTuple):
    """An answer of a gateway: when it came, in seconds since the start, and the id of an accepted task."""

    at: float
    task_id: str | None
    retry_after: str | None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--gateways", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--clients", type=click.IntRange(min=1), default=20, show_default=True, help="Threads.")
@click.option("--per-second", type=click.IntRange(min=1), default=50, show_default=True, help="The limit.")
@click.option("--seconds", type=click.IntRange(min=1), default=10, show_default=True, help="Duration.")
def main(gateways: int, clients: int, per_second: int, seconds: int) -> None:
    """Drive gateways at more than their common limit, and count."""
    with closing(Supervisor()) as supervisor:
        server = RedisServer(supervisor.directory / "redis", processes=supervisor).start()
        with closing(Broker(server.url, Settings(_env_file=None))) as broker:
            _, key = ApiKeys(broker).create("ci", Scope.SUBMIT)
            settings = {"REDIS_URL": server.url, "DTQ_AUTH": "required", "DTQ_LOG_LEVEL": "WARNING"}
            settings["DTQ_RATE_LIMIT"] = f"{per_second}/second"
            urls = [start_gateway(supervisor, settings, f"gateway-{i + 1}") for i in range(gateways)]
            began = time.monotonic()
            with ThreadPoolExecutor(clients) as pool:
                heard = list(
                    pool.map(lambda i: press(urls[i % gateways], key, began, seconds), range(clients))
                )
            took = time.monotonic() - began
            answers = [answer for each in heard for answer in each]
            tell(answers, took, per_second, broker)


def start_gateway(supervisor: Supervisor, settings: dict[str, str], name: str) -> str:
    """Starts a gateway; returns its address when it listens."""
    home = supervisor.directory / name
    log = Path(f"{home}.log")
    supervisor.start(name, dtq("gateway", "--port", "0"), settings | {"DTQ_HOME": str(home)}, log)
    while not (url := announcement.find(home)):
        if supervisor.exit_code(name) is not None:
            raise click.ClickException(log.read_text())
        time.sleep(0.01)
    return url


def press(url: str, key: str, began: float, seconds: float) -> list[Answer]:
    """One client, which ignores Retry-After: it does not wait at all."""
    answers: list[Answer] = []
    task, name = {"type": "noop", "data": None}, str(uuid.uuid4())
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {key}"
        while time.monotonic() < began + seconds:
            answer = session.post(f"{url}/tasks", json=task, headers={"Idempotency-Key": name}, timeout=30)
            if answer.status_code not in (201, 429):
                raise click.ClickException(f"HTTP {answer.status_code}: {answer.text}")
            accepted = answer.json()["task_id"] if answer.status_code == 201 else None
            name = str(uuid.uuid4()) if accepted else name
            answers.append(Answer(time.monotonic() - began, accepted, answer.headers.get("Retry-After")))
    return answers


def tell(answers: list[Answer], took: float, per_second: int, broker: Broker) -> None:
    """Prints the table, and what became of the tasks."""
    accepted = [answer.task_id for answer in answers if answer.task_id]
    refused = [answer for answer in answers if not answer.task_id]
    seconds = Counter((int(answer.at), bool(answer.task_id)) for answer in answers)
    click.echo("second  accepted  refused")
    for second in range(int(took) + 1):
        click.echo(f"{second:6}  {seconds[second, True]:8}  {seconds[second, False]:7}")
    stored = [task_id.decode() for task_id in broker.redis.lrange(broker.keys.pending, 0, -1)]
    rows = [
        ("accepted", len(accepted), f"at most {int(per_second * (took + 1))} in {took:.1f} s"),
        (
            "refused",
            len(refused),
            f"{sum(answer.retry_after is not None for answer in refused)} with Retry-After",
        ),
        ("stored", len(stored), ""),
        ("accepted and not stored", len(set(accepted) - set(stored)), ""),
        ("stored and not accepted", len(set(stored) - set(accepted)), ""),
        ("stored twice", len(stored) - len(set(stored)), ""),
    ]
    click.echo("\n" + "\n".join(f"{name:24}{number:6}  {more}".rstrip() for name, number, more in rows))


if __name__ == "__main__":
    main()
