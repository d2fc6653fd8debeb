"""The primary dies, or the cluster changes: another server takes its place, and everybody resumes."""

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import redis

from dtq.client import Client
from dtq.errors import DtqError
from dtq.lab.cluster.replicas import ReplicatedRedis
from dtq.processes.children import Children
from dtq.processes.program import dtq
from dtq.queue.task import Status
from dtq.redis_server import RedisServer, free_port
from tests.helpers import PATIENCE, wait_until
from tests.redis_cluster import bus_port, node, owner_of, redis_cluster

WORKERS = [f"worker-{n}" for n in (1, 2, 3)]
PREFIX = "{failover}:"
ENVIRONMENT = {"DTQ_HEARTBEAT": "0.25", "DTQ_LEASE": "4", "DTQ_KEY_PREFIX": PREFIX}
NODE_TIMEOUT = "2000"  # milliseconds after which a node is said to be dead
log = logging.getLogger(__name__)
Start = Callable[..., "Service"]


class Service:
    """Two gateways and three workers, each a process, and somebody who submits to both in turn."""

    def __init__(self, processes: Children, home: Path, environment: dict[str, str]) -> None:
        ports = [str(free_port()) for _ in range(2)]
        commands = {f"gateway-{port}": ["gateway", "--port", port] for port in ports}
        commands |= {name: ["worker", "--name", name] for name in WORKERS}
        for name, words in commands.items():
            processes.start(name, dtq(*words), {"DTQ_HOME": str(home), **environment}, home / f"{name}.log")
        self.clients = [Client(f"http://127.0.0.1:{port}", api_key="") for port in ports]
        self.acknowledged: list[str] = []
        self._answers = Counter[Client]()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._submit)
        self._thread.start()

    def resumes(self) -> float:
        """Returns when both gateways acknowledge again, which it times, and every worker works."""
        start, before = time.monotonic(), len(self.acknowledged) + 1  # one may be on its way
        earlier = self._answers.copy()
        wait_until(lambda: all(self._answers[client] > earlier[client] + 1 for client in self.clients))
        seconds = time.monotonic() - start
        wait_until(lambda: self._at_work(before) == set(WORKERS), what="every worker resumes")
        return seconds

    def stop(self) -> None:
        self._enough.set()
        self._thread.join()

    def lost(self) -> list[str]:
        """What was acknowledged and is not done, once nobody submits any more."""
        self.stop()
        tasks = self.clients[0].wait(self.acknowledged, timeout=PATIENCE, progress=False)
        done = {task.id for task in tasks if task.status == Status.COMPLETED}
        return [task_id for task_id in self.acknowledged if task_id not in done]

    def _at_work(self, before: int) -> set[str | None]:
        """Who did something of what was acknowledged later."""
        try:
            newest = self.clients[0].list(status=Status.COMPLETED, limit=100)
        except DtqError:
            return set()  # not every thread of this gateway has found the new primary
        return {task.worker_id for task in newest if task.id in self.acknowledged[before:]}

    def _submit(self) -> None:
        for client in cycle(self.clients):
            if self._enough.is_set():
                break
            try:
                self.acknowledged.append(client.submit("sleep", 0.01))
                self._answers[client] += 1
            except DtqError:
                self._enough.wait(0.05)  # refused, so not acknowledged


@pytest.fixture
def processes() -> Iterator[Children]:
    """They end with the test."""
    processes = Children()
    yield processes
    processes.close(grace=0)


@pytest.fixture
def start(processes: Children, tmp_path: Path) -> Iterator[Start]:
    """Starts a service with these settings; returns when its load is on."""
    with ExitStack() as stack:

        def start(**settings: str) -> Service:
            service = Service(processes, tmp_path, ENVIRONMENT | settings)
            stack.callback(service.stop)
            wait_until(lambda: len(service.acknowledged) >= 50, what="the load is on")
            return service

        yield start


# ---------------------------------------------------------------- Sentinels


def test_nothing_that_a_replica_has_is_lost_when_the_primary_is_killed(
    tmp_path: Path, processes: Children, start: Start
) -> None:
    servers = ReplicatedRedis(tmp_path, 2, "everysec", processes).start()
    service = start(DTQ_REDIS_SENTINELS=servers.sentinels, DTQ_WAIT_REPLICAS="1")
    processes.signal(servers.name, signal.SIGKILL)
    log.info("Sentinels: %.1f s until both gateways acknowledged again", service.resumes())
    assert service.lost() == []


# ---------------------------------------------------------------- a Redis Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Three nodes, which soon miss one another."""
    with redis_cluster(tmp_path / "cluster", cluster_node_timeout=NODE_TIMEOUT) as nodes:
        yield nodes


@pytest.fixture
def heir(tmp_path: Path, cluster: list[RedisServer]) -> Iterator[redis.Redis]:
    """A replica of the node that has the queue."""
    owner = owner_of(cluster, PREFIX)
    with (
        node(tmp_path / "heir", cluster_node_timeout=NODE_TIMEOUT) as heir,
        redis.Redis.from_url(heir.url) as client,
    ):
        client.execute_command("CLUSTER MEET", "127.0.0.1", owner.port, bus_port(owner))
        with redis.Redis.from_url(owner.url) as primary:
            owner_id = primary.execute_command("CLUSTER MYID").decode()
        wait_until(lambda: owner_id in str(client.execute_command("CLUSTER NODES")), what="they have met")
        client.execute_command("CLUSTER REPLICATE", owner_id)
        wait_until(lambda: client.info("replication").get("master_link_status") == "up", what="it follows")
        for each in cluster:
            wait_until(lambda each=each: _replicas(each, owner_id), what="all know that it follows")
        yield client


def _replicas(node: RedisServer, primary_id: str) -> Any:
    with redis.Redis.from_url(node.url) as client:
        return client.execute_command("CLUSTER REPLICAS", primary_id)


def test_a_node_that_dies_is_followed_by_its_replica(
    cluster: list[RedisServer], heir: redis.Redis, start: Start
) -> None:
    service = start(DTQ_REDIS_CLUSTER="1", REDIS_URL=cluster[0].url)
    os.kill(owner_of(cluster, PREFIX).pid, signal.SIGKILL)
    log.info("Cluster: %.1f s until both gateways acknowledged again", service.resumes())
    assert heir.info("replication")["role"] == "master"


def test_nothing_is_lost_when_a_replica_takes_over_in_good_order(
    cluster: list[RedisServer], heir: redis.Redis, start: Start
) -> None:
    service = start(DTQ_REDIS_CLUSTER="1", REDIS_URL=cluster[0].url)
    heir.execute_command("CLUSTER FAILOVER")
    wait_until(lambda: heir.info("replication")["role"] == "master", what="it took over")
    service.resumes()
    assert service.lost() == []
