"""A worker process from the claim to the stored result, and what a learner reads in its log."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from dtq.queue.broker import Broker
from dtq.queue.task import Status
from tests.helpers import ended, new_task, wait_until
from tests.worker.conftest import Gate, Started, shows

StartWorker = Callable[..., Started]


BUILT_IN: list[tuple[str, Any, Any]] = [
    ("process", {"text": "grün"}, {"processed": {"text": "grün"}}),
    ("process", None, {"processed": None}),
    ("calculate", {"operation": "sum", "numbers": [1, 2, 3.5]}, 6.5),
    ("calculate", {"operation": "product", "numbers": [2, 3, 7]}, 42),
    ("calculate", {"operation": "mean", "numbers": [1, 2]}, 1.5),
    ("calculate", {"operation": "min", "numbers": [3, -2]}, -2),
    ("calculate", {"operation": "max", "numbers": [3, -2]}, 3),
    ("calculate", {"numbers": [1, 2]}, 3),
    ("calculate", [1, 2, 2**70], 3 + 2**70),
    ("sleep", 0.01, 0.01),
    ("sleep", {"seconds": 0}, 0),
    ("flaky", {"failures": 0}, "worked at attempt 1"),
    ("crash", {"times": 0}, "survived attempt 1"),
    ("noop", {"ignored": []}, None),
]


def test_every_built_in_type_runs_and_leaves_result_duration_and_worker(
    broker: Broker, start_worker: StartWorker
) -> None:
    tasks = [new_task(type, data) for type, data, _ in BUILT_IN] + [new_task("cpu", 0.01)]
    broker.submit(tasks)
    start_worker(broker, "worker-7")

    done = [ended(broker, task.id) for task in tasks]

    assert [task.status for task in done] == ["completed"] * len(tasks)
    results = [msgspec.json.decode(task.result) for task in done]
    assert results[:-1] == [result for _, _, result in BUILT_IN]
    assert results[-1] > 0
    assert {task.worker_id for task in done} == {"worker-7"}
    for task in done:
        assert task.duration is not None
        assert task.started_at is not None
        assert task.completed_at is not None
        assert task.completed_at - task.started_at >= timedelta(seconds=task.duration - 0.001)
    assert all(task.duration >= 0.01 for task in done if bytes(task.data) == b"0.01" and task.duration)


def test_the_log_tells_the_story_of_each_task(
    make_broker: Callable[..., Broker], start_worker: StartWorker
) -> None:
    broker = make_broker(backoff_base=1.5, backoff_jitter=0)
    good, bad, hopeless = new_task("sleep", 0.01), new_task("fail"), new_task("fail", {"permanent": True})
    broker.submit([good, bad, hopeless])
    worker = start_worker(broker)
    ended(broker, hopeless.id)
    worker.says(f"task {hopeless.id} failed")

    said = [line.split(" ", 1)[1] for line in worker.log().splitlines()]
    story = {task.id: [line for line in said if task.id in line] for task in (good, bad, hopeless)}
    known = "calculate, cpu, crash, deaf, fail, flaky, fork, gate, hold, loop, noop, numb, process, sleep"
    known += ", terminate"
    assert said[0] == f"worker-1 INFO ready, knows {known}"
    assert story[good.id][0] == f"worker-1 INFO task {good.id} (sleep) claimed, attempt 1"
    assert re.fullmatch(rf"worker-1 INFO task {good.id} completed in \d+\.\d\d s", story[good.id][1])
    assert story[bad.id] == [
        f"worker-1 INFO task {bad.id} (fail) claimed, attempt 1",
        f"worker-1 WARNING task {bad.id} failed (RuntimeError: failed, as asked), retry 1 in 1.5 s",
    ]
    assert story[hopeless.id] == [
        f"worker-1 INFO task {hopeless.id} (fail) claimed, attempt 1",
        f"worker-1 WARNING task {hopeless.id} failed (failed for good, as asked), to the dead letter",
    ]
    dead = broker.get(hopeless.id)
    assert dead is not None
    assert (dead.status, dead.attempts, dead.retry_count) == ("failed", 1, 0)


def test_a_task_of_an_unknown_type_waits_for_a_worker_that_knows_it(
    broker: Broker, start_worker: StartWorker
) -> None:
    painting, known = new_task("paint"), new_task("noop")
    broker.submit([painting, known])
    start_worker(broker)
    assert ended(broker, known.id).status == "completed"
    assert (broker.counts()["parked"], broker.counts()["dead_letter"]) == (1, 0)

    [task] = broker.report_and_claim("painter", [], 1, ["paint"])[1]
    assert (task.id, task.attempts) == (painting.id, 1)


def test_a_flaky_task_works_in_the_end(make_broker: Callable[..., Broker], start_worker: StartWorker) -> None:
    broker = make_broker(backoff_base=0.01, backoff_cap=0.02)
    task = new_task("flaky", {"failures": 2})
    broker.submit([task])
    start_worker(broker)

    done = ended(broker, task.id)

    assert (done.status, done.attempts, done.retry_count) == ("completed", 3, 2)
    assert bytes(done.result) == b'"worked at attempt 3"'
    assert [attempt.outcome for attempt in done.history] == ["failed"] * 2


def test_a_time_limit_is_raised_in_the_handler_and_the_next_task_runs(
    make_broker: Callable[..., Broker], start_worker: StartWorker
) -> None:
    broker = make_broker(task_timeout=0.15, max_retries=0)
    limits = {
        "0.1": new_task("sleep", 600, timeout=0.1),
        "0.2": new_task("loop"),
        "0.15": new_task("sleep", 600),
    }
    next_one = new_task()
    broker.submit([*limits.values(), next_one])
    worker = start_worker(broker)

    assert ended(broker, next_one.id).status == Status.COMPLETED
    for limit, task in limits.items():  # the task's own, its type's, the settings'
        dead = ended(broker, task.id)
        assert (dead.status, dead.error) == ("failed", f"was not done within its {limit} s")
        assert [attempt.outcome for attempt in dead.history] == ["timeout"]
        worker.says(f"task {task.id} failed (was not done within its {limit} s), to the dead letter")


def test_a_handler_that_ignores_its_limit_ends_its_worker(
    make_broker: Callable[..., Broker], start_worker: StartWorker
) -> None:
    broker = make_broker(heartbeat=0.1, lease=3)
    deaf, neighbour = new_task("deaf"), new_task()
    broker.submit([deaf, neighbour])
    worker = start_worker(broker, patch="from dtq.worker import interrupts; interrupts.LAST_WORDS = 0.2")

    assert worker.exit_code() == 70
    log = worker.log()
    assert "a handler does not return after its time limit: this worker ends itself" in log
    assert re.search(r'worker_types\.py", line \d+, in deaf', log), "the log shows where it hangs"
    wait_until(lambda: broker.maintain().recovered, what="its task is given to others")
    lost = broker.get(deaf.id)
    assert lost is not None
    assert (lost.status, lost.crashes, lost.history[0].outcome) == ("pending", 1, "worker lost")


def test_a_worker_shows_what_it_does(
    make_broker: Callable[..., Broker], start_worker: StartWorker, gate: Gate
) -> None:
    broker = make_broker(heartbeat=0.1, lease=5)
    worker = start_worker(broker)
    task = new_task("gate", str(gate.folder))

    def shown(**fields: Any) -> None:
        wait_until(lambda: shows(broker, id=worker.name, pid=worker.pid, **fields), what=f"it shows {fields}")

    shown(status="idle", current_task=None, tasks_processed=0)
    broker.submit([task])
    shown(status="busy", current_task=task.id, tasks_processed=0)
    gate.open()
    shown(status="idle", current_task=None, tasks_processed=1)
