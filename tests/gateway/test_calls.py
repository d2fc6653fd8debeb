"""Asking, cancelling, workers, health and the dead letter over HTTP."""

import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import redis
from flask.testing import FlaskClient

from dtq.queue.bounds import WORK
from dtq.queue.broker import Broker
from dtq.queue.reports import Completed
from dtq.queue.task import Status
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from tests.gateway.calls import CALLS
from tests.helpers import held, new_task
from tests.steps import WORKER, bury, claim, claim_one, failed


def ids(http: FlaskClient, path: str) -> list[str]:
    answer = http.get(path).get_json()
    assert answer["count"] == len(answer["tasks"])
    return [task["id"] for task in answer["tasks"]]


# -------------------------------------------------------------------- tasks


def test_tasks_are_listed_newest_first(http: FlaskClient, broker: Broker) -> None:
    tasks = [new_task("noop" if i % 2 else "sleep", id=f"task-{i}") for i in range(60)]
    for task in tasks:
        broker.submit([task])
    newest = [task.id for task in reversed(tasks)]
    assert ids(http, "/tasks") == newest[:50]
    assert ids(http, "/tasks?limit=1000") == newest
    assert ids(http, "/tasks?limit=2&type=sleep") == ["task-58", "task-56"]
    first = claim_one(broker).id
    assert ids(http, "/tasks?status=processing") == [first] == ["task-0"]
    assert ids(http, "/tasks?status=processing&type=noop") == []
    assert ids(http, "/tasks?status=completed") == []


def test_of_many_scheduled_tasks_some_of_those_due_last_are_listed(http: FlaskClient, broker: Broker) -> None:
    tasks = [new_task(id=f"task-{n:03}", delay=1000.0 - n) for n in range(300)]
    for task in tasks:
        broker.submit([task])
    listed = http.get("/tasks?status=scheduled&limit=50").get_json()["tasks"]
    submitted = [task["created_at"] for task in listed]
    assert submitted == sorted(submitted, reverse=True), "the newest first"
    assert len(listed) == 50
    assert {task["id"] for task in listed} < {task.id for task in tasks[:100]}, "though others are newer"
    assert "due last" in http.get("/openapi.json").get_json()["paths"]["/tasks"]["get"]["summary"]


def test_tasks_are_found_by_their_ids(http: FlaskClient, broker: Broker) -> None:
    broker.submit([new_task(id=name) for name in "abc"])
    assert ids(http, "/tasks?ids=c,nobody,a") == ["c", "a"]
    assert ids(http, "/tasks?ids=nobody") == []
    many = [str(uuid.uuid4()) for _ in range(999)]
    assert ids(http, f"/tasks?ids={','.join(many)},b") == ["b"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"), ("limit=1001", "1000"), ("limit=many", "limit"), ("limit=", "limit"),
        ("status=lost", "'pending'"), ("status=", "status"), ("type=", "type"), ("type=" + "x" * 101, "type"),
        ("state=pending", "state"), ("ids=", "ids.0"), ("ids=a,,b", "ids.1"), ("ids=" + "x" * 101, "ids.0"),
        ("ids=" + ",".join("abcde" * 201), "1000"), ("ids=a&status=pending", "ids"),
        ("ids=a&type=noop", "ids"),
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(http: FlaskClient, query: str, word: str) -> None:
    answer = http.get(f"/tasks?{query}")
    assert answer.status_code == 400
    assert word in answer.get_json()["error"]


def test_a_task_is_shown_with_its_times_in_utc(http: FlaskClient, broker: Broker) -> None:
    broker.submit([new_task(data={"a": 1})])
    task_id = claim_one(broker).id
    broker.report_and_claim("worker-1", [Completed(held(task_id, 1), 0.25, 0.0, b'{"b":2}')], 0)
    shown = http.get(f"/tasks/{task_id}").get_json()
    assert (shown["id"], shown["status"], shown["attempts"]) == (task_id, "completed", 1)
    assert (shown["data"], shown["result"], shown["duration"]) == ({"a": 1}, {"b": 2}, 0.25)
    assert datetime.fromisoformat(shown["created_at"]).tzinfo == UTC
    assert shown["created_at"].endswith("Z")


@pytest.mark.parametrize(
    "task_id", ["nobody", "%00", "%22%27%3Cscript%3E", "%ff", "..%2f", "a%0Ab", "x" * 5000]
)
def test_an_unknown_task_is_not_found(http: FlaskClient, task_id: str) -> None:
    for answer in (http.get(f"/tasks/{task_id}"), http.delete(f"/tasks/{task_id}")):
        assert answer.status_code == 404
        assert list(answer.get_json()) == ["error"]


def test_an_address_without_a_call_is_not_found(http: FlaskClient) -> None:
    for path in ("/nowhere", "/tasks/", "/tasks/a/b", "/static/x", "/"):
        answer = http.get(path)
        assert (answer.status_code, list(answer.get_json())) == (404, ["error"])


def test_a_wrong_method_is_told_the_right_ones(http: FlaskClient) -> None:
    for path, allowed in (
        ("/tasks", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/health", {"GET", "HEAD", "OPTIONS"}),
    ):
        answer = http.put(path)
        assert (answer.status_code, list(answer.get_json())) == (405, ["error"])
        assert set(answer.headers["Allow"].split(", ")) == allowed


def test_a_mistake_of_the_gateway_is_logged_and_not_shown(
    http: FlaskClient, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    key = "dtq_deadbeef_" + 48 * "0"
    broker.redis.execute_command("HSET", broker.keys.access_keys, "deadbeef", "somebody wrote this by hand")
    with caplog.at_level(logging.ERROR):
        answer = http.get("/tasks/a%0Ab", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, list(answer.get_json())) == (500, ["error"])
    assert "malformed" not in answer.text
    assert caplog.messages == [r"GET '/tasks/a\nb' failed"]
    assert caplog.records[0].exc_info


# -------------------------------------------------------------------- cancel


def test_a_task_that_was_not_started_can_be_cancelled(http: FlaskClient, broker: Broker) -> None:
    broker.submit([new_task(id="a"), new_task(id="b", depends_on=["a"]), new_task(id="c", delay=60)])
    for task_id in ("a", "c", "a"):  # the second time changes nothing
        answer = http.delete(f"/tasks/{task_id}")
        assert answer.status_code == 200
        assert answer.get_json() == {"success": True, "task_id": task_id, "message": "Task cancelled"}
    assert sorted(ids(http, "/tasks?status=cancelled")) == ["a", "b", "c"]
    assert broker.counts()["pending"] == 0


def test_a_task_that_was_started_cannot_be_cancelled(http: FlaskClient, broker: Broker) -> None:
    dead = bury(broker)
    broker.submit([new_task(id="a"), new_task(id="b")])
    done, running = claim_one(broker).id, claim_one(broker).id
    broker.report_and_claim("worker-1", [Completed(held(done, 1), 0.1, 0.0, b"1")], 0)
    for task_id, status in ((dead, "failed"), (done, "completed"), (running, "processing")):
        answer = http.delete(f"/tasks/{task_id}")
        assert answer.status_code == 409
        assert status in answer.get_json()["error"]
        assert http.get(f"/tasks/{task_id}").get_json()["status"] == status


# -------------------------------------------------------------------- workers and health


def test_only_live_workers_are_listed(http: FlaskClient, make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    assert http.get("/workers").get_json() == {"workers": [], "count": 0}
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", host="here", pid=7))
    broker.heartbeat(WorkerInfo(id="worker-2", status="busy"))
    broker.redis.delete(broker.keys.worker + "worker-2")  # it was silent for too long
    answer = http.get("/workers").get_json()
    assert answer["count"] == 1
    assert answer["workers"][0]["id"] == "worker-1"
    assert datetime.fromisoformat(answer["workers"][0]["last_heartbeat"]).tzinfo == UTC
    broker.deregister("worker-1")
    assert http.get("/workers").get_json()["count"] == 0


def test_health_counts(http: FlaskClient, broker: Broker) -> None:
    dead = bury(broker)
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle"))
    broker.submit([new_task(id="a"), new_task(id="b")])
    done = claim_one(broker).id
    broker.report_and_claim("worker-1", [Completed(held(done, 1), 0.1, 0.0, b"1")], 1)
    broker.submit([new_task(priority="high"), new_task(), new_task(delay=60), new_task(depends_on=[dead])])
    answer = http.get("/health")
    assert answer.status_code == 200
    health = answer.get_json()
    assert health.pop("parked") == health.pop("unreadable") == 0
    assert datetime.fromisoformat(health.pop("timestamp")).tzinfo == UTC
    name = health.pop("gateway")
    assert name.startswith("gateway-")
    assert health == {
        "status": "healthy", "reasons": [], "workers": 1, "pending_tasks": 2, "pending_high": 1,
        "processing": 1, "delayed": 1, "waiting": 1, "dead_letter": 1, "completed_tasks": 1,
    }  # fmt: skip
    assert http.get("/health").get_json()["gateway"] == name


def test_without_workers_health_is_degraded(http: FlaskClient) -> None:
    answer = http.get("/health")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "degraded")
    [reason] = answer.get_json()["reasons"]
    assert "worker" in reason


def test_without_persistence_health_is_degraded(own_http: FlaskClient, own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("appendonly", "no")
    reasons = own_http.get("/health").get_json()["reasons"]
    assert any("disk" in reason for reason in reasons)


def test_without_redis_every_call_says_so(own_http: FlaskClient, own_redis: RedisServer) -> None:
    assert own_http.get("/health").status_code == 200
    own_redis.stop()
    for method, path, options in CALLS:
        answer = own_http.open(path, method=method, **options)
        assert answer.status_code == 503, path
        assert answer.headers["Retry-After"] == "1"
        assert "Redis" in answer.get_json()["error"]
    health = own_http.get("/health").get_json()
    assert health["status"] == "unhealthy"
    assert health["reasons"] == [health["error"]]
    assert own_http.get("/openapi.json").status_code == 200
    own_redis.start()
    assert own_http.get("/health").get_json()["status"] == "degraded"
    assert own_http.get("/tasks").get_json() == {"tasks": [], "count": 0}


def test_a_full_redis_refuses_new_tasks_alone(own_http: FlaskClient, own_redis: RedisServer) -> None:
    task_id = own_http.post("/tasks", json={"type": "noop", "data": 1}).get_json()["task_id"]
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", "1")
        for _, path, options in CALLS[:2]:
            answer = own_http.post(path, **options)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert "full" in answer.get_json()["error"]
        assert ids(own_http, "/tasks") == [task_id]
        assert own_http.delete(f"/tasks/{task_id}").status_code == 200
        client.config_set("maxmemory", "0")
    assert own_http.post("/tasks", json={"type": "noop", "data": 1}).status_code == 201


def test_a_redis_that_misses_its_replicas_says_try_again(
    own_http: FlaskClient, own_redis: RedisServer
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("min-replicas-to-write", "1")
        answer = own_http.post("/tasks", json={"type": "noop", "data": 1})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        client.config_set("min-replicas-to-write", "0")
    assert own_http.post("/tasks", json={"type": "noop", "data": 1}).status_code == 201


# -------------------------------------------------------------------- dead letter


def test_dead_tasks_get_a_fresh_start(http: FlaskClient, broker: Broker) -> None:
    dead = [bury(broker) for _ in range(3)]
    assert ids(http, "/dead-letter") == dead[::-1]
    answer = http.post(f"/dead-letter/{dead[1]}/retry")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"success": True, "task_ids": [dead[1]], "count": 1},
    )
    assert http.get(f"/tasks/{dead[1]}").get_json()["status"] == "pending"
    answer = http.post("/dead-letter/retry").get_json()
    assert (sorted(answer["task_ids"]), answer["count"]) == (sorted([dead[0], dead[2]]), 2)
    assert broker.counts()["pending"] == 3
    assert http.post("/dead-letter/retry").get_json() == {"success": True, "task_ids": [], "count": 0}


def test_dead_tasks_are_discarded(http: FlaskClient, broker: Broker) -> None:
    dead = [bury(broker) for _ in range(3)]
    assert http.delete(f"/dead-letter/{dead[0]}").get_json()["task_ids"] == [dead[0]]
    assert sorted(http.delete("/dead-letter").get_json()["task_ids"]) == sorted(dead[1:])
    assert sorted(ids(http, "/tasks?status=cancelled")) == sorted(dead)
    assert http.get("/dead-letter").get_json() == {"tasks": [], "count": 0}


def bury_many(broker: Broker, n: int) -> list[str]:
    """As many dead tasks, the oldest first."""
    broker.submit([new_task() for _ in range(n)])
    tasks = [task for _ in range(0, n, WORK // 5) for task in claim(broker, n=WORK // 5)]
    assert len(tasks) == n
    broker.report_and_claim(WORKER, [failed(task, retries=0) for task in tasks], 0)
    return [task.id for task in tasks]


def test_a_dead_letter_is_listed_beyond_the_fifty_of_other_lists(http: FlaskClient, broker: Broker) -> None:
    dead = [bury(broker) for _ in range(60)]
    assert ids(http, "/dead-letter") == dead[::-1]


@pytest.mark.parametrize(("method", "path"), [("POST", "/dead-letter/retry"), ("DELETE", "/dead-letter")])
def test_a_decision_about_all_is_about_all(http: FlaskClient, broker: Broker, method: str, path: str) -> None:
    dead = bury_many(broker, WORK + 60)
    answer = http.open(path, method=method).get_json()
    assert (answer["count"], sorted(answer["task_ids"])) == (WORK + 60, sorted(dead))
    assert broker.counts()["dead_letter"] == 0


@pytest.mark.parametrize(("method", "path"), [("POST", "/dead-letter/retry"), ("DELETE", "/dead-letter")])
def test_an_id_that_is_no_text_stops_no_decision(
    http: FlaskClient, broker: Broker, method: str, path: str
) -> None:
    first = bury(broker)
    broker.redis.execute_command("LPUSH", broker.keys.dead_letter, b"\xff\xfe")
    dead = [first, bury(broker)]
    assert http.open(path, method=method).get_json()["task_ids"] == dead
    assert broker.counts()["dead_letter"] == 0


def test_a_worker_whose_name_is_no_text_is_left_out(http: FlaskClient, broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle"))
    broker.redis.execute_command("SADD", broker.keys.workers, b"\xff\xfe")
    assert http.get("/workers").get_json()["count"] == 1
    assert http.get("/health").status_code == 200


def test_what_is_not_in_the_dead_letter_is_not_found_there(http: FlaskClient, broker: Broker) -> None:
    dead = bury(broker)
    broker.submit([new_task(id="alive")])
    for task_id in ("nobody", "alive"):
        for answer in (http.post(f"/dead-letter/{task_id}/retry"), http.delete(f"/dead-letter/{task_id}")):
            assert answer.status_code == 404
            assert task_id in answer.get_json()["error"]
    assert http.get("/tasks/alive").get_json()["status"] == Status.PENDING
    assert ids(http, "/dead-letter") == [dead]
