"""What a worker makes of a handler's result or error; each handler is called once, in this thread."""

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dtq.queue.broker import Broker
from dtq.queue.reports import Completed, Failed, Report
from dtq.tasks import Context, Handler, PermanentError, TaskType
from dtq.worker.results import SIZE_LIMIT
from dtq.worker.worker import Worker
from tests.helpers import new_task
from tests.steps import claim_new

pytestmark = pytest.mark.timeout(method="thread")  # the other method's timer is the worker's here

NAME = "worker-1"


def raises(error: BaseException) -> Handler:
    def handler(data: Any, context: Context) -> None:
        raise error

    return handler


def returns(result: Any) -> Handler:
    return lambda data, context: result


def perform(broker: Broker, handler: Handler, data: Any = None, **options: Any) -> Report:
    """What the worker reports of one call of a handler."""
    task = claim_new(broker, "it", data, **options)
    report = Worker(broker, NAME, {"it": TaskType("it", handler)}).perform(task)
    assert report is not None
    return report


def failure(broker: Broker, handler: Handler) -> Failed:
    report = perform(broker, handler)
    assert isinstance(report, Failed)
    return report


@pytest.mark.parametrize(
    "result",
    [None, True, 0, -1.5, 12345678901234567890, "", "grün \x00 \u2028", [], {}, {"a": [{}, [], None]}],
)
def test_a_result_is_stored_as_the_json_it_is(broker: Broker, result: Any) -> None:
    report = perform(broker, returns(result))

    assert isinstance(report, Completed)
    assert json.loads(report.result) == result
    [verdict], _ = broker.report_and_claim(NAME, [report], 0)
    assert verdict.word == "completed"
    stored = broker.get(report.task.id)
    assert stored is not None
    assert bytes(stored.result) == report.result


@pytest.mark.parametrize(
    "data", [None, [], {}, [[], {}], 12345678901234567890, 0.1, "grün", {"a": {"b": [1, 2.0, "3", None]}}]
)
def test_a_handler_gets_the_data_as_it_was_submitted(broker: Broker, data: Any) -> None:
    seen: list[Any] = []

    perform(broker, lambda payload, context: seen.append(payload), data)

    assert seen == [data]
    assert repr(seen) == repr([data]), "0 is not 0.0"


def test_a_handler_knows_its_task_and_attempt(broker: Broker, make_broker: Callable[..., Broker]) -> None:
    task = claim_new(broker, "it")
    broker.release(NAME, [task], started=True)
    _, [again] = broker.report_and_claim(NAME, [], 1)
    seen: list[Context] = []

    worker = Worker(make_broker(work_time=0.25), NAME, {"it": TaskType("it", lambda _, c: seen.append(c))})
    worker.perform(again)

    assert seen == [Context(task.id, attempt=2, work_time=0.25, parents={})]


def test_a_handler_gets_the_results_of_the_parents(broker: Broker) -> None:
    parents = [new_task("parent", id=f"parent-{i}") for i in range(2)]
    child = new_task("child", depends_on=[parent.id for parent in parents])
    broker.submit([*parents, child])
    seen: list[Any] = []
    worker = Worker(
        broker,
        NAME,
        {
            "parent": TaskType("parent", lambda _, context: {"from": context.task_id, "n": [2**70]}),
            "child": TaskType("child", lambda _, context: seen.append(context.parents)),
        },
    )

    for _ in range(2):
        _, [task] = broker.report_and_claim(NAME, [], 1)
        report = worker.perform(task)
        assert report is not None
        broker.report_and_claim(NAME, [report], 0)
    _, [task] = broker.report_and_claim(NAME, [], 1)
    worker.perform(task)

    assert task.id == child.id
    assert seen == [{name: {"from": name, "n": [2**70]} for name in ("parent-0", "parent-1")}]


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (object(), "Object of type object is not JSON serializable"),
        ({1}, "Object of type set"),
        (b"bytes", "Object of type bytes"),
        ({("a", "b"): 1}, "keys must be str"),
        (math.nan, "Out of range float values"),
        ([math.inf], "Out of range float values"),
        ("\ud800", "surrogates not allowed"),
        (10**5000, "Exceeds the limit"),
        (circle(), "Circular reference"),
    ],
    ids=["object", "set", "bytes", "keys", "NaN", "infinity", "surrogate", "digits", "circle"],
)
def test_a_result_that_is_no_json_is_a_permanent_failure(broker: Broker, result: Any, why: str) -> None:
    report = failure(broker, returns(result))

    assert report.error.startswith("the result is not JSON: ")
    assert why in report.error
    assert (report.retries, report.outcome) == (0, "failed")


def test_a_result_may_be_nested_too_deep(broker: Broker) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    report = failure(broker, returns(deep))

    assert report.error.startswith("the result is not JSON: maximum recursion depth")
    assert report.retries == 0


def test_a_result_may_have_a_hundred_levels_and_no_more(broker: Broker) -> None:
    deep: Any = {}
    for _ in range(49):
        deep = {"a": [deep]}
    assert isinstance(perform(broker, returns([deep])), Completed)

    report = failure(broker, returns([[deep]]))

    assert report.error == "the result is nested deeper than 100 levels"
    assert report.retries == 0


@pytest.mark.parametrize("letter", ["a", "é", "語"])
def test_a_result_may_have_a_mebibyte_and_no_more(broker: Broker, letter: str) -> None:
    size = len(letter.encode())
    fits = letter * ((SIZE_LIMIT - 2) // size)  # two quotes go around it

    assert isinstance(perform(broker, returns(fits)), Completed)
    report = failure(broker, returns(fits + letter))
    assert report.error == f"the result has {len(fits.encode()) + size + 2:,} bytes, the limit is 1,048,576"
    assert report.retries == 0


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        return str(self.missing)  # type: ignore[attr-defined]


def recursive(data: Any, context: Context) -> None:
    recursive(data, context)


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (raises(ValueError("no such colour")), "ValueError: no such colour"),
        (raises(KeyError("a")), "KeyError: 'a'"),
        (raises(ValueError("\ud800 é \x00")), "ValueError: \\ud800 é \x00"),
        (
            raises(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")),
            "UnicodeDecodeError: 'utf-8' codec can't",
        ),
        (
            raises(ExceptionGroup("two", [ValueError(1), TypeError(2)])),
            "ExceptionGroup: two (2 sub-exceptions)",
        ),
        (lambda data, context: sys.exit(3), "SystemExit: 3"),
        (raises(KeyboardInterrupt()), "KeyboardInterrupt: "),
        (raises(GeneratorExit()), "GeneratorExit: "),
        (raises(MemoryError()), "MemoryError: "),
        (raises(StopIteration("over")), "StopIteration: over"),
        (recursive, "RecursionError: maximum recursion depth exceeded"),
        (raises(Mute()), "Mute: "),
        (lambda: None, "TypeError: "),
    ],
    ids=[
        "value",
        "key",
        "surrogate",
        "decode",
        "group",
        "exit",
        "interrupt",
        "generator",
        "memory",
        "stop",
        "recursion",
        "mute",
        "signature",
    ],
)
def test_whatever_a_handler_raises_fails_its_task_and_no_more(
    broker: Broker, handler: Handler, text: str
) -> None:
    report = failure(broker, handler)

    assert report.error.startswith(text)
    assert (report.retries, report.outcome) == (3, "failed")
    [verdict], _ = broker.report_and_claim(NAME, [report], 0)
    assert (verdict.word, verdict.retry) == ("retry", 1)
    stored = broker.get(report.task.id)
    assert stored is not None
    assert stored.history[0].error == report.error


def test_a_permanent_error_is_told_as_it_stands_and_not_tried_again(broker: Broker) -> None:
    report = failure(broker, raises(PermanentError("The picture has no pixels.")))

    assert (report.error, report.retries) == ("The picture has no pixels.", 0)
    [verdict], _ = broker.report_and_claim(NAME, [report], 0)
    assert verdict.word == "failed"


@pytest.mark.parametrize("letter", ["a", "語", "\ud800"])
def test_a_long_error_is_cut(broker: Broker, letter: str) -> None:
    report = failure(broker, raises(PermanentError(letter * 5000)))

    assert report.error == (letter * 1000).encode(errors="backslashreplace").decode()


@pytest.mark.parametrize(
    ("of_task", "of_type", "retries"), [(None, None, 7), (None, 2, 2), (None, 0, 0), (1, 2, 1), (0, 2, 0)]
)
def test_retries_are_those_of_the_task_then_of_its_type_then_of_the_settings(
    make_broker: Callable[..., Broker], of_task: int | None, of_type: int | None, retries: int
) -> None:
    broker = make_broker(max_retries=7)
    task = claim_new(broker, "it", max_retries=of_task)

    report = Worker(broker, NAME, {"it": TaskType("it", raises(OSError()), None, of_type)}).perform(task)

    assert isinstance(report, Failed)
    assert report.retries == retries


@pytest.mark.parametrize(
    "payload",
    [b"1e400", b'"\\ud800"', b"[" * 100_000 + b"]" * 100_000, b"{", b"\xff", b"NaN"],
    ids=["large", "surrogate", "deep", "cut", "bytes", "NaN"],
)
def test_a_payload_that_python_cannot_read_is_a_permanent_failure(broker: Broker, payload: bytes) -> None:
    task = claim_new(broker, "it")
    task.data = msgspec.Raw(payload)

    report = Worker(broker, NAME, {"it": TaskType("it", returns(None))}).perform(task)

    assert isinstance(report, Failed)
    assert report.error.startswith("the payload cannot be read: ")
    assert report.retries == 0


def test_an_unknown_type_is_a_permanent_failure_that_names_the_known(broker: Broker) -> None:
    task = claim_new(broker, "paint")
    types = {name: TaskType(name, returns(None)) for name in ("wash", "dry")}

    report = Worker(broker, NAME, types).perform(task)

    assert isinstance(report, Failed)
    assert (report.error, report.retries) == ("unknown type 'paint'; known are dry, wash", 0)


def test_the_duration_is_the_handlers(broker: Broker) -> None:
    inside: list[float] = []

    def handler(data: Any, context: Context) -> None:
        began = time.monotonic()
        time.sleep(0.05)
        inside.append(time.monotonic() - began)

    before = time.monotonic()
    report = perform(broker, handler)

    assert inside[0] <= report.duration <= time.monotonic() - before
    assert before <= report.ended - report.duration
