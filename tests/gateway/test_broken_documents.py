"""Documents that nobody can read, in every place: no call fails by them, and they are counted and shown."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from dtq.queue.broker import Broker
from tests.helpers import new_task
from tests.steps import claim_one, run

LISTS, ZSETS = ("pending", "pending_high", "dead_letter"), ("processing", "delayed", "waiting", "finished")
BROKEN = {
    "no JSON": b'{"id":1,oops,"data":1}',
    "no object": b"[1]",
    "an unknown priority": b'{"id":"bad","type":"noop","priority":"urgent","status":"pending","data":1}',
    "an unknown status": b'{"id":"bad","type":"noop","status":"lost","data":1}',
    "random bytes": bytes(range(256)) * 64,
    "invalid UTF-8": b'{"id":"bad","type":"\xff\xfe","status":"pending","data":1}',
    "nothing": b"",
    "times without a zone": b'{"id":"bad","type":"noop","created_at":"2020-01-01T00:00:00","data":1}',
}
CALLS = ("/tasks", "/tasks?type=noop&limit=1000", "/tasks?ids=bad,good", "/dead-letter", "/stats", "/metrics")
CALLS += ("/health", "/tasks/bad", "/tasks?status=pending", "/tasks?status=failed", "/tasks?status=completed")


def put(broker: Broker, place: str, task_id: str | bytes) -> None:
    """Into a place by hand, as redis-cli would."""
    key: Any = getattr(broker.keys, place)
    if place in LISTS:
        broker.redis.execute_command("LPUSH", key, task_id)
    else:
        broker.redis.execute_command("ZADD", key, 1, task_id)
    if place == "finished":
        now = broker.redis.time()[0]
        broker.redis.execute_command("ZADD", broker.keys.completed_at, now, task_id)


@pytest.mark.parametrize("place", LISTS + ZSETS)
@pytest.mark.parametrize("document", BROKEN.values(), ids=BROKEN)
def test_a_document_that_nobody_can_read_harms_no_call(
    http: FlaskClient, broker: Broker, document: bytes, place: str
) -> None:
    broker.submit([new_task(id="good")])
    for path in CALLS:  # the first one that meets it sets it aside
        broker.redis.execute_command("SET", broker.keys.task + "bad", document)
        put(broker, place, "bad")
        status = http.get(path).status_code
        assert status == 200 or (path, status) == ("/tasks/bad", 404), path
        broker.redis.execute_command("DEL", getattr(broker.keys, place), broker.keys.completed_at)
    assert http.get("/tasks/good").status_code == 200


@pytest.mark.parametrize("place", LISTS + ZSETS)
def test_a_document_of_another_type_harms_no_call(http: FlaskClient, broker: Broker, place: str) -> None:
    broker.redis.execute_command("RPUSH", broker.keys.task + "bad", 1)
    put(broker, place, "bad")
    for path in CALLS:
        assert http.get(path).status_code in (200, 404), path


@pytest.mark.parametrize("place", LISTS + ZSETS)
def test_an_id_that_is_no_text_harms_no_call(http: FlaskClient, broker: Broker, place: str) -> None:
    put(broker, place, b"\xff\x00\xfe")
    for path in CALLS:
        assert http.get(path).status_code in (200, 404), path


def test_tasks_without_what_the_figures_need_harm_no_call(http: FlaskClient, broker: Broker) -> None:
    """Somebody has written them by hand: a dead one without history, a completed one without a worker."""
    for place, status in (("dead_letter", "failed"), ("finished", "completed")):
        document = f'{{"id":"{status}","type":"noop","status":"{status}","data":1}}'
        broker.redis.execute_command("SET", broker.keys.task + status, document)
        put(broker, place, status)
    told = http.get("/stats").get_json()
    assert [(group["worker"], group["completed"]) for group in told["by_worker"]] == [("", 1)]
    for path in CALLS:
        assert http.get(path).status_code in (200, 404), path


def test_what_was_set_aside_is_counted(http: FlaskClient, broker: Broker) -> None:
    broker.submit([new_task(id="done")])
    run(broker, "done")
    broker.submit([new_task(id="bad"), new_task(id="good")])
    broker.redis.execute_command("SET", broker.keys.task + "bad", "somebody wrote this by hand")
    assert claim_one(broker).id == "good"
    assert http.get("/stats").get_json()["counts"]["unreadable"] == 1
    assert http.get("/health").get_json()["unreadable"] == 1
    families = text_string_to_metric_families(http.get("/metrics").text)
    lines = {tuple(one.labels.values()): one.value for family in families for one in family.samples}
    assert lines["unreadable",] == 1
