"""The contract: it is valid, it is complete, and what the gateway answers fits it."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from dtq.queue.broker import Broker
from dtq.queue.reports import Completed, Failed
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from tests.helpers import held, new_task


@pytest.fixture
def contract(http: FlaskClient) -> dict[str, Any]:
    answer = http.get("/openapi.json").get_json()
    assert isinstance(answer, dict)
    return answer


def check(contract: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """Validates against a schema, whose references lead into the contract."""
    Draft202012Validator({"components": contract["components"], **schema}).validate(value)


def test_the_contract_is_valid(contract: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(contract).validate()
    assert contract["openapi"] == "3.1.0"


def test_the_contract_has_every_call_and_no_other(http: FlaskClient, contract: dict[str, Any]) -> None:
    calls = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in http.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.endpoint.startswith(("dashboard.", "log"))  # pages for people
    }
    assert {(path, method) for path, about in contract["paths"].items() for method in about} == calls


def test_every_call_is_explained(contract: dict[str, Any]) -> None:
    operations = [about for path in contract["paths"].values() for about in path.values()]
    assert all(about["summary"] and "503" in about["responses"] for about in operations)
    parameters = contract["paths"]["/tasks"]["get"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == {"status", "type", "limit", "ids"}
    assert contract["paths"]["/tasks"]["post"]["parameters"][0]["name"] == "Idempotency-Key"
    names = set(contract["components"]["schemas"])
    assert {"TaskRequest", "BatchRequest", "Task", "Error", "Health", "Status"} <= names


def test_the_contract_knows_which_bodies_fit(contract: dict[str, Any]) -> None:
    schema = contract["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fits = Draft202012Validator({"components": contract["components"], **schema}).is_valid
    assert fits({"type": "noop", "data": None, "max_retries": 3, "depends_on": ["a"], "delay": 0.5})
    assert not fits({"type": "noop"})
    assert not fits({"type": "noop", "data": 1, "colour": "red"})
    assert not fits({"type": "noop", "data": 1, "max_retries": 101})
    many = [f"task-{n}" for n in range(1001)]
    assert fits({"type": "noop", "data": 1, "depends_on": many[1:]})
    assert not fits({"type": "noop", "data": 1, "depends_on": many})
    assert not fits({"type": "noop", "data": 1, "depends_on": ["a", "b", "a"]})


def asked(broker: Broker) -> list[tuple[str, str, int, dict[str, Any]]]:
    """Every call, in an order in which it has something to say: method, address, status, options."""
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", types=["noop", "fail"]))
    for name in ("dead", "dead-2", "dead-3"):
        broker.submit([new_task("fail", id=name)])
        broker.report_and_claim("worker-1", [], 1)
        broker.report_and_claim("worker-1", [Failed(held(name, 1), 0.1, 0.0, "failed", "broken", 0)], 0)
    broker.submit([new_task(id="done"), new_task(id="running"), new_task(id="free")])
    broker.report_and_claim("worker-1", [], 2)
    broker.report_and_claim("worker-1", [Completed(held("done", 1), 0.1, 0.0, b"[1]")], 0)
    task = {"type": "noop", "data": {"a": [1]}}
    unknown = {"type": "resize", "data": 1}
    keyed = {"json": task, "headers": {"Idempotency-Key": "k"}}
    return [
        ("POST", "/tasks", 201, keyed), ("POST", "/tasks", 200, keyed),
        ("POST", "/tasks", 422, {"json": {}}), ("POST", "/tasks", 415, {"data": "x"}),
        ("POST", "/tasks", 400, {"data": "x", "content_type": "application/json"}),
        ("POST", "/tasks", 413, {"data": "x" * 2**21, "content_type": "application/json"}),
        ("POST", "/tasks", 403, {"json": task, "headers": {"Sec-Fetch-Site": "cross-site"}}),
        ("POST", "/tasks/batch", 201, {"json": {"tasks": [task]}}),
        ("POST", "/tasks", 201, {"json": unknown}),
        ("POST", "/tasks/batch", 201, {"json": {"tasks": [unknown]}}),
        ("POST", "/tasks/batch", 422, {"json": task}), ("GET", "/tasks", 200, {}),
        ("GET", "/tasks?limit=0", 400, {}), ("GET", "/tasks?ids=done,dead", 200, {}),
        ("GET", "/tasks/done", 200, {}), ("GET", "/tasks/dead", 200, {}), ("GET", "/tasks/nobody", 404, {}),
        ("DELETE", "/tasks/free", 200, {}), ("DELETE", "/tasks/running", 409, {}),
        ("DELETE", "/tasks/nobody", 404, {}), ("GET", "/workers", 200, {}), ("GET", "/health", 200, {}),
        ("GET", "/dead-letter", 200, {}), ("POST", "/dead-letter/dead/retry", 200, {}),
        ("POST", "/dead-letter/nobody/retry", 404, {}), ("DELETE", "/dead-letter/dead-2", 200, {}),
        ("DELETE", "/dead-letter/nobody", 404, {}), ("DELETE", "/dead-letter", 200, {}),
        ("POST", "/dead-letter/retry", 200, {}), ("GET", "/openapi.json", 200, {}),
        ("GET", "/stats?window=60", 200, {}), ("GET", "/stats?window=0", 400, {}),
        ("GET", "/metrics", 200, {}),
    ]  # fmt: skip


def test_what_is_answered_fits_the_contract(
    http: FlaskClient, broker: Broker, contract: dict[str, Any]
) -> None:
    seen = set()
    rules = http.application.url_map.bind("localhost")
    for method, address, status, options in asked(broker):
        answer = http.open(address, method=method, **options)
        assert answer.status_code == status, f"{method} {address}: {answer.text}"
        rule, _ = rules.match(address.split("?")[0], method, return_rule=True)
        path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
        response = contract["paths"][path][method.lower()]["responses"][str(status)]
        value = answer.get_json() if answer.is_json else answer.text
        check(contract, response["content"][answer.mimetype]["schema"], value)
        if status < 300:
            seen.add((path, method.lower()))
    assert seen == {(path, method) for path, about in contract["paths"].items() for method in about}


def test_what_is_answered_without_redis_fits_the_contract(
    own_http: FlaskClient, own_redis: RedisServer, contract: dict[str, Any]
) -> None:
    own_redis.stop()
    for path in ("/health", "/tasks", "/workers", "/stats", "/metrics"):
        answer = own_http.get(path)
        assert answer.status_code == 503
        schema = contract["paths"][path]["get"]["responses"]["503"]["content"]["application/json"]["schema"]
        check(contract, schema, answer.get_json())
    own_redis.start()
