"""Submitting over HTTP: what is stored, and that nothing is stored where the answer is no."""

import hashlib
import json
import threading
import uuid
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dtq.queue.bounds import PARENTS
from dtq.queue.broker import Broker
from dtq.queue.reports import Completed
from dtq.queue.task import Status
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import held, new_task

JSON = "application/json"


def post(http: FlaskClient, body: str | bytes, path: str = "/tasks", **options: Any) -> TestResponse:
    return http.post(path, data=body, content_type=options.pop("content_type", JSON), **options)


def assert_refused(answer: TestResponse, status: int, broker: Broker, word: str = "") -> None:
    """The answer is one sentence with this status, and the queue is as empty as before."""
    assert answer.status_code == status, answer.text
    error = answer.get_json()
    assert list(error) == ["error"]
    assert word in error["error"]
    assert "Traceback" not in error["error"]
    assert broker.tasks() == []
    assert broker.redis.keys(f"{broker.keys.task[: -len('task:')]}*") == []


def test_a_task_is_stored_as_it_was_sent(http: FlaskClient, broker: Broker) -> None:
    parent = post(http, '{"type": "noop", "data": null}').get_json()["task_id"]
    options = {"priority": "high", "depends_on": [parent], "delay": 1.5, "max_retries": 0, "timeout": 2}
    answer = post(http, json.dumps({"type": "resize", "data": {"width": 1}} | options))
    assert answer.status_code == 201
    assert answer.get_json() == {
        "success": True,
        "task_id": answer.get_json()["task_id"],
        "message": "Task submitted successfully",
    }
    task = broker.get(answer.get_json()["task_id"])
    assert task
    assert uuid.UUID(task.id).version == 4
    assert (task.type, task.priority, task.depends_on) == ("resize", "high", [parent])
    assert (task.max_retries, task.timeout, task.status) == (0, 2.0, Status.WAITING)


def test_every_answer_is_json_that_no_browser_takes_for_a_page(http: FlaskClient) -> None:
    for answer in (post(http, '{"type": "noop", "data": null}'), http.get("/tasks"), http.get("/nowhere")):
        assert answer.content_type == JSON
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


# -------------------------------------------------------------------- payloads

NESTED = "[" * 32 + "]" * 32
PAYLOADS = [
    *(
        "[]",
        "{}",
        "null",
        "0",
        "-0.0",
        "12345678901234567890",
        "1" * 4000,
        "1.10",
        "1E5",
        "1e-400",
        "[1.0, 2.50]",
    ),
    *('""', r'"caf\u00e9 café"', r'"\u0000"', r'"\ud83d\ude00 😀"', r'"\/ \" \\ \t"', r'",\"data\":1"'),
    r'{"data":{"data":"\",\"data\":\""},"result":[]}',
    '{"a" : [1 ,\t2],\n "b":{ } }',
    NESTED,
    '{"a":' * 32 + "1" + "}" * 32,
    '{"same":1,"same":2}',
    '"' + "[" * 1000 + '"',
    '"' + "x" * 900_000 + '"',
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=[f"{i}-{text[:20]!r}" for i, text in enumerate(PAYLOADS)])
@pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
def test_a_payload_keeps_its_bytes(http: FlaskClient, broker: Broker, payload: str, many: bool) -> None:
    if many:
        body = f'{{"tasks": [{{"type":"noop","data":1}}, {{"data" : {payload} , "type":"noop"}}]}}'
        task_id = post(http, body, "/tasks/batch").get_json()["task_ids"][1]
    else:
        task_id = post(http, f'{{"data" : {payload} , "type":"noop"}}').get_json()["task_id"]
    stored = broker.get(task_id)
    assert stored
    assert bytes(stored.data) == payload.encode()
    shown = msgspec.json.decode(http.get(f"/tasks/{task_id}").data, type=dict[str, msgspec.Raw])
    assert bytes(shown["data"]) == payload.encode()


def test_a_result_keeps_its_bytes(http: FlaskClient, broker: Broker) -> None:
    broker.submit([new_task()])
    _, [task] = broker.report_and_claim("worker-1", [], 1)
    broker.report_and_claim("worker-1", [Completed(held(task.id, 1), 0.1, 0.0, b'{"a":1.10,"b":[]}')], 0)
    assert b'"result":{"a":1.10,"b":[]}' in http.get(f"/tasks/{task.id}").data
    assert b'"result":{"a":1.10,"b":[]}' in http.get("/tasks").data


def test_of_two_members_with_one_name_the_last_counts(http: FlaskClient, broker: Broker) -> None:
    answer = post(http, '{"type":5,"data":[1],"type":"noop","data":[2]}')
    task = broker.get(answer.get_json()["task_id"])
    assert task
    assert (task.type, bytes(task.data)) == ("noop", b"[2]")
    twice = post(http, '{"tasks":5,"tasks":[{"type":"noop","data":1,"data":[3]}]}', "/tasks/batch")
    task = broker.get(twice.get_json()["task_ids"][0])
    assert task
    assert bytes(task.data) == b"[3]"


def test_text_in_the_header_survives(http: FlaskClient, broker: Broker) -> None:
    kind = 'caf\u00e9 😀 \x00 ",\\"data\\":" / \x7f'
    answer = post(http, json.dumps({"type": kind, "data": None}))
    task = broker.get(answer.get_json()["task_id"])
    assert task
    assert task.type == kind


# -------------------------------------------------------------------- refusals


def task_with(member: str, value: str) -> str:
    """The body of a task that is right, but for one member; of two with one name the last counts."""
    return f'{{"type":"noop","data":1,"{member}":{value}}}'


NOT_JSON = [
    *(
        "",
        "nope",
        "[]",
        "null",
        '"noop"',
        "5",
        '{"type":"noop"',
        '{"type":"noop","data":1}\x00',
        "{'type':'noop'}",
    ),
    *(
        task_with("data", value)
        for value in ("NaN", "-Infinity", "1e400", "1" * 5000, r'"\ud800"', '"\t"', "01")
    ),
    task_with("type", r'"\udc00!"'),
    task_with(r"\ud800", "1"),
    b'{"type":"noop","data":"\xff"}',
    b'\xef\xbb\xbf{"type":"noop","data":1}',
]
UNFIT = [
    ("{}", "type: Field required."),
    ('{"type":"noop"}', "data: Field required."),
    ('{"data":1}', "type: Field required."),
    (task_with("data", f"[{NESTED}]"), "32"),
    (task_with("data", "[" * 100_000), "32"),
    (task_with("data", f'{{"a":[{NESTED}],"a":1}}'), "32"),
    (task_with("type", f"[{NESTED}]"), "32"),
    *((task_with("type", value), "type") for value in ("5", "null", '""', '["noop"]', f'"{"x" * 101}"')),
    *((task_with(name, "1"), name) for name in ("colour", "id", "fingerprint", "status", "traceparent")),
    *((task_with("priority", value), f"not {value}.") for value in ('"urgent"', "1", "null")),
    *((task_with("depends_on", value), "depends_on") for value in ('"a"', "null", "5", str([1] * 101))),
    (task_with("depends_on", json.dumps([f"task-{n}" for n in range(PARENTS + 1)])), "at most 1000 items"),
    *(
        (task_with("depends_on", json.dumps(["y", *["x"] * n])), f"named once, and x is named {n} times.")
        for n in (2, 999)
    ),
    *((task_with("depends_on", value), "depends_on.0") for value in ("[5]", '[""]', f'["{"x" * 101}"]')),
    (task_with("depends_on", '["nobody"]'), "nobody"),
    *((task_with("delay", value), "delay") for value in ("-1", "2592001", '"1"', "true", "null")),
    (task_with("max_retries", "101"), "max_retries: Input should be less than or equal to 100, not 101."),
    *((task_with("max_retries", value), "max_retries") for value in ("-1", "1.5", "true", "9" * 400)),
    *((task_with("timeout", value), "timeout") for value in ("0", "-1", "86401", '"5"')),
]


@pytest.mark.parametrize("body", NOT_JSON, ids=[f"{i}-{body[:40]!r}" for i, body in enumerate(NOT_JSON)])
def test_what_is_no_json_object_is_refused(http: FlaskClient, broker: Broker, body: str | bytes) -> None:
    for path in ("/tasks", "/tasks/batch"):
        assert_refused(post(http, body, path), 400, broker)


@pytest.mark.parametrize(
    ("body", "word"), UNFIT, ids=[f"{i}-{body[:40]!r}" for i, (body, _) in enumerate(UNFIT)]
)
def test_what_does_not_fit_is_refused(http: FlaskClient, broker: Broker, body: str, word: str) -> None:
    assert_refused(post(http, body), 422, broker, word)
    batch = f'{{"tasks":[{{"type":"noop","data":1}},{body}]}}'
    assert_refused(post(http, batch, "/tasks/batch"), 422, broker, word)


@pytest.mark.parametrize("tasks", ["[]", "5", "null", "[5]", "[[]]", "[null]", '[],"more":1'])
def test_a_batch_that_does_not_fit_is_refused(http: FlaskClient, broker: Broker, tasks: str) -> None:
    assert_refused(post(http, f'{{"tasks":{tasks}}}', "/tasks/batch"), 422, broker)
    assert_refused(post(http, "{}", "/tasks/batch"), 422, broker, "tasks: Field required.")


def test_a_batch_has_1000_tasks_at_most(http: FlaskClient, broker: Broker) -> None:
    batches = [json.dumps({"tasks": [{"type": "noop", "data": i} for i in range(n)]}) for n in (1001, 1000)]
    assert_refused(post(http, batches[0], "/tasks/batch"), 422, broker, "1000")
    answer = post(http, batches[1], "/tasks/batch")
    assert answer.status_code == 201
    assert answer.get_json()["count"] == len(set(answer.get_json()["task_ids"])) == 1000
    assert broker.counts()["pending"] == 1000
    stored = broker.get_many(answer.get_json()["task_ids"])
    assert [bytes(task.data) for task in stored] == [str(i).encode() for i in range(1000)]


def test_a_batch_is_stored_whole_or_not_at_all(http: FlaskClient, broker: Broker) -> None:
    body = '{"tasks":[{"type":"noop","data":1},{"type":"noop","data":1,"depends_on":["nobody"]}]}'
    assert_refused(post(http, body, "/tasks/batch"), 422, broker, "nobody")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_only_json_is_taken(http: FlaskClient, broker: Broker, kind: str | None) -> None:
    for path in ("/tasks", "/tasks/batch"):
        assert_refused(
            post(http, '{"type":"noop","data":1}', path, content_type=kind), 415, broker, "Content-Type"
        )


def test_a_charset_beside_the_content_type_is_fine(http: FlaskClient) -> None:
    answer = post(http, '{"type":"noop","data":1}', content_type="application/json; charset=utf-8")
    assert answer.status_code == 201


def test_a_mebibyte_is_the_limit(http: FlaskClient, broker: Broker) -> None:
    def body(size: int) -> str:
        frame = '{"type":"noop","data":""}'
        return frame[:-2] + "x" * (size - len(frame)) + frame[-2:]

    assert_refused(post(http, body(2**20 + 1)), 413, broker, "1 MiB")
    assert post(http, body(2**20)).status_code == 201


def test_pages_of_other_sites_change_nothing(http: FlaskClient, broker: Broker) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert_refused(post(http, '{"type":"noop","data":1}', headers=headers), 403, broker, "site")
    assert http.post("/dead-letter/retry", headers=headers).status_code == 403
    assert http.delete("/dead-letter", headers=headers).status_code == 403
    assert http.get("/tasks", headers=headers).status_code == 200
    assert http.post("/dead-letter/retry", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_task_may_have_a_thousand_parents(http: FlaskClient, broker: Broker) -> None:
    parents = [f"task-{n}" for n in range(PARENTS)]
    broker.submit([new_task(id=name) for name in parents])
    answer = post(http, task_with("depends_on", json.dumps(parents)))
    assert answer.status_code == 201, answer.text
    task = broker.get(answer.get_json()["task_id"])
    assert task
    assert (task.depends_on, task.status) == (parents, Status.WAITING)


# -------------------------------------------------------------------- types that no worker knows


def beat(broker: Broker, *types: str, name: str = "worker-1") -> None:
    broker.heartbeat(WorkerInfo(id=name, status="idle", types=list(types)))


def submit_types(http: FlaskClient, *types: str) -> list[Any]:
    """The answers' warnings, of a task of the first type and of a batch of all."""
    batch = {"tasks": [{"type": name, "data": 1} for name in types]}
    answers = http.post("/tasks", json=batch["tasks"][0]), http.post("/tasks/batch", json=batch)
    assert [answer.status_code for answer in answers] == [201, 201]
    return [answer.get_json().get("warning") for answer in answers]


def test_a_type_that_no_live_worker_knows_is_accepted_with_a_warning(
    http: FlaskClient, broker: Broker
) -> None:
    beat(broker, "noop", "resize")
    beat(broker, "process", name="worker-2")
    one, many = submit_types(http, "resise", "noop", "nope", "resise")
    known = "known are noop, process, resize."
    assert one == f"No live worker knows resise, so these tasks wait for one that does; {known}"
    assert many == f"No live worker knows nope, resise, so these tasks wait for one that does; {known}"
    assert broker.counts()["pending"] == 5
    assert submit_types(http, "noop", "process") == [None, None]


def test_a_warning_names_some_types_of_many(http: FlaskClient, broker: Broker) -> None:
    beat(broker, *(f"type-{n:02}" for n in range(30)))
    _, many = submit_types(http, *(f"unknown-{n:03}" for n in range(1000)))
    assert "unknown-009 and others, so" in many
    assert many.endswith(" and others.")
    assert len(many) < 400


def test_without_workers_there_is_no_warning(http: FlaskClient, broker: Broker) -> None:
    assert submit_types(http, "resize") == [None, None]
    assert broker.counts()["pending"] == 2


def test_a_warning_that_cannot_be_made_costs_no_task(http: FlaskClient, broker: Broker) -> None:
    broker.redis.set(broker.keys.types, "of another type", ex=600)
    assert submit_types(http, "resize") == [None, None]
    assert broker.counts()["pending"] == 2


# -------------------------------------------------------------------- idempotency


def test_the_same_key_again_gives_the_same_task(http: FlaskClient, broker: Broker) -> None:
    body, headers = '{"type":"noop","data":1}', {"Idempotency-Key": "order-17"}
    first, again = (post(http, body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.get_json()["task_id"] == again.get_json()["task_id"]
    assert uuid.UUID(first.get_json()["task_id"]).version == 5
    assert again.get_json()["message"] == "Task was submitted before"
    assert broker.counts()["pending"] == 1
    other = post(http, '{"type":"noop","data":2}', headers=headers)
    assert other.status_code == 422
    assert first.get_json()["task_id"] in other.get_json()["error"]
    assert post(http, body, headers={"Idempotency-Key": "order-18"}).status_code == 201
    assert post(http, body).get_json()["task_id"] != post(http, body).get_json()["task_id"]
    assert broker.counts()["pending"] == 4


def test_a_finished_task_is_still_known_by_its_key(http: FlaskClient, broker: Broker) -> None:
    body, headers = '{"type":"noop","data":1}', {"Idempotency-Key": "order-17"}
    task_id = post(http, body, headers=headers).get_json()["task_id"]
    _, [task] = broker.report_and_claim("worker-1", [], 1)
    broker.report_and_claim("worker-1", [Completed(held(task.id, 1), 0.1, 0.0, b"7")], 0)
    again = post(http, body, headers=headers)
    assert (again.status_code, again.get_json()["task_id"]) == (200, task_id)
    assert broker.counts() | {"completed": 1, "pending": 0} == broker.counts()


def test_a_batch_sent_twice_is_stored_once(http: FlaskClient, broker: Broker) -> None:
    headers = {"Idempotency-Key": "batch-1"}
    body = json.dumps({"tasks": [{"type": "noop", "data": 1}] * 3})
    first, again = (post(http, body, "/tasks/batch", headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.get_json() == again.get_json()
    assert len(set(first.get_json()["task_ids"])) == broker.counts()["pending"] == 3
    longer = json.dumps({"tasks": [{"type": "noop", "data": 1}] * 4})
    assert post(http, longer, "/tasks/batch", headers=headers).status_code == 422
    assert post(http, '{"type": "noop", "data": 1}', headers=headers).status_code == 422
    assert broker.counts()["pending"] == 3


@pytest.mark.parametrize("key", ["", "a b", "ключ", "x" * 256, "a\tb", "\x7f"])
def test_a_key_that_is_none_is_refused(http: FlaskClient, broker: Broker, key: str) -> None:
    headers = {"Idempotency-Key": key}
    assert_refused(post(http, '{"type":"noop","data":1}', headers=headers), 400, broker, "Idempotency-Key")


def test_the_longest_key_is_taken(http: FlaskClient) -> None:
    answer = post(http, '{"type":"noop","data":1}', headers={"Idempotency-Key": "~" * 255})
    assert answer.status_code == 201


def test_twenty_at_once_with_one_key_make_one_task(http: FlaskClient, broker: Broker) -> None:
    barrier, answers = threading.Barrier(20), list[TestResponse]()
    clients = [http.application.test_client() for _ in range(20)]

    def submit(client: FlaskClient) -> None:
        barrier.wait()
        answers.append(post(client, '{"type":"noop","data":1}', headers={"Idempotency-Key": "one"}))

    threads = [threading.Thread(target=submit, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.get_json()["task_id"] for answer in answers}) == 1
    assert broker.counts()["pending"] == 1


def test_the_fingerprint_is_of_the_bytes(http: FlaskClient, broker: Broker) -> None:
    body = b'{"type":"noop","data":1}'
    task_id = post(http, body, headers={"Idempotency-Key": "k"}).get_json()["task_id"]
    assert hashlib.sha256(body).hexdigest().encode() in broker.redis.get(broker.keys.task + task_id)


def test_defaults_stay_out_of_the_document(http: FlaskClient, broker: Broker) -> None:
    asked = {"type": "noop", "data": None, "delay": 0, "priority": "normal", "depends_on": []}
    task_id = http.post("/tasks", json=asked).get_json()["task_id"]
    document = json.loads(broker.redis.get(broker.keys.task + task_id))
    assert document.keys() & {"delay", "depends_on", "fingerprint", "max_retries", "timeout"} == set()
