"""Payloads and results are other people's JSON: whatever a task goes through, not one byte changes."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtq.queue.broker import Broker
from dtq.queue.reports import Completed
from dtq.queue.task import NewTask, Status, Stored
from tests.helpers import held
from tests.steps import (
    bury,
    claim_one,
    complete,
    end_leases,
    failed,
    maintain,
    make_due,
    report,
    run,
    stored,
    submit,
)


def nested(depth: int) -> bytes:
    return b'{"a":[' * (depth // 2) + b"]}" * (depth // 2)


NASTY = {
    "empty array": b"[]",
    "empty object": b"{}",
    "empties within": b'{"a":[],"b":{},"c":[[],{}]}',
    "null": b"null",
    "64 bits": b"[9223372036854775807,-9223372036854775808,18446744073709551615]",
    "beyond 64 bits": b"[12345678901234567890123,-98765432109876543210]",
    "past 2^53": b"9007199254740993",
    "floats": b"[0.1,1e400,1E-7,1.0,-0.0,3.141592653589793238462643,100000000000000000000.0]",
    "the split in a string": rb'{"x":"q\",\"data\":\"y","y":",\"result\":1}"}',
    "the split as a member": b'{"id":"forged","data":{"data":1},"result":{"result":2},"status":"completed"}',
    "the split between members": b'{"a":1,"data":2,"result":3}',
    "emoji": '"😀 ünïcödé \u2028"'.encode(),
    "emoji as escapes": rb'"\ud83d\ude00 \u00fc \u0000"',
    "escapes": rb'"\" \\ \/ \b \f \n \r \t"',
    "spaces": b'{ "a" : [ 1 ,\n\t2 ] }',
    "twice the same member": b'{"a":1,"a":2}',
    "sparse for Lua": b"[null,null,1,null]",
    "number-like members": b'{"1":1,"2":2,"10":3}',
    "printf": b'"%d %s %1 %%"',
    "depth 32": nested(32),
    "depth 500": nested(500),
    "long": b'"' + b"x" * 100_000 + b'"',
}


def look(broker: Broker, task_id: str, status: str) -> Stored:
    task = stored(broker, task_id)
    assert task.status == status
    return task


def journey(broker: Broker, data: bytes, result: bytes) -> Iterator[tuple[str, Stored]]:
    """One task through every transition that rewrites its document; what is stored after each."""
    parent = submit(broker)
    task = NewTask(type="noop", data=msgspec.Raw(data), depends_on=[parent], delay=60.0)
    broker.submit([task])
    yield "submit", look(broker, task.id, "waiting")
    run(broker, parent)
    yield "released by its parent", look(broker, task.id, "scheduled")
    make_due(broker, task.id)
    maintain(broker)
    yield "due", look(broker, task.id, "pending")
    claimed = claim_one(broker)
    yield "claim, to the worker", claimed
    yield "claim", look(broker, task.id, "processing")
    broker.release("worker-1", [claimed])
    yield "release", look(broker, task.id, "pending")
    claim_one(broker)
    end_leases(broker, task.id)
    maintain(broker)
    yield "worker lost", look(broker, task.id, "pending")
    report(broker, failed(claim_one(broker), error='boom ,"data":1,"result":2'))
    yield "fail", look(broker, task.id, "retrying")
    make_due(broker, task.id)
    maintain(broker)
    report(broker, failed(claim_one(broker), retries=0))
    yield "dead", look(broker, task.id, "failed")
    broker.requeue([task.id])
    yield "requeue", look(broker, task.id, "pending")
    assert complete(broker, claim_one(broker), result=result) == "completed"
    yield "complete", look(broker, task.id, "completed")


def endings(broker: Broker, data: bytes) -> Iterator[tuple[str, Stored]]:
    """The same for the transitions after which a task is over."""
    root, child, dead = (NewTask(type="noop", data=msgspec.Raw(data)) for _ in range(3))
    child.depends_on = [root.id]
    broker.submit([root, child])
    assert broker.cancel(root.id) == "cancelled"
    yield "cancel", look(broker, root.id, "cancelled")
    yield "cancelled with its parent", look(broker, child.id, "cancelled")
    broker.submit([dead])
    report(broker, failed(claim_one(broker), retries=0))
    broker.discard([dead.id])
    yield "discard", look(broker, dead.id, "cancelled")


def stored_bytes(broker: Broker, task_id: str) -> bytes:
    document: bytes = broker.redis.get(broker.keys.task + task_id)
    return document


@pytest.mark.parametrize("payload", NASTY.values(), ids=NASTY.keys())
def test_no_transition_changes_a_byte(broker: Broker, payload: bytes) -> None:
    seen = []
    for step, task in [*journey(broker, payload, payload), *endings(broker, payload)]:
        assert bytes(task.data) == payload, step
        seen.append((step, task.status))
    assert bytes(broker.tasks(Status.COMPLETED)[0].result) == payload
    assert {status for _, status in seen} == set(Status)


@pytest.mark.parametrize("payload", NASTY.values(), ids=NASTY.keys())
def test_the_document_in_redis_ends_with_the_very_bytes(broker: Broker, payload: bytes) -> None:
    task = NewTask(type="noop", data=msgspec.Raw(payload))
    broker.submit([task])
    assert stored_bytes(broker, task.id).endswith(b',"data":' + payload + b"}")
    run(broker, task.id, result=payload)
    assert stored_bytes(broker, task.id).endswith(b',"data":' + payload + b',"result":' + payload + b"}")


@pytest.mark.parametrize(
    "name", [',"data":1,"result":2', '","data":"', "ünï 😀", "a\\", "\x00\n", "{}", "%1", "a'b"]
)
def test_names_and_messages_cannot_forge_the_split(broker: Broker, name: str) -> None:
    new = NewTask(
        id=name, type=name, data=msgspec.Raw(b"[]"), fingerprint=name, traceparent=name, submitted_by=name
    )
    broker.submit([new])
    report(broker, failed(claim_one(broker, name), error=name), name)
    task = look(broker, name, "retrying")
    [entry] = task.history
    assert {task.id, task.type, task.traceparent, task.submitted_by, task.error} == {name}
    assert (entry.worker, entry.error, bytes(task.data)) == (name, name, b"[]")
    make_due(broker, name)
    maintain(broker)
    run(broker, name, worker=name, result=b"{}")
    done = look(broker, name, "completed")
    assert (done.worker_id, bytes(done.data), bytes(done.result)) == (name, b"[]", b"{}")
    assert broker.submit([new]) == []


def test_numbers_of_the_header_keep_their_meaning(broker: Broker) -> None:
    task_id = submit(broker, timeout=0.1, max_retries=100, delay=1e9)
    task = look(broker, task_id, "scheduled")
    assert (task.timeout, task.max_retries) == (0.1, 100)
    assert (task.due - task.created_at).total_seconds() == pytest.approx(1e9)


def test_a_result_may_hold_what_ends_a_document(broker: Broker) -> None:
    parent = bury(broker)
    broker.requeue([parent])
    claimed = claim_one(broker)
    result = b'{"data":{},"result":[]}'
    verdicts, _ = broker.report_and_claim(
        "worker-1", [Completed(held(parent, claimed.attempts), 0.0, 0.0, result)], 0
    )
    assert verdicts[0].word == "completed"
    task = look(broker, parent, "completed")
    assert (bytes(task.data), bytes(task.result)) == (b"null", result)


# ---------------------------------------------------------------- any JSON

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**52, max_value=2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from([',"data":', ',"result":', '"', "\\", '","data":"'])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("data"), inner),
    max_leaves=20,
)
texts = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
    values,
    st.booleans(),
    st.sampled_from([None, 1]),
).filter(lambda text: _is_unicode(text))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which is no text
        return False
    return True


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=texts, result=texts)
def test_any_json_comes_back_as_it_was(broker: Broker, data: str, result: str) -> None:
    last: Any = None
    for step, last in journey(broker, data.encode(), result.encode()):
        assert bytes(last.data) == data.encode(), step
    assert bytes(last.result) == result.encode()
    assert msgspec.json.decode(last.result) == json.loads(result)
