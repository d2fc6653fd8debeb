"""What a worker holds, step by step; the clock is the test's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from dtq.queue.reports import Completed
from dtq.queue.task import Stored
from dtq.worker import claimed as claimed_module
from dtq.worker.claimed import Claimed
from tests.helpers import Clock

LEASE = 15.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(claimed_module, "time", clock)
    return clock


@pytest.fixture
def hand(clock: Clock) -> Claimed:
    return Claimed(LEASE)


def tasks(names: str) -> list[Stored]:
    return [Stored(id=name, type="noop", attempts=1, data=msgspec.Raw(b"null")) for name in names.split()]


def report_of(task: Stored | None) -> Completed:
    assert task is not None
    return Completed(task, 0.1, 0.0, b"null")


def ids(tasks: list[Stored]) -> str:
    return " ".join(task.id for task in tasks)


def test_an_empty_hand(hand: Claimed) -> None:
    assert (len(hand), hand.start(), hand.current) == (0, None, None)
    assert (hand.reports(), hand.give_back(), hand.held()) == ([], [], [])


def test_tasks_are_started_in_the_order_of_the_claim(hand: Claimed, clock: Clock) -> None:
    a, b = tasks("a b")
    hand.take([a, b], clock.now)
    assert len(hand) == 2

    assert hand.start() is a
    assert (hand.current, len(hand)) == (a, 1)
    hand.end(report_of(a))
    assert hand.current is None
    assert hand.start() is b
    hand.end(report_of(b))
    assert hand.start() is None


def test_a_report_stays_until_it_is_reported(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a b c"), clock.now)
    reports = []
    for _ in range(2):
        reports.append(report_of(hand.start()))
        hand.end(reports[-1])

    assert hand.reports() == reports
    assert hand.reports() == reports, "asking changes nothing"
    hand.start()
    hand.end(third := report_of(tasks("c")[0]))
    hand.reported(2)
    assert hand.reports() == [third], "what came in between is still to be reported"
    hand.reported(1)
    assert (hand.reports(), hand.held()) == ([], [])


def test_a_task_that_was_given_back_while_it_ran_is_not_reported(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a"), clock.now)
    hand.start()
    hand.end(None)

    assert (hand.current, hand.reports(), hand.held()) == (None, [], [])


def test_what_is_held_is_the_unreported_the_current_and_the_unstarted(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a b c d"), clock.now)
    hand.end(report_of(hand.start()))
    hand.start()

    assert ids(hand.held()) == "a b c d"
    hand.end(None)
    assert ids(hand.held()) == "a c d"
    hand.reported(1)
    assert ids(hand.held()) == "c d"


def test_only_the_unstarted_are_given_back(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a b c d"), clock.now)
    hand.end(report_of(hand.start()))
    current = hand.start()

    assert ids(hand.give_back(unstarted=False)) == ""
    assert ids(hand.give_back()) == ids(hand.give_back()) == "c d"
    assert {"c", "d"} <= {task.id for task in hand.held()}, "until the broker has them"
    hand.given_back()
    assert hand.give_back() == []
    assert (len(hand), hand.current, len(hand.reports())) == (0, current, 1)
    hand.end(None)
    assert hand.start() is None


def test_unstarted_tasks_are_dropped_when_their_leases_have_run_out(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a b c"), clock.now)
    first = hand.start()
    clock.now += LEASE
    assert hand.start() is not None, "up to the last moment"
    assert first is not None
    clock.now += 0.001

    assert hand.start() is None
    assert (len(hand), hand.current, hand.held()) == (0, None, [])


def test_what_was_begun_is_reported_even_after_its_lease(hand: Claimed, clock: Clock) -> None:
    """The broker knows whether the task is still this worker's."""
    hand.take(tasks("a"), clock.now)
    report = report_of(hand.start())
    clock.now += 10 * LEASE
    hand.end(report)

    assert hand.start() is None
    assert hand.reports() == [report]


def test_a_lease_runs_from_the_moment_the_claim_was_sent(hand: Claimed, clock: Clock) -> None:
    asked_at = clock.now
    clock.now += 10
    hand.take(tasks("a"), asked_at)
    clock.now += LEASE - 10 + 0.001

    assert hand.start() is None


def test_a_beat_extends_the_leases_from_the_moment_it_was_sent(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a b"), clock.now)
    clock.now += 10
    asked_at = clock.now
    clock.now += 3
    hand.extended(asked_at, set())
    clock.now = asked_at + LEASE
    assert hand.start() is not None
    clock.now += 0.001

    assert hand.start() is None


def test_what_a_beat_finds_lost_is_not_started(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a b c d"), clock.now)
    hand.end(report := report_of(hand.start()))
    current = hand.start()

    hand.extended(clock.now, {"a", "b", "c", "unknown"})

    assert (hand.current, hand.reports()) == (current, [report]), "the broker will refuse what these bring"
    following = hand.start()
    assert following is not None
    assert following.id == "d"


def test_a_new_claim_starts_new_leases(hand: Claimed, clock: Clock) -> None:
    hand.take(tasks("a"), clock.now)
    clock.now += LEASE + 1
    assert hand.start() is None

    hand.take(tasks("b"), clock.now)
    assert hand.taken_at == clock.now
    assert hand.start() is not None


def test_two_threads_never_get_the_same_task() -> None:
    """One starts, ends and reports; the other gives back and looks on."""
    hand, done = Claimed(LEASE), threading.Event()
    given = tasks(" ".join(map(str, range(20_000))))
    hand.take(given, time.monotonic())

    def look_on() -> list[Stored]:
        back: list[Stored] = []
        while not done.is_set():
            held = hand.held()
            assert len({task.id for task in held}) == len(held)
            if len(hand) < 15_000:
                back += hand.give_back()
                hand.given_back()
        return back

    run: list[Stored] = []
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(look_on)
        try:
            while task := hand.start():
                hand.end(report_of(task))
                reports = hand.reports()
                run += [report.task for report in reports]
                hand.reported(len(reports))
        finally:
            done.set()
    back = other.result() + hand.give_back()

    assert ids(run + back) == ids(given)
