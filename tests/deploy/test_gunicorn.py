"""The gateway under gunicorn, as processes: keys, signals, outages, what it says of itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dtq.gateway.access import ApiKeys, Scope
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer, free_port
from tests.deploy.conftest import DEPLOY
from tests.helpers import PATIENCE, alive, family, new_task, wait_until

CONFIG = DEPLOY / "gunicorn.conf.py"


class Gunicorn:
    """`gunicorn --config deploy/gunicorn.conf.py` in a folder of its own, with nothing of our settings."""

    def __init__(self, folder: Path, **environment: str) -> None:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("DTQ_", "REDIS_"))}
        self.port = free_port()
        self.log = folder / "gunicorn.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", CONFIG],
                cwd=folder,
                env=kept | {"PORT": str(self.port), "DTQ_LOG_FORMAT": "json"} | environment,
                stdout=output,
                stderr=output,
            )

    def call(self, method: str, path: str, key: str = "", **more: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            url = f"http://127.0.0.1:{self.port}{path}"
            return session.request(method, url, headers=headers, timeout=PATIENCE, **more)

    def health(self) -> int:
        """The status code of /health; 0 where nobody answers."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.call("GET", "/health").status_code
        except requests.ConnectionError:
            return 0

    def children(self) -> set[int]:
        return set(family(self.process.pid)[1:])

    def stop(self) -> int:
        """Ends it politely. Returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


Start = Callable[..., Gunicorn]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Gunicorn] = []

    def start(**environment: str) -> Gunicorn:
        started.append(Gunicorn(tmp_path, **environment))
        return started[-1]

    yield start
    for gunicorn in started:
        for pid in family(gunicorn.process.pid) if gunicorn.process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        gunicorn.process.wait(PATIENCE)


@pytest.fixture
def gunicorn(start: Start, redis_url: str, broker: Broker) -> Gunicorn:
    """One that answers, on this test's queue, with two processes."""
    gunicorn = start(REDIS_URL=redis_url, DTQ_KEY_PREFIX=broker.settings.key_prefix)
    wait_until(lambda: gunicorn.health() == 200 and len(gunicorn.children()) == 2, what="it answers")
    return gunicorn


@pytest.fixture
def key(broker: Broker) -> str:
    return ApiKeys(broker).create("test", Scope.SUBMIT)[1]


def test_it_takes_tasks_from_those_with_a_key(gunicorn: Gunicorn, key: str, broker: Broker) -> None:
    task = {"type": "noop", "data": 1}
    assert gunicorn.call("POST", "/tasks", json=task).status_code == 401
    answer = gunicorn.call("POST", "/tasks", key, json=task)
    assert answer.status_code == 201, answer.text
    assert broker.get(answer.json()["task_id"])
    assert "nobody is answered: make one with" in gunicorn.log.read_text()


def test_it_serves_everybody_if_told_so(start: Start, redis_url: str, broker: Broker) -> None:
    gunicorn = start(REDIS_URL=redis_url, DTQ_KEY_PREFIX=broker.settings.key_prefix, DTQ_AUTH="off")
    wait_until(lambda: gunicorn.health() == 200, what="it answers")
    assert gunicorn.call("GET", "/tasks").json() == {"tasks": [], "count": 0}


def test_a_body_that_is_too_long_gets_an_answer(gunicorn: Gunicorn, key: str) -> None:
    answer = gunicorn.call("POST", "/tasks", key, json={"type": "noop", "data": "x" * (2 << 20)})
    assert (answer.status_code, answer.json()) == (413, {"error": "The body has more than 1 MiB."})


def test_it_maintains_the_queue_without_workers(gunicorn: Gunicorn, broker: Broker) -> None:
    broker.submit([new_task(delay=0.5)])
    assert broker.counts()["delayed"] == 1
    wait_until(lambda: broker.counts()["pending"] == 1, what="the delay passes")


def begin_request(gunicorn: Gunicorn, key: str, body: bytes) -> socket.socket:
    """Sends a request's head. Returns when it is in the gateway's hands, which wait for the body."""
    connection = socket.create_connection(("127.0.0.1", gunicorn.port), timeout=PATIENCE)
    head = (
        "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    connection.sendall(head.encode())
    assert b"100 Continue" in connection.recv(1000)
    return connection


def test_sigterm_lets_it_finish_what_it_has_in_hand(gunicorn: Gunicorn, key: str, broker: Broker) -> None:
    body = json.dumps({"type": "noop", "data": 1}).encode()
    children = gunicorn.children()
    with begin_request(gunicorn, key, body) as connection:
        gunicorn.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in gunicorn.log.read_text(), what="it heard the signal")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201")
    assert gunicorn.process.wait(PATIENCE) == 0
    assert [pid for pid in children if alive(pid)] == []
    assert broker.counts()["pending"] == 1


def test_sighup_gives_it_new_processes(gunicorn: Gunicorn, key: str) -> None:
    body = json.dumps({"type": "noop", "data": 1}).encode()
    old = gunicorn.children()
    with begin_request(gunicorn, key, body) as connection:
        gunicorn.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(gunicorn.children() - old) == 2, what="new processes")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201")
    wait_until(lambda: not gunicorn.children() & old, what="the old ones have gone")
    assert gunicorn.health() == 200
    assert gunicorn.stop() == 0


def test_its_log_is_json_if_asked_for(gunicorn: Gunicorn) -> None:
    assert gunicorn.stop() == 0
    lines = [json.loads(line) for line in gunicorn.log.read_text().splitlines()]
    assert {"gunicorn.error", "dtq.gateway"} <= {line["logger"] for line in lines}


def test_it_starts_before_redis_and_outlives_it(start: Start, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", free_port())
    gunicorn = start(REDIS_URL=server.url)
    wait_until(lambda: gunicorn.health() == 503, what="it says that Redis is away")
    with server:
        wait_until(lambda: gunicorn.health() == 200, what="Redis is there")
    wait_until(lambda: gunicorn.health() == 503, what="Redis is away again")
    assert gunicorn.stop() == 0


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "Error: REDIS_URL is not set: under gunicorn the gateway needs a Redis server that runs.\n"),
        (
            {"REDIS_URL": "redis://localhost", "DTQ_LEASE": "x"},
            "Error: DTQ_LEASE='x' cannot be used: Input should be a valid number, unable to parse string as "
            "a number.\n",
        ),
    ],
    ids=["no Redis", "a wrong setting"],
)
def test_what_it_cannot_use_is_one_sentence(start: Start, environment: dict[str, str], sentence: str) -> None:
    gunicorn = start(**environment)
    assert gunicorn.process.wait(PATIENCE) == 1
    assert gunicorn.log.read_text() == sentence


def test_health_check_of_a_gateway(gunicorn: Gunicorn) -> None:
    command = [sys.executable, DEPLOY / "healthy.py", "gateway"]
    environment = os.environ | {"PORT": str(gunicorn.port)}
    assert subprocess.run(command, env=environment).returncode == 0
    assert gunicorn.stop() == 0
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("unhealthy: ")
    assert ended.stderr.count("\n") == 1
