"""A server that is there and refuses: every call says so with 503, and all is well again when it is over."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest
import redis
import requests
from flask.testing import FlaskClient

from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests.commands import Program
from tests.gateway.calls import CALLS
from tests.helpers import PATIENCE, wait_until

FOR_EVER = "while true do end"
FIGURES: list[tuple[str, str, dict[str, Any]]] = [("GET", "/stats", {}), ("GET", "/metrics", {})]
Start = Callable[..., Program]


@pytest.fixture
def admin(own_redis: RedisServer) -> Iterator[Any]:
    with closing(redis.Redis.from_url(own_redis.url)) as client:
        yield client


@contextmanager
def busy(admin: Any) -> Iterator[None]:
    """Somebody else's script runs, and the server answers nobody until it is killed."""
    admin.config_set("busy-reply-threshold", 1)
    host, port = (admin.connection_pool.connection_kwargs[name] for name in ("host", "port"))
    with socket.create_connection((host, port)) as somebody:
        somebody.sendall(f'EVAL "{FOR_EVER}" 0\r\n'.encode())
        wait_until(lambda: refuses(admin, "BUSY"), what="the server is busy")
        try:
            yield
        finally:
            admin.script_kill()
        assert b"killed" in somebody.recv(1000)


def refuses(admin: Any, word: str) -> bool:
    try:
        return not admin.ping()
    except redis.ResponseError as error:
        return word in str(error)


def assert_refused(http: FlaskClient, sentence: str) -> None:
    """Every call answers with 503 and this sentence, and /health in its own form."""
    for method, path, options in [*CALLS, *FIGURES]:
        answer = http.open(path, method=method, **options)
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1"), f"{path} {answer.text}"
        assert answer.get_json()["error"] == sentence, path
    health = http.get("/health").get_json()
    assert (health["status"], health["reasons"]) == ("unhealthy", [sentence])


def test_a_busy_server_is_told_from_a_mistake(own_http: FlaskClient, admin: Any) -> None:
    assert own_http.get("/stats").status_code == 200
    with busy(admin):
        assert_refused(own_http, "Redis does not answer just now; try again.")
    assert own_http.post("/tasks", json={"type": "noop", "data": 1}).status_code == 201
    assert own_http.get("/health").get_json()["status"] == "degraded"


def test_a_server_that_forbids_a_command_is_told_from_a_mistake(
    own_http: FlaskClient, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """This does not pass by itself, so the log says what it is."""
    admin.execute_command("ACL", "SETUSER", "default", "-@all", "+acl", "+auth", "+hello", "+ping", "+client")
    with caplog.at_level(logging.ERROR):
        assert_refused(own_http, "Redis refuses this; the gateway's log tells why.")
    assert "Redis refuses GET '/stats'" in caplog.messages
    assert all(record.exc_info and record.exc_info[0] is not None for record in caplog.records)
    admin.execute_command("ACL", "SETUSER", "default", "+@all")
    assert own_http.get("/stats").status_code == 200


def test_keys_of_another_type_are_told_from_a_mistake(http: FlaskClient, broker: Broker) -> None:
    broker.redis.set(broker.keys.workers, "somebody wrote this", ex=600)
    for path in ("/workers", "/health", "/stats", "/metrics"):
        assert (http.get(path).status_code, http.get(path).headers["Retry-After"]) == (503, "1"), path
    assert http.get("/tasks").status_code == 200


def test_a_gateway_that_starts_beside_a_busy_server_waits_for_it(
    start_gateway: Start, own_redis: RedisServer, admin: Any
) -> None:
    with busy(admin):
        gateway = start_gateway("--port", "0", REDIS_URL=own_redis.url, DTQ_AUTH="required")
        answer = requests.get(f"{gateway.url()}/health", timeout=PATIENCE)
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
    wait_until(lambda: requests.get(f"{gateway.url()}/health", timeout=PATIENCE).status_code == 200)


def test_maintenance_outlives_a_busy_server(start_gateway: Start, own_redis: RedisServer, admin: Any) -> None:
    """A gateway alone, without workers: only its own maintenance lets a delay end."""
    gateway = start_gateway("--port", "0", REDIS_URL=own_redis.url)
    url = gateway.url()

    def outages(wanted: int) -> bool:
        return gateway.log.read_text().count("Redis is away") == wanted

    def is_free(task_id: str) -> bool:
        answer = requests.get(f"{url}/tasks/{task_id}", timeout=PATIENCE)
        return bool(answer.json()["status"] == "pending")

    for n in (1, 2, 3):
        with busy(admin):
            wait_until(partial(outages, n), what="maintenance meets the busy server")
        task = {"type": "noop", "data": n, "delay": 0.1}
        task_id = requests.post(f"{url}/tasks", json=task, timeout=PATIENCE).json()["task_id"]
        wait_until(partial(is_free, task_id), what="maintenance goes on")
    assert "Traceback" not in gateway.log.read_text()
    gateway.end()
