"""A Redis Cluster of three nodes, each an embedded server."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

from dtq.redis_server import RedisServer, free_port
from tests.helpers import wait_until

NODES = 3


@contextmanager
def redis_cluster(directory: Path, **options: str) -> Iterator[list[RedisServer]]:
    """Nodes that have met and share the slots evenly; `options` as for `node`."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(node(directory / f"node-{n}", **options)) for n in range(NODES)]
        clients = [stack.enter_context(redis.Redis.from_url(node.url)) for node in nodes]
        for n, client in enumerate(clients):
            first, end = n * SLOTS // NODES, (n + 1) * SLOTS // NODES
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
            if n:
                client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port, bus_port(nodes[0]))
        wait_until(lambda: all(_ready(client) for client in clients), what="the nodes know each other")
        yield nodes


def bus_port(node: RedisServer) -> str:
    """Where the other nodes reach it."""
    return node.options["cluster-port"]


def node(directory: Path, **options: str) -> RedisServer:
    """One that is alone as yet; `options` are directives, with underscores."""
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return RedisServer(
        directory, options={"cluster-enabled": "yes", "cluster-port": str(free_port())} | given
    )


def owner_of(nodes: list[RedisServer], prefix: str) -> RedisServer:
    """The node that was given the slot of this prefix."""
    return nodes[(key_slot(prefix.encode()) * NODES) // SLOTS]


def _ready(client: redis.Redis) -> bool:
    info: Any = client.cluster("INFO")
    return (info["cluster_state"], int(info["cluster_known_nodes"])) == ("ok", NODES)
