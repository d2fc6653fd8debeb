"""Tasks as frames: a row per attempt, a row per task, times in seconds."""

import pandas as pd

from dtq.lab.witness import frames
from dtq.queue.task import Attempt, Status
from tests.lab.tasks import at, done, made

LOST = Attempt(attempt=1, worker="worker-2", started_at=at(1), ended_at=at(3), outcome="worker lost")
RECOVERED = done("b", 0.5, 3.5, 4, attempts=2, crashes=1, history=[LOST])


def test_an_attempt_that_ended_badly_and_the_one_after_it_are_a_row_each() -> None:
    frame = frames.attempts([done("a", 0, 0.25, 1), RECOVERED])

    assert list(frame["task_id"]) == ["a", "b", "b"]
    assert list(frame["number"]) == [1, 2, 2]
    assert list(frame["attempt"]) == [1, 1, 2]
    assert list(frame["worker"]) == ["worker-1", "worker-2", "worker-1"]
    assert list(frame["outcome"]) == ["completed", "worker lost", "completed"]
    assert list(frame["start_s"]) == [0.25, 1, 3.5], "from the first submission"
    assert list(frame["end_s"]) == [1, 3, 4]
    assert list(frame["run_s"]) == [0.75, 2, 0.5]
    assert list(frame["wait_s"]) == [0.25, 0.5, 0.5], "from the submission, or the end of the attempt before"


def test_what_still_runs_has_no_end_and_what_never_started_no_row() -> None:
    running = {"status": Status.PROCESSING, "attempts": 1, "worker_id": "worker-1", "started_at": at(2)}
    frame = frames.attempts([made("a", 0, **running), made("b", 0)])

    assert list(frame["outcome"]) == ["processing"]
    assert frame["end_s"].isna().all()
    assert frame["run_s"].isna().all()


def test_numbers_follow_submission_and_the_given_order_where_a_moment_is_shared() -> None:
    frame = frames.attempts([done("x", 1, 5, 6), done("z", 0, 4, 5), done("y", 0, 3, 4)])

    assert dict(zip(frame["task_id"], frame["number"], strict=True)) == {"y": 2, "z": 1, "x": 3}
    assert list(frame["task_id"]) == ["y", "z", "x"], "rows are in the order of start"


def test_a_row_per_task() -> None:
    frame = frames.tasks([done("a", 0, 0.25, 1), RECOVERED, made("c", 1)])

    assert list(frame["task_id"]) == ["a", "b", "c"]
    assert list(frame["status"]) == ["completed", "completed", "pending"]
    assert list(frame["crashes"]) == [0, 1, 0]
    assert frame["wait_s"].tolist()[:2] == [0.25, 0.5], "to the first start"
    assert frame["latency_s"].tolist()[:2] == [1, 3.5]
    assert frame["run_s"].tolist()[:2] == [0.75, 0.5], "in the handler, of the last attempt"
    assert frame.loc[2, ["wait_s", "latency_s", "run_s"]].isna().all()


def test_no_tasks_make_empty_frames_of_the_same_kind() -> None:
    for make in (frames.attempts, frames.tasks):
        empty, full = make([]), make([done("a", 0, 0, 1)])
        assert len(empty) == 0
        assert list(empty.columns) == list(full.columns)
        times = [name for name in full if isinstance(full[name].dtype, pd.DatetimeTZDtype)]
        assert times
        assert all(isinstance(empty[name].dtype, pd.DatetimeTZDtype) for name in times)
