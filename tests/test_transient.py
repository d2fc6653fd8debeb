"""Failures of Redis: which of them pass, how long to wait, and what is said of them."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
from redis.sentinel import MasterNotFoundError

from dtq.transient import Outage, is_transient

AWAY = redis.ConnectionError("nobody is there")


@pytest.fixture
def outage(caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.DEBUG)
    return Outage(logging.getLogger("test"), cap=1.0)


def test_the_change_is_said_and_not_each_failure(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.over()
    for _ in range(3):
        outage.failed(AWAY)
    outage.over()
    outage.over()
    outage.failed(AWAY)

    assert caplog.messages == [
        "Redis is away, trying again until it is back (nobody is there)",
        "Redis is back after 3 tries",
        "Redis is away, trying again until it is back (nobody is there)",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_waits_double_up_to_the_cap(outage: Outage) -> None:
    waits = [outage.failed(AWAY) for _ in range(8)]

    assert waits == pytest.approx([0.04, 0.08, 0.16, 0.32, 0.64, 1, 1, 1])


def test_a_success_makes_the_waits_short_again(outage: Outage) -> None:
    first = outage.failed(AWAY)
    for _ in range(8):
        outage.failed(AWAY)
    outage.over()

    assert outage.failed(AWAY) == first


def test_an_outage_may_last_for_days(outage: Outage) -> None:
    assert [outage.failed(AWAY) for _ in range(100_000)][-1] == 1.0


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("Connection closed by server."),
        redis.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.TimeoutError("Timeout reading from socket"),
        ReadOnlyError("You can't write against a read only replica."),
        MasterDownError("Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        ClusterDownError("The cluster is down"),
        TryAgainError("Multiple keys request during rehashing of slot"),
        MasterNotFoundError("No master found for 'dtq'"),
        redis.ResponseError("BUSY Redis is busy running a script."),
        redis.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        redis.ResponseError("Error running script: @user_script:12: -NOREPLICAS Not enough good replicas"),
        redis.ResponseError("Error running script: @user_script:12: -READONLY You can't write against a"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:42]}",
)
def test_what_passes_is_waited_for(outage: Outage, error: redis.RedisError) -> None:
    assert outage.failed(error) > 0


def test_what_somebody_has_to_mend_is_waited_for_too(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    error = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert not is_transient(error)
    assert outage.failed(error) > 0
    assert caplog.messages == [f"Redis refuses this, trying again until it is back ({error})"]


def test_two_threads_say_it_once(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(4) as pool:
        waits = list(pool.map(lambda _: outage.failed(AWAY), range(400)))
    outage.over()

    assert len(waits) == 400
    assert caplog.messages[1:] == ["Redis is back after 400 tries"]
