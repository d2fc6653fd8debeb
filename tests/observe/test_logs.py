"""Log lines of real processes: what each is about, and what is never in one."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from dtq.config import Settings
from dtq.gateway.access import ApiKeys, Scope
from dtq.observe import logs
from dtq.processes.children import Children
from dtq.processes.program import dtq
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests.commands import listening
from tests.helpers import ended, exit_code, new_task, wait_until

PASSWORD, PAYLOAD = "pass-of-redis-4711", "payload-of-ann-4711"
OWN_KEY = "dtq_0a1b2c3d_own-key-secret-own-key-secret-12"
WRONG_KEY = "dtq_4e5f6a7b_wrong-key-secret-wrong-key-12345"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TYPES = """
import logging, os, threading, time, warnings
from dtq.tasks import PermanentError, task

log = logging.getLogger("shop")

@task("tell")
def tell(data, context):
    log.info("first\\nsecond %s", os.environ["REDIS_URL"], extra={"order": 12, "seen": {"n": 1, "at": os}})
    log.debug("the key is %s, Bearer %s", os.environ["DTQ_API_KEY"], "abc")
    warnings.warn("careful")
    thread = threading.Thread(target=log.info, args=("aside",))
    thread.start()
    thread.join()
    try:
        raise ValueError(data)
    except ValueError:
        log.exception("wrong")

@task("quote", max_retries=0)
def quote(data, context):
    try:
        raise KeyError(data)
    except KeyError as error:
        raise ValueError(f"cannot use {data}") from error

@task("quote for good")
def quote_for_good(data, context):
    raise PermanentError(f"never {data}")

@task("deaf", timeout=0.2)
def deaf(data, context):
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
"""
HUMAN = """
import logging
from dtq.observe import logs
from dtq.config import Settings
from dtq.observe import logs

logs.setup(Settings(_env_file=None, redis_url="redis://:pass%20of%20redis@localhost/0", log_level="DEBUG"))
log = logging.getLogger("worker-1")
log.info("ready, knows %s", "noop, sleep")
log.warning("task %s failed (%s)", "1", "ValueError: a\\nb\\r\\x1b[31m\\x85\\u2028\\tc")
log.info("redis://ann:pw@host:6379/0, rediss://:p%40w@host, unix:///r.sock?password=pw&db=1, pass of redis")
log.info("dtq_0a1b2c3d_0123456789abcdefghij, dtq_tasks_completed_total, Bearer xyz")
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("wrong")
"""


class Started:
    """Programs of dtq that write JSON lines, at a server with a password."""

    def __init__(self, folder: Path, processes: Children, url: str) -> None:
        self.folder, self.processes = folder, processes
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("DTQ_", "REDIS_"))}
        self.environment = kept | {"REDIS_URL": url, "DTQ_API_KEY": OWN_KEY, "DTQ_HOME": str(folder)}
        self.environment |= {"DTQ_LOG_FORMAT": "json", "DTQ_LOG_LEVEL": "DEBUG", "DTQ_BACKOFF_BASE": "0.01"}

    def start(self, name: str, *arguments: str, patch: str = "pass") -> None:
        code = f"{patch}\nfrom dtq.cli.commands import main\nmain()"
        command = ["env", "-i", *(f"{key}={text}" for key, text in self.environment.items())]
        command += [sys.executable, "-c", code, *arguments]
        self.processes.start(name, command, output=self.folder / f"{name}.log")

    def start_worker(self, name: str, patch: str = "pass") -> None:
        self.start(name, "worker", "--name", name, "--tasks", str(self.folder / "types.py"), patch=patch)

    def text(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def lines(self, name: str) -> list[dict[str, Any]]:
        """All that it has written, each line an object."""
        return [json.loads(line) for line in self.text(name).splitlines()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        with closing(redis.Redis.from_url(server.url)) as client:
            client.config_set("requirepass", PASSWORD)
        yield server


@pytest.fixture
def url(server: RedisServer) -> str:
    return server.url.replace("redis://", f"redis://default:{PASSWORD}@")


@pytest.fixture
def started(tmp_path: Path, url: str) -> Iterator[Started]:
    (tmp_path / "types.py").write_text(TYPES)
    processes = Children()
    yield Started(tmp_path, processes, url)
    processes.close(grace=5)


@pytest.fixture
def queue(url: str) -> Iterator[Broker]:
    with closing(Broker(url, Settings(_env_file=None))) as broker:
        yield broker


def check(text: str) -> None:
    """Each line is an object with what all lines have, and no line has a secret."""
    for line in text.splitlines():
        told = json.loads(line)
        assert {"time", "level", "logger", "message"} <= told.keys(), line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"]), line
        assert abs((datetime.now(UTC) - datetime.fromisoformat(told["time"])).total_seconds()) < 3600
        assert told["level"] in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
        assert None not in told.values()
    assert [secret for secret in (PASSWORD, PAYLOAD, OWN_KEY[13:], WRONG_KEY[13:]) if secret in text] == []


# ---------------------------------------------------------------- JSON lines of workers


def test_each_line_of_a_worker_says_whose_it_is_and_what_it_is_about(started: Started, queue: Broker) -> None:
    traceparent = f"00-{TRACE}-b7ad6b7169203331-01"
    traced = [new_task(kind, PAYLOAD, traceparent=traceparent) for kind in ("tell", "quote", "process")]
    plain = [new_task("quote for good", PAYLOAD), new_task("calculate", PAYLOAD)]
    queue.submit([*traced, *plain])
    started.start_worker("worker-1")
    for task in (*traced, *plain):
        ended(queue, task.id)
    started.processes.signal("worker-1", signal.SIGTERM)
    assert exit_code(started.processes, "worker-1") == 0

    check(started.text("worker-1"))
    lines = started.lines("worker-1")
    assert {line["worker_id"] for line in lines} == {"worker-1"}
    ids = [task.id for task in (*traced, *plain)]
    for line in lines:
        named = next((task_id for task_id in ids if task_id in line["message"]), None)
        assert line.get("task_id") == (named or line.get("task_id"))
        assert ("task_id" in line) == ("attempt" in line)
        assert line.get("trace_id") == (TRACE if line.get("task_id") in ids[:3] else None)
    for task_id in ids:
        about = [line for line in lines if line.get("task_id") == task_id]
        assert len(about) >= 2, "claimed, and what became of it"
        assert {line["attempt"] for line in about} == {1}


def test_what_a_handler_and_others_write_during_a_task_is_about_it(started: Started, queue: Broker) -> None:
    task = new_task("tell", PAYLOAD)
    queue.submit([task])
    started.start_worker("worker-1")
    ended(queue, task.id)

    check(started.text("worker-1"))
    lines = started.lines("worker-1")
    first, key, warning, wrong = (
        next(line for line in lines if line["logger"] == logger and text in line["message"])
        for logger, text in (
            ("shop", "first"),
            ("shop", "key is"),
            ("py.warnings", "careful"),
            ("shop", "wrong"),
        )
    )
    assert all((line["task_id"], line["attempt"]) == (task.id, 1) for line in (first, key, warning, wrong))
    (aside,) = (line for line in lines if line["message"] == "aside")
    assert (aside["worker_id"], aside.get("task_id")) == ("worker-1", None), (
        "a thread of its own is about none"
    )
    assert first["message"].startswith("first\nsecond redis://default:***@127.0.0.1:")
    assert (first["order"], first["seen"]["n"]) == (12, 1)
    assert first["seen"]["at"].startswith("<module 'os'")
    assert key["message"] == "the key is ***, Bearer ***"
    assert (wrong["error"], wrong["traceback"].splitlines()[-1]) == ("ValueError", "ValueError")
    assert "in tell" in wrong["traceback"]


def test_a_handler_s_own_words_stay_in_the_task(started: Started, queue: Broker) -> None:
    task, hopeless = new_task("quote", PAYLOAD), new_task("quote for good", PAYLOAD)
    queue.submit([task, hopeless])
    started.start_worker("worker-1")
    assert ended(queue, task.id).error == f"ValueError: cannot use {PAYLOAD}"
    assert ended(queue, hopeless.id).error == f"never {PAYLOAD}"
    sentence = f"task {hopeless.id} failed (PermanentError), to the dead letter"
    wait_until(lambda: sentence in started.text("worker-1"), what="it says so")

    check(started.text("worker-1"))
    lines = started.lines("worker-1")
    assert f"task {task.id} failed (ValueError), to the dead letter" in [line["message"] for line in lines]
    (detail,) = (line for line in lines if line["level"] == "DEBUG" and line["message"] == f"task {task.id}")
    assert [name for name in detail["traceback"].splitlines() if " " not in name] == [
        "KeyError",
        "ValueError",
    ]


def test_a_worker_that_ends_itself_says_where_it_hangs(started: Started, queue: Broker) -> None:
    task = new_task("deaf", PAYLOAD)
    queue.submit([task])
    started.start_worker("worker-1", patch="from dtq.worker import interrupts; interrupts.LAST_WORDS = 0.2")

    assert exit_code(started.processes, "worker-1") == 70
    check(started.text("worker-1"))
    last = started.lines("worker-1")[-1]
    assert (last["level"], last["task_id"], last["attempt"]) == ("ERROR", task.id, 1)
    assert re.search(r'types\.py", line \d+, in deaf', last["stack"])


def test_an_error_that_ends_a_process_is_a_line_too(started: Started) -> None:
    (started.folder / "types.py").write_text(f"raise RuntimeError('{PAYLOAD[::-1]}'[::-1])")
    started.start_worker("worker-1")

    assert exit_code(started.processes, "worker-1") == 1
    check(started.text("worker-1"))
    (last,) = started.lines("worker-1")[-1:]
    assert (last["level"], last["worker_id"], last["error"]) == ("CRITICAL", "worker-1", "RuntimeError")
    assert "types.py" in last["traceback"]


def test_an_outage_is_told_without_the_password(started: Started, server: RedisServer, queue: Broker) -> None:
    started.start_worker("worker-1")
    wait_until(queue.workers, what="the worker is there")
    with closing(redis.Redis.from_url(server.url, password=PASSWORD)) as client:
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: "Redis is away" in started.text("worker-1"), what="it misses Redis")

    check(started.text("worker-1"))
    assert {line["worker_id"] for line in started.lines("worker-1")} == {"worker-1"}


# ---------------------------------------------------------------- JSON lines of a gateway


@pytest.fixture
def gateway(started: Started) -> str:
    """Its address, once it listens."""
    started.start("gateway", "gateway", "--port", "0")
    return listening(started.folder)


def use(gateway: str, queue: Broker, own_key: str) -> str:
    """Requests that change something or fail, and one that does neither. Returns the id of the first task."""
    traced = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    task = {"type": "noop", "data": PAYLOAD}
    with requests.Session() as session:
        session.trust_env = False

        def ask(method: str, path: str, key: str | None = None, **body: Any) -> requests.Response:
            headers = traced | ({"Authorization": f"Bearer {key}"} if key else {})
            return session.request(method, gateway + path, headers=headers, **body)

        task_id = ask("POST", f"/tasks?password={PASSWORD}", json=task).json()["task_id"]
        ask("POST", "/tasks/batch", own_key, json={"tasks": [task, task]})
        ask("GET", f"/tasks/{task_id}")
        ask("POST", "/tasks", WRONG_KEY, json=task)
        ask("POST", "/tasks", json={"type": 7, "data": PAYLOAD})
        ask("GET", f"/tasks/no%0Asuch?{PAYLOAD}")
        ask("DELETE", f"/tasks/{task_id}")
        queue.redis.set("tasks:dead_letter", PAYLOAD)  # where a list belongs
        ask("GET", "/dead-letter")
    return str(task_id)


def test_a_gateway_tells_of_what_was_changed_and_what_failed(
    started: Started, gateway: str, queue: Broker
) -> None:
    _, own_key = ApiKeys(queue).create("ann", Scope.ADMIN)
    task_id = use(gateway, queue, own_key)
    wait_until(lambda: '"status": 503' in started.text("gateway"), what="it tells of the last one")

    check(started.text("gateway"))
    assert own_key[13:] not in started.text("gateway")
    requests_told = [line for line in started.lines("gateway") if "status" in line]
    assert [
        (line["level"], line["status"], line["message"].split(" in ")[0], line.get("task_id"), line["tasks"])
        for line in requests_told
    ] == [
        ("DEBUG", 201, "POST /tasks: 201", task_id, 1),
        ("DEBUG", 201, "POST /tasks/batch: 201", None, 2),
        ("INFO", 401, "POST /tasks: 401", None, 0),
        ("INFO", 422, "POST /tasks: 422", None, 0),
        ("INFO", 404, "GET /tasks/no\nsuch: 404", "no\nsuch", 0),
        ("DEBUG", 200, f"DELETE /tasks/{task_id}: 200", task_id, 1),
        ("INFO", 503, "GET /dead-letter: 503", None, 0),
    ]
    assert all(isinstance(line["ms"], float) and line["trace_id"] == TRACE for line in requests_told)
    assert [line.get("key") for line in requests_told] == [None, "ann", *[None] * 5]
    (mistake,) = (line for line in started.lines("gateway") if line["level"] == "ERROR")
    assert mistake["error"] == "ResponseError"
    assert "list_dead" in mistake["traceback"]


# ---------------------------------------------------------------- for people


def test_lines_for_people_are_one_line_each_and_keep_no_secret() -> None:
    told = subprocess.run([sys.executable, "-c", HUMAN], capture_output=True, text=True, check=True)
    assert told.stdout == ""
    lines = told.stderr.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} worker-1 ", line) for line in lines[:5])
    assert [line.split(" ", 2)[2] for line in lines[:5]] == [
        "INFO ready, knows noop, sleep",
        "WARNING task 1 failed (ValueError: a\\nb\\r\\x1b[31m\\x85\\u2028\tc)",
        "INFO redis://ann:***@host:6379/0, rediss://:***@host, unix:///r.sock?password=***&db=1, ***",
        "INFO dtq_0a1b2c3d_***, dtq_tasks_completed_total, Bearer ***",
        "ERROR wrong",
    ]
    assert lines[5] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ValueError: two", "lines"]


def test_a_setting_that_cannot_be_used_is_told_without_its_password(tmp_path: Path) -> None:
    environment = os.environ | {"REDIS_URL": f"redis://:{PASSWORD}@localhost:port/0"}
    done = subprocess.run(dtq("status"), env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "***@localhost:port/0" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout


def test_what_a_worker_claimed_is_read_from_its_log() -> None:
    lines = [logs.CLAIMED % ("t-1", "a (strange) type", 1), "task t-2 completed in 0.10 s"]
    lines.append(logs.CLAIMED % ("t-1", "noop", 12))
    assert logs.claims("\n".join(f"12:00:00.000 worker-1 INFO {line}" for line in lines)) == ["t-1", "t-1"]
