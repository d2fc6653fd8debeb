"""Redis Sentinels, which watch a primary under the name of dtq."""

from pathlib import Path
from urllib.parse import urlsplit

import redis

from dtq import redis_server
from dtq.processes import Processes
from dtq.redis_server import RedisServer, free_port
from tests.helpers import wait_until

DOWN_AFTER = 1000  # milliseconds of silence after which a Sentinel takes the primary for dead


def start_sentinels(
    processes: Processes, directory: Path, primary: RedisServer, n: int, replicas: int = 0, password: str = ""
) -> str:
    """Returns the Sentinels' addresses when they know each other and so many replicas.

    Args:
        processes: who runs them.
        directory: for their configuration and their logs.
        primary: what they watch.
        n: how many.
        replicas: how many it has.
        password: which they ask for.
    """
    ports = [free_port() for _ in range(n)]
    lines = [f"sentinel monitor dtq 127.0.0.1 {primary.port} {n // 2 + 1}"]
    lines += [f"sentinel down-after-milliseconds dtq {DOWN_AFTER}", "sentinel failover-timeout dtq 5000"]
    if secret := urlsplit(primary.url).password:
        lines.append(f"sentinel auth-pass dtq {secret}")
    if password:
        lines.append(f"requirepass {password}")
    tls = {name: value for name, value in primary.options.items() if name.startswith("tls-")}
    lines += ["port 0", "tls-replication yes"] if tls else []
    lines += [f"{name} {value}" for name, value in tls.items()]
    for port in ports:
        path = directory / f"sentinel-{port}.conf"
        own = ["bind 127.0.0.1", f"{'tls-' if tls else ''}port {port}", f"dir '{directory}'"]
        path.write_text("\n".join([*own, *lines, ""]))
        processes.start(
            path.stem, [redis_server.find_program(), str(path), "--sentinel"], output=path.with_suffix(".log")
        )
    for port in ports:
        url = urlsplit(primary.url)._replace(netloc=f":{password}@127.0.0.1:{port}").geturl()
        wait_until(lambda url=url: _knows(url, n - 1, replicas), what="the Sentinels know all")
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def _knows(url: str, others: int, replicas: int) -> bool:
    with redis.Redis.from_url(url) as sentinel:
        try:
            state = sentinel.sentinel_master("dtq")
        except redis.ConnectionError:  # it is not there yet
            return False
    return (state["num-other-sentinels"], state["num-slaves"]) == (others, replicas)
