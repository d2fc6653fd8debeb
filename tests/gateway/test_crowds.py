"""A parent of a crowd ends: what the gateway asks of Redis meanwhile costs no more than before."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from flask.testing import FlaskClient

from dtq.config import Settings
from dtq.queue.bounds import SAMPLE, WORK
from dtq.queue.broker import Broker
from dtq.queue.maintenance import INTERVAL
from dtq.redis_server import RedisServer
from tests.helpers import new_task
from tests.steps import run

CROWD = 6 * WORK
SILENCE = 3600.0  # seconds; so that no call of `maintain` takes Redis for one that was away
DASHBOARD = ("/health", "/workers", "/stats?window=10", "/tasks?limit=50", "/tasks?status=failed&limit=50")
NOT_COUNTED = ("config", "info", "client", "hello", "select")


@pytest.fixture
def own_broker(own_redis: RedisServer) -> Iterator[Broker]:
    with closing(Broker(own_redis.url, Settings(_env_file=None))) as broker:
        yield broker


def cost(broker: Broker, action: Callable[[], object]) -> int:
    """How many commands Redis does meanwhile, those inside scripts too."""
    broker.redis.execute_command("CONFIG", "RESETSTAT")
    action()
    used = {
        name.removeprefix("cmdstat_"): told["calls"]
        for name, told in broker.redis.info("commandstats").items()
    }
    return sum(calls for name, calls in used.items() if name.partition("|")[0] not in NOT_COUNTED)


def tell(broker: Broker) -> None:
    """One script of maintenance."""
    broker.redis.delete(broker.keys.maintained)
    broker.scripts.run("maintain", INTERVAL, SILENCE, SAMPLE)


@pytest.mark.parametrize("word", ["completed", "cancelled"])
def test_no_script_and_no_call_costs_more_because_of_a_crowd(
    own_http: FlaskClient, own_broker: Broker, word: str
) -> None:
    def look() -> None:
        assert [own_http.get(path).status_code for path in DASHBOARD] == [200] * len(DASHBOARD)

    own_broker.submit([new_task(id="parent")])
    for _ in range(0, CROWD, WORK):
        own_broker.submit([new_task(depends_on=["parent"]) for _ in range(WORK)])
    usual = cost(own_broker, look)
    end = (lambda: run(own_broker, "parent")) if word == "completed" else lambda: own_broker.cancel("parent")
    scripts, looks = [cost(own_broker, end)], list[int]()
    while own_broker.counts()["waiting"]:
        scripts.append(cost(own_broker, lambda: tell(own_broker)))
        looks.append(cost(own_broker, look))
        assert len(looks) < CROWD
    assert len(looks) > 3, "it takes several scripts"
    assert max(scripts) < 20 * WORK
    assert max(looks) < usual + 10
