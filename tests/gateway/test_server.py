"""The gateway as a process: settings, addresses, signals, a taken port, an outage."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests

from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer, free_port
from tests.commands import Program
from tests.helpers import PATIENCE, wait_until

Start = Callable[..., Program]


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def prefix(redis_url: str, broker: Broker) -> str:
    """Of this test's own queue on the shared server."""
    return broker.settings.key_prefix


def host_and_port(url: str) -> tuple[str, str]:
    host, port = url.removeprefix("redis://").removesuffix("/0").split(":")
    return host, port


def submit(session: requests.Session, url: str) -> str:
    answer = session.post(f"{url}/tasks", json={"type": "noop", "data": 1})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["task_id"])


def test_it_listens_where_port_says_and_uses_the_redis_of_redis_url(
    start_gateway: Start, session: requests.Session, redis_url: str, prefix: str, broker: Broker
) -> None:
    port = free_port()
    gateway = start_gateway(PORT=str(port), REDIS_URL=redis_url, DTQ_KEY_PREFIX=prefix)
    assert gateway.url() == f"http://127.0.0.1:{port}"
    assert broker.get(submit(session, gateway.url()))
    assert json.loads(gateway.note.read_text())["pid"] == gateway.process.pid
    assert not (gateway.note.parent / "redis.json").exists()
    assert gateway.url() in gateway.log.read_text()


def test_redis_host_and_port_name_the_server_too(
    start_gateway: Start, session: requests.Session, redis_url: str, prefix: str, broker: Broker
) -> None:
    host, port = host_and_port(redis_url)
    gateway = start_gateway("--port", "0", REDIS_HOST=host, REDIS_PORT=port, DTQ_KEY_PREFIX=prefix)
    assert broker.get(submit(session, gateway.url()))


def test_settings_may_stand_in_a_file(
    start_gateway: Start,
    session: requests.Session,
    redis_url: str,
    prefix: str,
    broker: Broker,
    tmp_path: Path,
) -> None:
    port = free_port()
    lines = (f"PORT={port}", f"REDIS_URL={redis_url}", f'DTQ_KEY_PREFIX="{prefix}"')
    (tmp_path / ".env").write_text("\n".join(lines))
    gateway = start_gateway()
    assert gateway.url() == f"http://127.0.0.1:{port}"
    assert broker.get(submit(session, gateway.url()))


def test_without_settings_it_brings_its_own_redis(
    start_gateway: Start, session: requests.Session, tmp_path: Path
) -> None:
    gateway = start_gateway("--port", "0")
    task_id = submit(session, gateway.url())
    url = json.loads((tmp_path / ".dtq" / "redis.json").read_text())["url"]
    with redis.Redis.from_url(url) as client:
        assert client.exists(f"task:{task_id}")
    gateway.close()
    with redis.Redis.from_url(url, retry=None) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    again = start_gateway("--port", "0")
    assert session.get(f"{again.url()}/tasks/{task_id}").json()["status"] == "pending", "the data stayed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(
    start_gateway: Start, redis_url: str, prefix: str, number: signal.Signals
) -> None:
    gateway = start_gateway("--port", "0", REDIS_URL=redis_url, DTQ_KEY_PREFIX=prefix)
    with requests.Session() as session:
        assert session.get(f"{gateway.url()}/health").status_code == 200  # and keeps the connection open
        gateway.process.send_signal(number)
        assert gateway.process.wait(timeout=PATIENCE) == 0
    assert not gateway.note.exists()
    assert "Traceback" not in gateway.log.read_text()


def test_a_taken_port_is_told_in_one_sentence(start_gateway: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = start_gateway(PORT=str(port))
        assert gateway.process.wait(timeout=PATIENCE) == 1
    said = gateway.log.read_text().strip()
    assert said.startswith(f"Error: The gateway cannot listen on 127.0.0.1, port {port} (")
    assert said.endswith("choose another port with PORT=5001 or --port 5001.")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / ".dtq").exists(), "no Redis server was started for it"


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours_is_told_in_one_sentence(start_gateway: Start, host: str) -> None:
    gateway = start_gateway("--host", host, "--port", "0")
    assert gateway.process.wait(timeout=PATIENCE) == 1
    assert gateway.log.read_text().startswith(f"Error: The gateway cannot listen on {host}, port 0 (")


def test_it_maintains_the_queue_without_workers(
    start_gateway: Start, session: requests.Session, redis_url: str, prefix: str, broker: Broker
) -> None:
    gateway = start_gateway("--port", "0", REDIS_URL=redis_url, DTQ_KEY_PREFIX=prefix)
    task = {"type": "noop", "data": 1, "delay": 0.01}
    task_id = session.post(f"{gateway.url()}/tasks", json=task).json()["task_id"]
    wait_until(lambda: broker.get(task_id).status == "pending", what="it is due")  # type: ignore[union-attr]


def test_it_outlives_an_outage_of_redis(
    start_gateway: Start, session: requests.Session, own_redis: RedisServer
) -> None:
    gateway = start_gateway("--port", "0", REDIS_URL=own_redis.url)
    task_id = submit(session, gateway.url())
    own_redis.stop()
    health = session.get(f"{gateway.url()}/health")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert session.post(f"{gateway.url()}/tasks", json={"type": "noop", "data": 1}).status_code == 503
    wait_until(lambda: "Redis is away" in gateway.log.read_text())
    own_redis.start()
    assert session.get(f"{gateway.url()}/tasks/{task_id}").json()["id"] == task_id
    wait_until(lambda: "Redis is back" in gateway.log.read_text())
    assert gateway.log.read_text().count("Redis is away") == 1


def test_a_redis_that_hangs_counts_as_away(
    start_gateway: Start, session: requests.Session, own_redis: RedisServer
) -> None:
    gateway = start_gateway("--port", "0", REDIS_URL=own_redis.url)
    assert session.get(f"{gateway.url()}/health").status_code == 200
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        assert session.get(f"{gateway.url()}/health").status_code == 503
        assert session.get(f"{gateway.url()}/tasks").status_code == 503
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    assert session.get(f"{gateway.url()}/health").status_code == 200


@pytest.mark.parametrize("size", [2**20 + 1, 3 * 2**20])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(
    start_gateway: Start,
    session: requests.Session,
    redis_url: str,
    prefix: str,
    broker: Broker,
    size: int,
    chunked: bool,
) -> None:
    gateway = start_gateway("--port", "0", REDIS_URL=redis_url, DTQ_KEY_PREFIX=prefix)
    frame = b'{"type":"noop","data":""}'
    body = frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]

    def post(body: bytes) -> requests.Response:
        data = iter([body[:100], body[100:]]) if chunked else body
        headers = {"Content-Type": "application/json"}
        return session.post(f"{gateway.url()}/tasks", data=data, headers=headers)

    answer = post(body)
    assert (answer.status_code, list(answer.json())) == (413, ["error"])
    assert broker.tasks() == []
    assert post(b'{"type":"noop","data":"' + b"x" * 1000 + b'"}').status_code == 201


def test_two_gateways_share_a_queue(
    start_gateway: Start, session: requests.Session, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    first = start_gateway("--port", "0", REDIS_URL=redis_url, DTQ_KEY_PREFIX=prefix)
    first_url = first.url()
    second = start_gateway("--port", "0", REDIS_URL=redis_url, DTQ_KEY_PREFIX=prefix, DTQ_HOME="second")
    task_id = submit(session, first_url)
    assert session.get(f"{second.url()}/tasks/{task_id}").status_code == 200
    names = {session.get(f"{url}/health").json()["gateway"] for url in (first_url, second.url())}
    assert len(names) == 2
