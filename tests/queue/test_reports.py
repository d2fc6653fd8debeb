"""Reports, as the scripts want them."""

import pytest

from dtq.queue import reports as report_module
from dtq.queue.reports import Completed, Failed, Verdict, verdict
from tests.helpers import Clock, held


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(report_module, "time", clock)
    return clock


def failed(clock: Clock) -> Failed:
    return Failed(held("t-1", 3), 0.25, clock.now - 2, "timeout", "was not done", 5)


def test_a_result_is_told_with_its_age_and_not_its_time(clock: Clock) -> None:
    arguments = Completed(held("t-1", 3), 0.25, clock.now - 2, b'{"a":[]}').arguments()

    assert arguments == ("t-1", 3, 0.25, 2, b'{"a":[]}')


def test_a_failure_is_told_in_the_order_of_the_script(clock: Clock) -> None:
    arguments = failed(clock).arguments(jitter=0)

    assert arguments == ("t-1", 3, "timeout", "was not done", 5, 1, 0.25, 2)


def test_the_wait_after_a_failure_is_left_to_chance_within_the_jitter(clock: Clock) -> None:
    chances = [failed(clock).arguments(jitter=0.1)[5] for _ in range(1000)]

    assert all(1 <= chance <= 1.1 for chance in chances)
    assert len(set(chances)) > 900, "a herd spreads out"
    assert min(chances) < 1.02 < 1.08 < max(chances)


@pytest.mark.parametrize("jitter", [0.0, 0.1, 1.0])
def test_chance_stays_within_the_jitter(clock: Clock, jitter: float) -> None:
    chances = [failed(clock).arguments(jitter)[5] for _ in range(100)]

    assert 1 <= min(chances) <= max(chances) <= 1 + jitter
    assert len(set(chances)) == (1 if jitter == 0 else 100)


def test_the_age_grows_while_a_report_waits(clock: Clock) -> None:
    report = Completed(held("t-1", 1), 0.25, clock.now, b"null")
    assert report.arguments()[3] == 0

    clock.now += 30
    assert report.arguments()[3] == 30


def test_a_verdict_knows_its_report_and_of_a_retry_its_number_and_its_wait(clock: Clock) -> None:
    report = failed(clock)
    assert verdict(report, [b"stale"]) == Verdict(report, "stale", 0, 0.0)
    assert verdict(report, [b"retry", b"2", b"4.5"]) == Verdict(report, "retry", 2, 4.5)
