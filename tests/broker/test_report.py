"""Reports: what a worker says of an attempt, as the scripts want it."""

import time

import pytest

from dtq.report import Completed, Failed, Verdict


def test_a_completed_attempt_tells_its_age_not_its_time() -> None:
    ended = time.monotonic() - 2
    *rest, age, result = Completed("t", 3, 0.5, ended, b"[]").arguments()
    assert (rest, result) == (["t", 3, 0.5], b"[]")
    assert 2 <= age <= time.monotonic() - ended


def test_a_failed_attempt_tells_its_age_and_leaves_some_of_the_wait_to_chance() -> None:
    ended = time.monotonic() - 2
    failure = Failed("t", 3, 0.5, ended, "timeout", "too long", 7)
    *head, chance, duration, age = failure.arguments(jitter=0.1)
    assert (head, duration) == (["t", 3, "timeout", "too long", 7], 0.5)
    assert 2 <= age <= time.monotonic() - ended
    assert 1 <= chance <= 1.1


@pytest.mark.parametrize("jitter", [0.0, 0.1, 1.0])
def test_chance_stays_within_the_jitter(jitter: float) -> None:
    failure = Failed("t", 1, 0.0, 0.0, "failed", "", 3)
    chances = [failure.arguments(jitter)[5] for _ in range(100)]
    assert 1 <= min(chances) <= max(chances) <= 1 + jitter
    assert len(set(chances)) == (1 if jitter == 0 else 100)


def test_a_verdict_without_a_retry_has_no_wait() -> None:
    assert Verdict("stale") == ("stale", 0, 0.0)
