"""Soaks the queue: real processes under random faults, then an audit. Nothing acknowledged may be lost.

    python scripts/soak.py --minutes 10 --seed 7 --log soak.log

Starts Redis, a gateway and workers of its own and submits tasks. Meanwhile it kills, pauses, fills and breaks
what the plan of the seed names. Then all faults end, the queue is drained, and the audit says what became of
each task. The exit code is the verdict: 0 if all is good.
"""

import logging
import random
import tempfile
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from random import Random

import click

from dtq.errors import DtqError
from dtq.lab.cluster.waiting import until
from scripts.soaking import audit
from scripts.soaking.faults import Faults
from scripts.soaking.ledger import Ledger
from scripts.soaking.plan import LANES
from scripts.soaking.system import System
from scripts.soaking.traffic import Customer

WORKERS, CUSTOMERS = 4, 3
DRAIN = 90.0  # seconds until all tasks must have ended
log = logging.getLogger("soak")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=10.0, show_default=True, help="How long the faults go on.")
@click.option("--seed", type=int, help="Repeat the plan of an earlier run.  [default: a new one]")
@click.option("--log", "file", type=click.Path(path_type=Path), help="Write each fault into this file.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep data and logs in this empty folder.")
def main(minutes: float, seed: int | None, file: Path | None, keep: Path | None) -> None:
    """Soak the queue in faults, then audit it."""
    seed = random.randrange(10**6) if seed is None else seed
    if keep and keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"{keep} holds something already: the audit would take it for this run's.")
    click.echo(f"seed {seed}, {minutes:g} minutes")
    log.addHandler(logging.FileHandler(file) if file else logging.NullHandler())
    log.handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="dtq-soak-") as folder:
        figures, complaints = soak(keep or Path(folder), 60 * minutes, seed)
    click.echo("\n".join(f"  {name:<24}{number:>8}" for name, number in figures.items()))
    for complaint in complaints:
        click.echo(f"bad: {complaint}")
    click.echo(f"verdict: {'bad' if complaints else 'good'} (seed {seed})")
    raise SystemExit(bool(complaints))


def soak(folder: Path, seconds: float, seed: int) -> tuple[dict[str, int], list[str]]:
    """Runs a system under faults, drains and audits it.

    Args:
        folder: for data and logs.
        seconds: how long the faults go on.
        seed: of the plan.

    Returns:
        Figures to print, and what is wrong.
    """
    ledger, enough, ended = Ledger(), threading.Event(), threading.Event()
    with System(folder, WORKERS) as system:
        faults = Faults(system, ledger, enough)
        keeper = threading.Thread(target=system.keep, args=(ended,))
        keeper.start()
        try:
            customers = [Customer(system.url, ledger) for _ in range(CUSTOMERS)]
            ledger.complaints += hit(faults, customers, enough, seconds, seed)
            drain(system, ledger)
        finally:
            ended.set()
            keeper.join()
        system.stop()
        return judge(system, faults, ledger)


def hit(
    faults: Faults, customers: list[Customer], enough: threading.Event, seconds: float, seed: int
) -> list[str]:
    """Lets traffic and faults go on for so long. Returns what they failed in."""
    with ThreadPoolExecutor(len(LANES) + len(customers)) as pool:
        going_on = [pool.submit(faults.run, seed, lane) for lane in LANES]
        for n, customer in enumerate(customers):
            chance = Random(f"{seed} customer {n}")
            going_on.append(pool.submit(customer.keep_submitting, enough, chance))
        try:
            wait(going_on, seconds, FIRST_EXCEPTION)
        finally:
            enough.set()
    errors = [error for one in going_on if (error := one.exception())]
    for error in errors:
        log.error("a lane broke off", exc_info=error)
    return list(map(repr, errors))


def drain(system: System, ledger: Ledger) -> None:
    """Waits until all tasks have ended. Those that are dead get one more chance."""
    log.info("draining")
    finish(system, ledger, "pending", "processing", "delayed")
    log.info("%d dead tasks get one more chance", len(system.broker.requeue()))
    finish(system, ledger, "pending", "processing", "delayed", "waiting")
    log.info("drained")


def finish(system: System, ledger: Ledger, *places: str) -> None:
    """Waits until these places are empty, all children were told, all broken documents were set aside."""
    unsettled = system.broker.keys.unsettled

    def done() -> bool:
        counts = system.broker.counts()
        empty = not any(counts[place] for place in places) and not system.redis.exists(unsettled)
        return empty and counts["unreadable"] >= len(ledger.broken)

    try:
        until(done, "all tasks have ended", DRAIN)
    except DtqError as error:
        ledger.complaints.append(f"{error}: {system.broker.counts()}")


def judge(system: System, faults: Faults, ledger: Ledger) -> tuple[dict[str, int], list[str]]:
    """Figures of the run, and what is wrong."""
    lives = audit.Lives(system.server.directory, system.broker.keys.task)
    dead = audit.members(system.broker, system.broker.keys.dead_letter)
    lost = audit.lost(ledger.acknowledged, lives, dead)
    unexpected, mistakes = [end for end in system.ends if not end.expected], list(system.mistakes())
    figures = {
        "faults": len(faults.done),
        "ends of processes": len(system.ends),
        "documents broken": len(ledger.broken),
        "tasks acknowledged": len(ledger.acknowledged),
        "tasks completed": lives.completed,
        "tasks in the dead letter": len(dead),
        **dict(sorted(ledger.counts.items())),
        "lost": len(lost),
        "stored twice": len(lives.stored_twice),
        "ended by themselves": len(unexpected),
        "mistakes in logs": len(mistakes),
    }
    complaints = [f"{task_id} is lost: {lives.last.get(task_id)}" for task_id in lost]
    complaints += [f"{task_id} was stored twice" for task_id in lives.stored_twice]
    complaints += [f"{end.name} ended with {end.code}" for end in unexpected]
    complaints += [*mistakes, *ledger.complaints, *audit.untrue(system.broker, ledger, lives)]
    return figures, complaints


if __name__ == "__main__":
    main()
