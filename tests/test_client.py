"""The client against a real gateway on a real Redis server."""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask, request
from werkzeug.serving import make_server

import dtq
from dtq import Client, announcement
from dtq.config import Settings
from dtq.errors import ApiError, ConfigError, DtqError, NoGatewayError, WaitTimeout
from dtq.gateway import create_app
from dtq.gateway.server import connect
from dtq.queue.broker import Broker
from dtq.queue.task import Status
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer, free_port
from tests import steps
from tests.commands import run as run_dtq
from tests.commands import said
from tests.helpers import PATIENCE, new_task, wait_until


@contextmanager
def running(server: Any) -> Iterator[str]:
    """Serves in a thread; yields the address."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def gateway_of(app: Flask) -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with running(make_server("127.0.0.1", 0, app, threaded=True)) as url:
        yield url


@pytest.fixture
def app(broker: Broker) -> Flask:
    return create_app(broker)


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    with gateway_of(app) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DTQ_") or name == "PORT"]:
        monkeypatch.delenv(name)
    return tmp_path


# ---------------------------------------------------------------- one task


def test_a_task_comes_back_as_it_was_submitted(client: Client) -> None:
    payload = {"text": 'ü "quoted" ,"data":', "numbers": [2.5, 12345678901234567890], "none": None, "no": []}

    task = client.get(client.submit("process", payload))

    assert (task.type, task.data, task.result) == ("process", payload, None)
    assert (task.status, task.priority) == (Status.PENDING, "normal")
    assert task.created_at
    assert abs((datetime.now(UTC) - task.created_at).total_seconds()) < 60


def test_a_completed_task_has_its_result_as_python_data_and_times_in_utc(
    client: Client, broker: Broker
) -> None:
    task_id = client.submit("noop")
    steps.run(broker, task_id, worker="worker-7", result=b'{"answer": [42]}')

    task = client.get(task_id)

    assert (task.status, task.result, task.worker_id) == (Status.COMPLETED, {"answer": [42]}, "worker-7")
    assert task.created_at and task.started_at and task.completed_at  # noqa: PT018  for the type checker
    assert task.created_at.utcoffset() == UTC.utcoffset(None)
    assert task.created_at <= task.started_at <= task.completed_at


def test_every_option_arrives(client: Client) -> None:
    parent = client.submit("noop")

    task = client.get(client.submit("noop", priority="high", depends_on=[parent], max_retries=7, timeout=2.5))
    later = client.get(client.submit("noop", delay=60))

    assert (task.priority, task.depends_on, task.max_retries, task.timeout) == ("high", [parent], 7, 2.5)
    assert task.status == Status.WAITING
    assert later.status == Status.SCHEDULED


def test_the_same_key_twice_makes_one_task(client: Client) -> None:
    first = client.submit("noop", 1, idempotency_key="order-1")
    second = client.submit("noop", 1, idempotency_key="order-1")
    third = client.submit("noop", 1)

    assert first == second != third
    assert {task.id for task in client.list()} == {first, third}
    with pytest.raises(ApiError, match="other content") as caught:
        client.submit("noop", 2, idempotency_key="order-1")
    assert caught.value.status == 422


@pytest.mark.parametrize("data", [float("nan"), {1, 2}, object(), "\ud800"])
def test_what_is_not_json_is_refused_before_it_is_sent(client: Client, data: Any) -> None:
    with pytest.raises(DtqError, match=r"^The task cannot be written as JSON: "):
        client.submit("noop", data)
    assert client.list() == []


def test_a_refusal_says_what_the_gateway_says(client: Client) -> None:
    with pytest.raises(ApiError, match="priority") as caught:
        client.submit("noop", priority="urgent")  # type: ignore[arg-type]
    assert caught.value.status == 422
    with pytest.raises(ApiError, match="prio"):
        client.submit_many("noop", [1], prio="high")


@pytest.mark.parametrize("task_id", ["nothing", "b?c=d#e", "%2e", " ", "ü"])
def test_an_unknown_id_is_a_404_whatever_its_characters(client: Client, task_id: str) -> None:
    for call in (client.get, client.cancel, client.retry, client.discard):
        with pytest.raises(ApiError, match="There is no") as caught:
            call(task_id)
        assert caught.value.status == 404


def test_a_task_that_was_not_started_can_be_cancelled_and_no_other(client: Client, broker: Broker) -> None:
    first, second = client.submit("noop"), client.submit("noop")
    client.cancel(second)
    assert client.get(second).status == Status.CANCELLED

    steps.claim_one(broker)
    with pytest.raises(ApiError, match="processing") as caught:
        client.cancel(first)
    assert caught.value.status == 409


def test_a_warning_of_the_gateway_is_logged_once(
    client: Client, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", types=["noop"]))
    client.submit("noop")
    assert caplog.messages == []
    for _ in range(3):
        client.submit("resize")
    client.submit_many("resize", range(3))
    told = "No live worker knows resize, so these tasks wait for one that does; known are noop."
    assert [(record.name, record.message) for record in caplog.records] == [("dtq.client", told)]
    assert broker.counts()["pending"] == 7


def test_on_the_command_line_a_warning_is_said_beside_the_id(
    url: str, broker: Broker, tmp_path: Path
) -> None:
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", types=["noop"]))
    done = run_dtq(tmp_path, "submit", "\x1b[2Jresize", PORT=url.rpartition(":")[2])
    assert done.returncode == 0
    assert [done.stdout.strip()] == [task.id for task in broker.tasks()]
    assert "WARNING No live worker knows \\x1b[2Jresize, so these tasks wait" in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_tells_what_is_parked_or_unreadable(url: str, broker: Broker, tmp_path: Path) -> None:
    port = url.rpartition(":")[2]
    assert "doctor" not in said(tmp_path, "status", PORT=port)
    broker.submit([new_task("resize"), new_task("noop", id="bad")])
    broker.redis.set(broker.keys.task + "bad", "somebody wrote this by hand")
    assert broker.report_and_claim("worker-1", [], 1, ["noop"])[1] == []
    assert "\nparked 1, unreadable 1: `dtq doctor` says more\n" in said(tmp_path, "status", PORT=port)


# ---------------------------------------------------------------- many tasks


def test_thousands_of_tasks_keep_their_order(client: Client) -> None:
    ids = client.submit_many("noop", range(2500), priority="high")

    assert len(set(ids)) == 2500
    assert [task.data for task in client.list(limit=1000)] == list(range(2499, 1499, -1))
    assert [client.get(ids[n]).data for n in (0, 1000, 2499)] == [0, 1000, 2499]


def test_a_key_for_many_covers_each_batch(client: Client) -> None:
    ids = client.submit_many("noop", range(1500), idempotency_key="import-7")

    assert client.submit_many("noop", range(1500), idempotency_key="import-7") == ids
    assert client.health()["pending_tasks"] == 1500


def test_large_payloads_are_spread_over_as_many_requests_as_they_need(client: Client) -> None:
    sizes = [0, 900_000, 150_000, 1_000_000, *[100_000] * 20]

    ids = client.submit_many("noop", ("x" * size for size in sizes))

    assert [len(client.get(task_id).data) for task_id in ids] == sizes


def test_nothing_to_submit_is_no_request(client: Client) -> None:
    assert client.submit_many("noop", []) == []


def test_threads_may_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda n: client.submit("noop", n), range(200)))

    assert [client.get(task_id).data for task_id in ids] == list(range(200))


def test_a_listing_can_be_narrowed(client: Client, broker: Broker) -> None:
    done = client.submit("noop")
    steps.run(broker, done)
    waiting = client.submit_many("process", range(3))

    assert [task.id for task in client.list()] == [*reversed(waiting), done]
    assert [task.id for task in client.list(status="completed")] == [done]
    assert [task.id for task in client.list(type="process", limit=2)] == [waiting[2], waiting[1]]


# ---------------------------------------------------------------- waiting


def test_waiting_for_one_id_returns_its_task_and_for_several_a_list_in_their_order(
    client: Client, broker: Broker
) -> None:
    ids = client.submit_many("noop", range(250))
    for task in steps.claim(broker, n=250):
        steps.complete(broker, task)

    assert client.wait(ids[0]).id == ids[0]
    mixed = [ids[200], ids[3], ids[200], ids[0]]
    assert [task.id for task in client.wait(mixed)] == mixed
    assert [task.data for task in client.wait(iter(ids))] == list(range(250))
    assert client.wait([]) == []


def test_waiting_ends_however_a_task_ends(client: Client, broker: Broker) -> None:
    failed, cancelled = steps.bury(broker), client.submit("noop")
    client.cancel(cancelled)

    tasks = client.wait([failed, cancelled])

    assert [task.status for task in tasks] == [Status.FAILED, Status.CANCELLED]
    assert tasks[0].error == "boom"


def test_waiting_lasts_until_the_last_task_has_ended(client: Client, broker: Broker) -> None:
    ids = client.submit_many("noop", range(3))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, ids, timeout=PATIENCE, progress=False)
        for task_id in ids:
            assert not waiting.done()
            steps.run(broker, task_id)

        assert [task.status for task in waiting.result()] == [Status.COMPLETED] * 3


def test_only_what_is_not_done_is_asked_about_again(app: Flask, broker: Broker) -> None:
    asked: list[set[str]] = []
    app.before_request(lambda: asked.append(set(filter(None, request.args.get("ids", "").split(",")))))
    with gateway_of(app) as url, Client(url) as client, ThreadPoolExecutor(1) as pool:
        ids = client.submit_many("noop", range(150))
        for task_id in ids[:-1]:
            steps.run(broker, task_id)
        waiting = pool.submit(client.wait, ids, progress=False)
        wait_until(lambda: asked.count({ids[-1]}) >= 2, what="the last one is asked about alone")
        steps.run(broker, ids[-1])
        waiting.result()

    questions = [question for question in asked if question]
    assert questions[:2] == [set(ids[:100]), set(ids[100:])]
    assert all(question == {ids[-1]} for question in questions[2:])


def test_an_unknown_id_among_many_ends_the_waiting_at_once(client: Client) -> None:
    ids = client.submit_many("noop", range(120))

    with pytest.raises(ApiError, match="There is no task missing") as caught:
        client.wait([*ids, "missing"])
    assert caught.value.status == 404


def test_waiting_in_vain_says_how_many_are_not_done(client: Client, broker: Broker) -> None:
    ids = client.submit_many("noop", range(3))
    steps.run(broker, ids[0])

    with pytest.raises(WaitTimeout, match=f"^2 of the tasks are not done after 0.05 s, {ids[1]} for one"):
        client.wait(ids, timeout=0.05)
    with pytest.raises(WaitTimeout, match="1 of the tasks"):
        client.wait(ids[1], timeout=0)
    assert client.wait(ids[0], timeout=0).status == Status.COMPLETED


def test_the_progress_bar_is_ascii_and_leaves_nothing_behind(
    client: Client, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    task_id = client.submit("noop")
    steps.run(broker, task_id)

    client.wait(task_id, progress=False)
    assert capsys.readouterr() == ("", "")

    client.wait([task_id])
    shown = capsys.readouterr()
    assert shown.out.isascii()
    assert "1/1" in shown.out or "0/1" in shown.out
    assert shown.out.split("\r")[-1] == ""
    assert shown.out.split("\r")[-2].strip() == "", "the line is empty again"
    assert shown.err == ""


# ---------------------------------------------------------------- workers, dead letter, health


def test_workers_are_shown_as_they_described_themselves(client: Client, broker: Broker) -> None:
    said = WorkerInfo(id="worker-1", status="busy", current_task="x", tasks_processed=3, host="here", pid=7)
    broker.heartbeat(said)

    [worker] = client.workers()

    assert msgspec.structs.replace(worker, started_at=None, last_heartbeat=None) == said
    assert worker.last_heartbeat
    assert abs((datetime.now(UTC) - worker.last_heartbeat).total_seconds()) < 60


def test_dead_tasks_are_retried_or_discarded_one_by_one_or_all(client: Client, broker: Broker) -> None:
    first, second, third, fourth = (steps.bury(broker) for _ in range(4))
    assert {task.id for task in client.dead_letter()} == {first, second, third, fourth}

    assert client.retry(second) == [second]
    assert client.discard(fourth) == [fourth]
    assert client.get(second).status == Status.PENDING
    assert client.get(fourth).status == Status.CANCELLED
    assert set(client.retry()) == {first, third}
    assert client.discard() == []
    steps.fail(broker, steps.claim_one(broker), retries=0)
    assert len(client.discard()) == 1
    assert client.dead_letter() == []


def test_health_tells_of_trouble_and_raises_nothing(broker: Broker, tmp_path: Path) -> None:
    settings = Settings(_env_file=None)
    with RedisServer(tmp_path) as server:
        lonely = connect(server.url, settings)
    app, asked = create_app(lonely), list[str]()
    app.before_request(lambda: asked.append(request.path))
    with gateway_of(app) as url, Client(url) as client:
        health = client.health()
    lonely.close()

    assert len(asked) == 1, "503 is an answer here"
    assert health["status"] == "unhealthy"
    assert "Redis" in health["reasons"][0]


# ---------------------------------------------------------------- when something is in the way


def test_a_submission_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    settings, server = Settings(_env_file=None), RedisServer(tmp_path, appendfsync="always").start()
    broker = connect(server.url, settings)
    unavailable: list[int] = []
    app = create_app(broker)
    app.after_request(lambda response: unavailable.append(response.status_code) or response)
    with gateway_of(app) as url, Client(url) as client, ThreadPoolExecutor(1) as pool:
        server.stop()
        submission = pool.submit(client.submit, "noop", "patience")
        wait_until(lambda: 503 in unavailable, what="the gateway says that Redis is away")
        server.start()
        assert client.get(submission.result()).data == "patience"
        assert client.health()["pending_tasks"] == 1
    broker.close()
    server.stop()


class Forgetful:
    """Passes requests on to a gateway, but drops the first answer on its way back."""

    def __init__(self, url: str) -> None:
        self.server_port = 0
        self._target = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server_port = self._listener.getsockname()[1]
        self.answers: list[bytes] = []

    def serve_forever(self, _: float) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, socket.create_connection(self._target) as target:
                self.answers.append(self._pass_on(connection, target))
                if len(self.answers) > 1:
                    connection.sendall(self.answers[-1])

    def _pass_on(self, connection: socket.socket, target: socket.socket) -> bytes:
        head, _, rest = _read_until(connection, b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(rest) < int(fields.get(b"content-length", 0)):
            rest += connection.recv(65536)
        target.sendall(head.replace(b"keep-alive", b"close") + b"\r\n\r\n" + rest)
        return b"".join(iter(lambda: target.recv(65536), b""))

    def shutdown(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)

    def server_close(self) -> None:
        self._listener.close()


def _read_until(connection: socket.socket, mark: bytes) -> tuple[bytes, bytes, bytes]:
    text = b""
    while mark not in text:
        text += connection.recv(65536)
    return text.partition(mark)


def test_a_submission_whose_answer_was_lost_makes_one_task(url: str, client: Client) -> None:
    proxy = Forgetful(url)
    with running(proxy) as address, Client(address) as unlucky:
        task_id = unlucky.submit("noop", "once")

    assert len(proxy.answers) == 2
    assert b" 201 " in proxy.answers[0]
    assert b" 200 " in proxy.answers[1]
    assert [task.id for task in client.list()] == [task_id]


def test_without_a_gateway_a_sentence_says_how_to_start_one() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(NoGatewayError) as caught:
        client.health()
    assert str(caught.value) == f"No gateway answers at {url}: start one with `dtq up`."


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b""), (200, b"<html>"), (403, b""), (404, b"<html>"), (404, b"[]"), (404, b"{}")],
)
def test_another_server_on_the_port_is_told_from_a_gateway(status: int, body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with running(HTTPServer(("127.0.0.1", 0), Other)) as url, Client(url) as client:
        for call in (client.list, client.workers, client.health, lambda: client.get("x")):
            with pytest.raises(ApiError, match=f"What answers at {url} is no dtq gateway"):
                call()


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://localhost", "5000"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=f"'{url}' is no gateway's address"):
        Client(url)


def test_a_proxy_in_the_environment_is_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    with Client(url + "/") as client:
        assert client.health()["pending_tasks"] == 0


# ---------------------------------------------------------------- where the gateway is


def test_the_address_is_that_of_the_gateway_which_runs_in_this_folder(elsewhere: Path) -> None:
    home = elsewhere / ".dtq"
    assert Client().url == "http://127.0.0.1:5000"

    announcement.announce(home, "http://127.0.0.1:5999")
    assert Client().url == "http://127.0.0.1:5999"

    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    dead = announcement.Announcement("http://127.0.0.1:5999", ended.pid)
    announcement.path(home).write_bytes(msgspec.json.encode(dead))
    assert Client().url == "http://127.0.0.1:5000"


def test_without_one_it_is_the_port_of_the_settings(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "5123")
    assert Client().url == "http://127.0.0.1:5123"
    monkeypatch.setenv("DTQ_HOME", str(elsewhere / "home"))
    assert Client().url == "http://127.0.0.1:5123"


def test_a_worker_does_not_load_the_client() -> None:
    program = "import sys, dtq, dtq.worker.worker; print('requests' in sys.modules, dtq.Client.__module__)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "False dtq.client\n"
    with pytest.raises(AttributeError, match="has no attribute 'Server'"):
        dtq.Server  # noqa: B018
