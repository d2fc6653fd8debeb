#!/usr/bin/env python
"""How far does one Redis carry? Measures it on this machine, in some minutes:

    python scripts/benchmarks/how_far.py [--quick] [--json FILE]

Starts a Redis server, gateways and workers of its own. Tasks per second depend on how many cores there are.
The CPU time of Redis for each task does not. Redis computes in one thread, so a second divided by that time
is about what one Redis carries, with as many gateways and workers as you like on other machines.
"""

import http.client
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import click
import msgspec
import psutil

from dtq import announcement
from dtq.config import Settings
from dtq.lab.cluster.supervisor import Supervisor
from dtq.processes.program import dtq
from dtq.queue.broker import Broker
from dtq.queue.maintenance import INTERVAL
from dtq.queue.task import NewTask
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from dtq.worker.worker import IDLE_WAIT

NOOP = {"type": "noop", "data": None}  # does nothing: what is measured is the queue alone
BATCH = 100  # tasks in one request
CLIENTS = 6  # threads that submit; one, two and three gateways can share them evenly
Figures = dict[str, tuple[float, str]]  # what -> how much, and its unit


class Sizes(NamedTuple):
    """How much of everything, in each run."""

    tasks: int  # tasks that wait when the workers begin
    single: int  # requests with one task
    batches: int  # requests with many
    lives: int  # times that each process imitates ten seconds of an idle worker
    workers: Sequence[int]
    gateways: Sequence[int]


FULL = Sizes(tasks=20_000, single=3_000, batches=300, lives=100, workers=(1, 2, 4), gateways=(1, 2, 3))
QUICK = Sizes(tasks=2_000, single=300, batches=60, lives=20, workers=(1, 2), gateways=(1, 2))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A short run: shows that it works; its figures are rough.")
@click.option(
    "--runs", type=click.IntRange(min=1), help="Take the median of so many runs.  [default: 3; 1 if quick]"
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures into this file too.")
def main(quick: bool, runs: int | None, file: Path | None) -> None:
    """Measure how far one Redis carries."""
    runs = runs or (1 if quick else 3)
    about = machine()
    measured = [measure(QUICK if quick else FULL) for _ in range(runs)]
    figures = {
        name: (median(run[name][0] for run in measured), unit) for name, (_, unit) in measured[0].items()
    }
    concluded = conclude({name: value for name, (value, _) in figures.items()})
    click.echo("\n".join([about, f"Median of {runs} runs." if runs > 1 else "One run.", "", *table(figures)]))
    click.echo("\nSo this is about what one Redis carries, with a core like this to itself:")
    click.echo("\n".join(table(concluded)))
    if file:
        rows = [{"what": name, "value": v, "unit": u} for name, (v, u) in (figures | concluded).items()]
        file.write_text(json.dumps({"machine": about, "runs": runs, "figures": rows}, indent=1) + "\n")


def machine() -> str:
    """The machine, the server's version, and the load before the measurement."""
    with System() as system:
        info = system.redis.info("server")
    name = info.get("server_name", "redis")
    version = info.get(f"{name}_version", info["redis_version"])
    python = f"Python {platform.python_version()}"
    where = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    return f"{where}, {python}, {name} {version}, load before: {os.getloadavg()[0]:.1f}"


def measure(sizes: Sizes) -> Figures:
    """One run of everything. Each part has a fresh server."""
    figures: Figures = {}
    with System() as system:
        for number in sizes.workers:
            figures |= throughput(system, number, sizes.tasks)
    with System(DTQ_PREFETCH_MAX="1") as system:
        figures |= one_by_one(system, sizes.tasks // 4)
    with System() as system:
        for number in sizes.gateways:
            figures |= submissions(system, number, "one by one", sizes.single, 1)
            figures |= submissions(system, number, f"by {BATCH}", sizes.batches, BATCH)
    with System() as system:
        figures |= idle_worker(system, sizes.lives)
        figures |= memory(system, sizes.tasks)
    return figures


class System:
    """A Redis server, to which gateways and workers can be added. They are as in production: those of
    `LocalCluster` also keep a ledger of executions, which has its price.

    Args:
        environment: settings of all gateways and workers.
    """

    def __init__(self, **environment: str) -> None:
        self.workers: dict[str, int] = {}  # name -> process id
        self.gateways: list[Any] = []  # address and process id of each
        self._supervisor = Supervisor()
        self._folder = self._supervisor.directory
        server = RedisServer(self._folder / "redis", processes=self._supervisor).start()
        self._environment = {"REDIS_URL": server.url} | environment
        self.url = server.url
        self.broker = Broker(self.url, Settings(_env_file=None))
        self.redis: Any = self.broker.redis

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()
        self._supervisor.close()

    def need(self, workers: int = 0, gateways: int = 0) -> None:
        """Starts workers and gateways until there are so many; returns when they are at work."""
        while len(self.workers) < workers:
            name = f"worker-{len(self.workers) + 1}"
            self.workers[name] = self._start(name, "worker", "--name", name)
            self._until(name, lambda: self.waiting() == len(self.workers))
        while len(self.gateways) < gateways:
            name = f"gateway-{len(self.gateways) + 1}"
            pid, home = self._start(name, "gateway", "--port", "0"), self._folder / name
            self.gateways.append({"pid": pid, "url": self._until(name, partial(announcement.find, home))})

    def waiting(self) -> int:
        """How many workers wait for tasks. A worker that waits has started completely."""
        return [peer["cmd"] for peer in self.redis.client_list()].count("bzpopmin")

    def signal(self, number: int) -> None:
        """Sends a signal to all workers."""
        for name in self.workers:
            self._supervisor.signal(name, number)

    def cpu(self) -> float:
        """CPU seconds of the server's main thread. Other threads write to the disk and free memory."""
        info = self.redis.info("cpu")
        names = ("used_cpu_user", "used_cpu_sys")
        return float(sum(info.get(f"{name}_main_thread", info[name]) for name in names))

    def memory(self) -> int:
        """Bytes that the server uses."""
        return int(self.redis.info("memory")["used_memory"])

    def fill(self, tasks: int) -> None:
        """Submits so many tasks without a gateway."""
        for _ in range(0, tasks, BATCH):
            self.broker.submit([NewTask(type="noop", data=msgspec.Raw(b"null")) for _ in range(BATCH)])

    def _start(self, name: str, *command: str) -> int:
        environment = self._environment | {"DTQ_HOME": str(self._folder / name)}
        return self._supervisor.start(name, dtq(*command), environment, self._folder / f"{name}.log")

    def _until(self, name: str, seen: Callable[[], Any]) -> Any:
        while not (answer := seen()):
            if self._supervisor.exit_code(name) is not None:
                raise click.ClickException((self._folder / f"{name}.log").read_text())
            time.sleep(0.01)
        return answer


# ---------------------------------------------------------------- what is measured


def throughput(system: System, workers: int, tasks: int) -> Figures:
    """Measures how fast so many workers empty a queue."""
    system.need(workers=workers)
    seconds, redis, computed = drain(system, tasks)
    name = f"{workers} worker{'s' * (workers > 1)}, queue filled beforehand"
    return {
        name: (tasks / seconds, "tasks/s"),
        f"{name}: Redis is busy": (100 * redis / seconds, "%"),
        "a worker computes, in batches": (1e6 * computed / tasks, "µs/task"),
        "Redis computes: claims and results in batches": (1e6 * redis / tasks, "µs/task"),
    }


def one_by_one(system: System, tasks: int) -> Figures:
    """Measures claims of one task each, as workers make them for tasks longer than 50 ms."""
    system.need(workers=2)
    _, redis, computed = drain(system, tasks)
    return {
        "a worker computes, one by one": (1e6 * computed / tasks, "µs/task"),
        "Redis computes: claims and results one by one": (1e6 * redis / tasks, "µs/task"),
    }


def drain(system: System, tasks: int) -> tuple[float, float, float]:
    """Fills the queue while the workers are paused, then lets all of them empty it at the same time.

    Returns:
        Seconds by the clock, CPU seconds of Redis, CPU seconds of the workers.
    """
    system.signal(signal.SIGSTOP)
    system.redis.flushdb()
    system.fill(tasks)
    pids = list(system.workers.values())
    redis, computed, began = system.cpu(), cpu(pids), time.perf_counter()
    system.signal(signal.SIGCONT)
    await_completed(system, tasks)
    return time.perf_counter() - began, system.cpu() - redis, cpu(pids) - computed


def submissions(system: System, gateways: int, how: str, requests: int, size: int) -> Figures:
    """Measures how fast clients submit over HTTP to so many gateways."""
    system.need(gateways=gateways)
    system.redis.flushdb()
    chosen, tasks = system.gateways[:gateways], requests * size
    pids = [gateway["pid"] for gateway in chosen]
    urls = [chosen[client % gateways]["url"] for client in range(CLIENTS)]
    path = "/tasks" if size == 1 else "/tasks/batch"
    body = json.dumps(NOOP if size == 1 else {"tasks": [NOOP] * size}).encode()
    redis, computed, began = system.cpu(), cpu(pids), time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda url: post(url, path, body, requests // CLIENTS), urls))
    seconds = time.perf_counter() - began
    return {
        f"{gateways} gateway{'s' * (gateways > 1)}, tasks submitted {how}": (tasks / seconds, "tasks/s"),
        f"a gateway computes, tasks submitted {how}": (1e6 * (cpu(pids) - computed) / tasks, "µs/task"),
        f"Redis computes: tasks submitted {how}": (1e6 * (system.cpu() - redis) / tasks, "µs/task"),
    }


def idle_worker(system: System, lives: int) -> Figures:
    """Measures what an idle worker costs. A few processes send what thousands of workers would: a server that
    sleeps between calls needs several times the CPU time for each, and a server at its limit does not sleep.
    """
    others, before = len(system.redis.client_list()), system.cpu()
    crowd = (os.cpu_count() or 1) + 1
    with ProcessPoolExecutor(crowd) as pool:
        calls = sum(pool.map(show_life, [system.url] * crowd, [lives] * crowd))
    seconds = 10 * lives * crowd
    cost = (system.cpu() - before) / seconds
    system.need(workers=1)
    return {
        "an idle worker asks Redis": (calls / seconds, "calls/s"),
        "Redis computes for an idle worker": (1e6 * cost, "µs/s"),
        "a worker holds": (len(system.redis.client_list()) - others, "connections"),
        "Redis accepts by default": (system.redis.info("clients")["maxclients"], "connections"),
    }


def show_life(url: str, lives: int) -> int:
    """Sends what an idle worker sends in ten seconds, so many times; returns the number of calls."""
    with closing(Broker(url, Settings(_env_file=None))) as broker:
        beating = WorkerInfo(
            id=f"nobody-{os.getpid()}",
            status="idle",
            current_task=None,
            tasks_processed=0,
            host="nowhere",
            pid=os.getpid(),
        )
        calls: dict[Callable[[], object], float] = {
            broker.maintain: 10 / INTERVAL,
            lambda: broker.heartbeat(beating): 10 / broker.settings.heartbeat,
            lambda: broker.report_and_claim(beating.id, [], 1): 10 / IDLE_WAIT,
            lambda: broker.redis.zpopmin(broker.keys.wake): 10 / IDLE_WAIT,  # what the server does for a wait
        }
        for call, times in list(calls.items()) * lives:
            for _ in range(round(times)):
                call()
        return lives * sum(map(round, calls.values()))


def memory(system: System, tasks: int) -> Figures:
    """Measures the memory of a task without payload and result, while it waits and once it is done."""
    system.need(workers=1)
    system.signal(signal.SIGSTOP)
    system.redis.flushdb()
    empty = system.memory()
    system.fill(tasks)
    full = system.memory()
    system.signal(signal.SIGCONT)
    await_completed(system, tasks)
    return {
        "Redis keeps a pending task without payload": ((full - empty) / tasks, "bytes"),
        "Redis keeps a finished task without result": ((system.memory() - empty) / tasks, "bytes"),
    }


def conclude(figure: dict[str, float]) -> Figures:
    """What follows for a whole core of Redis, for its connections, and for a GB of memory."""
    idle = figure["Redis computes for an idle worker"]
    single = figure["Redis computes: claims and results one by one"]
    single += figure["Redis computes: tasks submitted one by one"]
    batches = figure["Redis computes: claims and results in batches"]
    batches += figure[f"Redis computes: tasks submitted by {BATCH}"]
    found: Figures = {
        "very short tasks, in batches": (1e6 / batches, "tasks/s"),
        "longer tasks, one by one": (1e6 / single, "tasks/s"),
    }
    for seconds in (0.1, 1, 10):
        busy = 1e6 / (single / seconds + idle)
        found[f"its CPU keeps busy, with tasks of {seconds:g} s"] = (busy, "workers")
    finished = 1e9 / figure["Redis keeps a finished task without result"]
    connections = figure["Redis accepts by default"] / figure["a worker holds"]
    found |= {
        "its connections suffice for": (connections, "workers"),
        "1 GB holds, not yet done": (1e9 / figure["Redis keeps a pending task without payload"], "tasks"),
        "1 GB holds, done": (finished, "tasks"),
        "1 GB suffices, with results kept for an hour, for": (finished / 3600, "tasks/s"),
    }
    for how in ("one by one", f"by {BATCH}"):
        cost = figure[f"a gateway computes, tasks submitted {how}"]
        found[f"a core of gateways submits, {how}"] = (1e6 / cost, "tasks/s")
    return found


# ---------------------------------------------------------------- how


def cpu(pids: Sequence[int]) -> float:
    """CPU seconds of these processes together."""
    return float(sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids))


def await_completed(system: System, tasks: int) -> None:
    """Waits for so many completed tasks. Asks seldom enough not to disturb the measurement."""
    while system.broker.counts()["completed"] < tasks:
        time.sleep(0.02)


def post(url: str, path: str, body: bytes, times: int) -> None:
    """Sends the same request again and again, with as little computing of its own as possible."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc)) as connection:
        for _ in range(times):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode()
            if answer.status != 201:
                raise click.ClickException(f"The gateway refused a task: {said}")


def table(figures: Figures) -> list[str]:
    """A line for each figure: what, how much, unit."""
    wide = max(map(len, figures))
    return [f"  {name:<{wide}}  {v:>9,.{int(v < 100)}f} {unit}" for name, (v, unit) in figures.items()]


if __name__ == "__main__":
    main()
