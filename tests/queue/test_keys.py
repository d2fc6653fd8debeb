"""The keys: their names are what a learner types into redis-cli."""

import inspect
import re
from collections.abc import Callable

import pytest

import dtq.queue.keys
from dtq.gateway import create_app
from dtq.gateway.access import ApiKeys, Scope, Sessions
from dtq.queue.broker import Broker
from dtq.queue.keys import Keys
from dtq.queue.worker_info import WorkerInfo
from tests.helpers import new_task
from tests.steps import bury, claim, claim_one, complete, fail, submit

NAMES = {
    "pending": "tasks:pending",
    "pending_high": "tasks:pending:high",
    "processing": "tasks:processing",
    "delayed": "tasks:delayed",
    "waiting": "tasks:waiting",
    "finished": "tasks:finished",
    "dead_letter": "tasks:dead_letter",
    "completed": "tasks:completed",
    "high_streak": "tasks:high_streak",
    "wake": "tasks:wake",
    "new": "tasks:new",
    "maintained": "tasks:maintained",
    "workers": "workers:active",
    "task_times": "metrics:task_times",
    "counters": "metrics:counters",
    "access_keys": "access:keys",
    "rate": "access:rate:",
    "session": "access:session:",
    "task": "task:",
    "dependencies": "dependencies:",
    "dependents": "dependents:",
    "worker": "worker:",
}
TYPES = {
    name: kind
    for name, kind in re.findall(
        r'self\.(\w+) = prefix \+ "\S+"  # (?:\* )?([\w/]+)', inspect.getsource(dtq.queue.keys)
    )
    if kind != "Pub/Sub"  # a channel, which holds nothing
}


def test_names_are_fixed() -> None:
    assert vars(Keys()).items() >= NAMES.items()
    assert len(set(vars(Keys()).values())) == len(vars(Keys()))


def test_each_key_has_its_type_beside_it() -> None:
    assert vars(Keys()).keys() - TYPES.keys() == {"new"}


@pytest.mark.parametrize("prefix", ["{team-a}:", "x."])
def test_a_prefix_goes_before_every_key(prefix: str) -> None:
    assert vars(Keys(prefix)) == {name: prefix + key for name, key in vars(Keys()).items()}


def test_lua_gets_the_same_names(redis_url: str, make_broker: Callable[..., Broker]) -> None:
    keys = Keys("{q}:")
    pairs = make_broker().redis.eval(
        keys.lua_table() + "local t = {} for k, v in pairs(K) do t[#t + 1] = k t[#t + 1] = v end return t", 0
    )
    words = [word.decode() for word in pairs]
    assert dict(zip(words[::2], words[1::2], strict=True)) == vars(keys)


def test_a_busy_queue_has_exactly_the_keys_that_are_listed_with_their_types(
    broker: Broker, make_broker: Callable[..., Broker]
) -> None:
    """One of everything, then each key on the server is accounted for."""
    submit(broker, "rare")
    assert broker.report_and_claim("ann", [], 1, ["noop"]) == ([], [])  # parks it
    bury(broker)
    submit(broker)
    complete(broker, claim_one(broker))
    parent = submit(broker)
    submit(broker, depends_on=[parent])
    submit(broker)
    submit(broker)
    broker.submit([new_task(priority="high") for _ in range(3)])
    fail(broker, claim(broker, n=2)[0])
    broker.heartbeat(WorkerInfo(id="ann", status="idle", types=["noop"]))
    broker.redis.set(broker.keys.task + submit(broker), "no document")
    broker.redis.set(broker.keys.maintained, 1)  # as if Redis had been away since 1970
    broker.maintain()
    broker.redis.sadd(broker.keys.unsettled, parent)  # as if it had too many children for one script
    key, _ = ApiKeys(broker).create("ann", Scope.READ)
    Sessions(broker).open(key)
    create_app(make_broker(rate_limit="1/day")).test_client().get("/tasks")

    keys, found = broker.keys, {}
    for raw in broker.redis.scan_iter(match=broker.settings.key_prefix + "*", count=1000):
        key = raw.decode()
        name = next(name for name, known in vars(keys).items() if key == known or _is_one_of(key, known))
        found[name] = broker.redis.type(raw).decode()
    assert found == TYPES


def _is_one_of(key: str, family: str) -> bool:
    return family.endswith(":") and key.startswith(family)
