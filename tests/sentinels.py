"""A Redis Sentinel that asks for a password, or speaks TLS. Those of `dtq.lab.cluster` do neither."""

from pathlib import Path
from urllib.parse import urlsplit

import redis

from dtq import redis_server
from dtq.connection import PROTOCOL
from dtq.processes.children import Children
from dtq.redis_server import RedisServer, free_port
from tests.helpers import wait_until


def start_sentinel(processes: Children, directory: Path, primary: RedisServer, password: str = "") -> str:
    """Returns its address when it answers.

    Args:
        processes: who runs it.
        directory: for its configuration and its log.
        primary: what it watches, under the name of dtq. It speaks TLS if that does.
        password: which it asks for.
    """
    port, url = free_port(), urlsplit(primary.url)
    lines = ["bind 127.0.0.1", f"dir '{directory}'", f"sentinel monitor dtq 127.0.0.1 {primary.port} 1"]
    if url.password:
        lines.append(f"sentinel auth-pass dtq {url.password}")
    if password:
        lines.append(f"requirepass {password}")
    tls = {name: value for name, value in primary.options.items() if name.startswith("tls-")}
    lines += [f"tls-port {port}", "port 0", "tls-replication yes"] if tls else [f"port {port}"]
    lines += [f"{name} {value}" for name, value in tls.items()]
    path = directory / "sentinel.conf"
    path.write_text("\n".join([*lines, ""]))
    command = [redis_server.find_program(), str(path), "--sentinel"]
    processes.start("sentinel", command, output=directory / "sentinel.log")
    own_url = url._replace(netloc=f":{password}@127.0.0.1:{port}").geturl()
    wait_until(lambda: _answers(own_url), what="the Sentinel answers")
    return f"127.0.0.1:{port}"


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url, protocol=PROTOCOL) as sentinel:
        try:
            return bool(sentinel.sentinel_master("dtq"))
        except redis.ConnectionError:  # it is not there yet
            return False
