"""The queue's depth over time."""

import pandas as pd
import pytest

from dtq.lab.witness.samples import sample
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from tests import steps
from tests.helpers import new_task, wait_until


def test_the_first_and_the_last_moment_of_the_block_are_in_it(broker: Broker) -> None:
    ids = broker.submit([new_task() for _ in range(2)] + [new_task(priority="high")])
    with sample(broker, interval=60) as samples:
        steps.run(broker, ids[2])
        steps.claim_one(broker)

    first, last = samples.frame.iloc[0], samples.frame.iloc[1]
    places = ["pending", "pending_high", "processing", "completed"]
    assert first[places].tolist() == [3, 1, 0, 0]
    assert last[places].tolist() == [1, 0, 1, 1]
    assert len(samples.frame) == 2
    assert (first["time_s"], first["workers"]) == (0, 0)


def test_it_measures_meanwhile(broker: Broker) -> None:
    with sample(broker, interval=0.01) as samples:
        steps.submit(broker)
        wait_until(lambda: samples.frame["pending"].iloc[1:].eq(1).any(), what="the task is seen")

    assert isinstance(samples.frame["at"].dtype, pd.DatetimeTZDtype)
    assert samples.frame["time_s"].is_monotonic_increasing


def test_while_redis_is_away_there_are_no_numbers(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RedisServer(tmp_path_factory.mktemp("away")) as server:
        broker = Broker(server.url)
        with sample(broker, interval=0.01) as samples:
            server.stop()
            wait_until(lambda: samples.frame["pending"].isna().any(), what="a measurement failed")
            server.start()
            broker.redis.ping()
        broker.close()

    gaps = samples.frame["pending"].isna()
    assert not gaps.iloc[0]
    assert not gaps.iloc[-1]
