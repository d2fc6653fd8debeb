"""Tasks as documents: from a request to the JSON in Redis and back."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from dtq.queue.task import NewTask, Status, parse, parse_plain
from tests.helpers import new_task

DOCUMENT = (
    b'{"id":"t1","type":"resize","priority":"high","status":"completed","attempts":2,"retry_count":1,"crashes":0,'
    b'"worker_id":"ann","created_at":1700000000.25,"started_at":1700000001,"completed_at":1700000002.5,'
    b'"duration":1.5,"history":[{"attempt":1,"worker":"bob","started_at":1700000000.5,"ended_at":1700000000.75,'
    b'"outcome":"failed","error":"boom"}],"depends_on":["t0"],"fingerprint":"f","max_retries":5,"timeout":30,'
    b'"data":{"width": 3, "n":1e2},"result":[ ]}'
)


def test_every_state_of_the_design_is_there() -> None:
    names = {"pending", "processing", "retrying", "scheduled", "waiting", "completed", "cancelled", "failed"}
    assert {status.value for status in Status} == names
    assert str(Status.PENDING) == "pending"


def test_a_document_is_read_with_payloads_as_bytes() -> None:
    task = parse(DOCUMENT)
    assert (bytes(task.data), bytes(task.result)) == (b'{"width": 3, "n":1e2}', b"[ ]")
    assert (task.id, task.type, task.priority, task.status) == ("t1", "resize", "high", Status.COMPLETED)
    assert (task.attempts, task.retry_count, task.crashes, task.worker_id) == (2, 1, 0, "ann")
    assert (task.depends_on, task.max_retries, task.timeout, task.duration) == (["t0"], 5, 30.0, 1.5)


def test_a_document_is_read_with_payloads_as_python_values() -> None:
    task = parse_plain(DOCUMENT)
    assert (task.data, task.result) == ({"width": 3, "n": 100.0}, [])


def test_times_are_in_utc() -> None:
    task = parse(DOCUMENT)
    assert task.created_at == datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)
    assert task.started_at == datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC)
    [attempt] = task.history
    assert attempt.ended_at == datetime(2023, 11, 14, 22, 13, 20, 750_000, tzinfo=UTC)
    assert (attempt.attempt, attempt.worker, attempt.outcome, attempt.error) == (1, "bob", "failed", "boom")


def test_times_are_shown_as_iso_8601() -> None:
    shown = msgspec.json.decode(msgspec.json.encode(parse_plain(DOCUMENT)))
    assert shown["created_at"] == "2023-11-14T22:13:20.250000Z"
    assert shown["history"][0]["started_at"] == "2023-11-14T22:13:20.500000Z"


def test_what_is_shown_can_be_read_again() -> None:
    task = parse_plain(DOCUMENT)
    assert parse_plain(msgspec.json.encode(task)) == task


def test_a_young_task_has_no_result() -> None:
    task = parse(b'{"id":"t1","type":"noop","data":null}')
    assert (task.status, task.result, task.history, task.depends_on) == (Status.PENDING, None, [], [])
    assert (task.created_at, task.worker_id, task.error) == (None, None, None)


@pytest.mark.parametrize(
    "document", [b"{}", b'{"id":"t1","type":"noop"}', b'{"id":1,"type":"noop","data":1}']
)
def test_what_is_no_task_is_refused(document: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        parse(document)


def test_a_request_names_only_what_it_asks_for() -> None:
    task = new_task("noop", [], id="t1")
    assert msgspec.json.encode(task) == b'{"id":"t1","type":"noop","data":[]}'


def test_the_payload_is_the_last_member() -> None:
    everything: dict[str, Any] = {
        "priority": "high", "depends_on": ["t0"], "delay": 1.5, "max_retries": 0, "timeout": 2.0,
        "fingerprint": "f", "traceparent": "00", "submitted_by": "ann",
    }  # fmt: skip
    text = msgspec.json.encode(new_task(data={"a": 1}, id="t1", **everything))
    assert text.endswith(b',"data":{"a":1}}')
    assert msgspec.json.decode(text) == {"id": "t1", "type": "noop", "data": {"a": 1}} | everything


def test_ids_are_given_and_differ() -> None:
    ids = {NewTask(type="noop", data=msgspec.Raw(b"1")).id for _ in range(100)}
    assert len(ids) == 100
    assert {len(task_id) for task_id in ids} == {36}
