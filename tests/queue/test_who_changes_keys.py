"""The broker, with its scripts, is the only one that changes the queue's keys. Others read them."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtq import doctor
from dtq.gateway import create_app
from dtq.lab.witness.audits import audit
from dtq.lab.witness.monitor import monitor
from dtq.lab.witness.samples import sample
from dtq.observe import metrics
from dtq.queue.broker import Broker
from tests import steps
from tests.helpers import ROOT

# What else in dtq writes into Redis, each to keys of its own: API keys, a ledger, the naive queue.
OWN_KEYS = {"gateway/access.py", "lab/witness/ledger.py", "lab/cluster/naive.py"}
CLIENTS = ("redis", "once", "client", "pipe")


def writes(broker: Broker) -> set[str]:
    """The commands that change keys, as the server itself has it."""
    return {name.upper() for name, about in broker.redis.command().items() if "write" in about["flags"]}


def changed(broker: Broker, action: Callable[[], Any]) -> list[str]:
    """The writing commands that an action leads to, from clients and inside of scripts."""
    with monitor(broker) as commands:
        action()
    return [command for command in commands.frame["command"] if command in writes(broker)]


def read_everything(broker: Broker) -> None:
    """As metrics, doctor, audits, samples and a gateway do that is asked."""
    metrics.exposition(broker)
    metrics.stats(broker)
    audit(["unknown"], broker)
    with sample(broker) as samples:
        samples.take()
    settings = broker.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{port(broker)}/0"})
    assert len(list(doctor.examine(settings))) > 10
    web = create_app(broker).test_client()
    for path in ("/tasks", "/workers", "/health", "/stats", "/metrics", "/dead-letter", "/tasks/unknown"):
        web.get(path)


def port(broker: Broker) -> int:
    return int(broker.redis.connection_pool.connection_kwargs["port"])


def test_reading_changes_nothing(broker: Broker) -> None:
    steps.bury(broker)
    steps.run(broker, steps.submit(broker))
    steps.submit(broker)
    before = steps.snapshot(broker)
    assert changed(broker, lambda: read_everything(broker)) == []
    assert steps.snapshot(broker) == before


def test_a_change_is_seen(broker: Broker) -> None:
    assert "LPUSH" in changed(broker, lambda: steps.submit(broker))


def written(path: Path, commands: set[str]) -> list[str]:
    """The writing commands that a file's code sends by itself."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    methods = [call for call in calls if isinstance(call, ast.Attribute) and call.attr.upper() in commands]
    return [call.attr for call in methods if ast.unparse(call.value).split(".")[-1].strip("_") in CLIENTS]


def test_no_other_module_writes(broker: Broker) -> None:
    commands, dtq = writes(broker), ROOT / "dtq"
    others = [path for path in dtq.rglob("*.py") if dtq / "queue" not in path.parents]
    assert {str(path.relative_to(dtq)) for path in others if written(path, commands)} == OWN_KEYS


@pytest.mark.parametrize(
    ("code", "found"), [("self.redis.lpush(k.pending, 1)", ["lpush"]), ("ended.set()", [])]
)
def test_the_search_finds_writes(tmp_path: Path, broker: Broker, code: str, found: list[str]) -> None:
    (tmp_path / "a.py").write_text(code)
    assert written(tmp_path / "a.py", writes(broker)) == found
