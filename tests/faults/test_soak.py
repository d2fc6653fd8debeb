"""`scripts/soak.py`, which hits a system with all faults at once: a minute of it, and what it uses."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from dtq.config import Settings
from dtq.connection import connect
from dtq.queue.broker import Broker
from dtq.redis_server import RedisServer
from scripts.soaking import audit, plan
from scripts.soaking.command import WORKERS, main
from scripts.soaking.ledger import Ledger
from scripts.soaking.proxy import Proxy
from scripts.soaking.system import SERVER
from tests import steps
from tests.helpers import PATIENCE, ROOT, alive, family, new_task, wait_until


@pytest.mark.timeout(300)
def test_a_minute_of_faults_loses_nothing_and_stores_nothing_twice() -> None:
    command = [sys.executable, "scripts/soak.py", "--minutes", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    figures = {name: int(number) for name, number in re.findall(r"^  (.+?) +(\d+)$", done.stdout, re.M)}
    assert figures["faults"] > 15
    assert figures["tasks completed"] > 0
    assert (figures["lost"], figures["stored twice"]) == (0, 0)


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    log = tmp_path / "soak.log"
    command = [sys.executable, "scripts/soak.py", "--minutes", "10", "--log", str(log)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as soak:
        try:
            wait_until(lambda: log.exists() and "over" in log.read_text(), "there was a fault")
            everybody = family(soak.pid)
            soak.send_signal(signal.SIGINT)
            said = soak.communicate(timeout=PATIENCE)[0].decode()
        finally:
            soak.kill()
    assert (soak.returncode, said.splitlines()[1:]) == (1, ["", "Aborted!"])
    assert len(everybody) > WORKERS
    wait_until(lambda: not any(map(alive, everybody)), "all that it started has ended")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    done = CliRunner().invoke(main, ["--keep", str(tmp_path)])
    assert done.exit_code == 2
    assert "holds something already" in done.output


@pytest.mark.parametrize("lane", plan.LANES)
def test_a_seed_repeats_its_plan(lane: str) -> None:
    def begin(seed: int) -> list[tuple[float, str, float, float]]:
        return [(*fault[:3], fault.chance.random()) for fault in islice(plan.faults(seed, lane), 100)]

    assert begin(7) == begin(7)
    assert begin(7) != begin(8)
    assert {kind for _, kind, _, _ in begin(7)} == plan.LANES[lane].keys()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", 0, "always", options=SERVER) as server:
        yield server


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    with closing(Broker(server.url, Settings(_env_file=None))) as broker:
        yield broker


def lives(server: RedisServer, broker: Broker) -> audit.Lives:
    return audit.Lives(server.directory, broker.keys.task)


def test_the_audit_finds_what_is_lost(server: RedisServer, broker: Broker) -> None:
    completed, cancelled, pending = (steps.submit(broker) for _ in range(3))
    steps.run(broker, completed)
    broker.redis.delete(broker.keys.task + completed)  # as if it had expired
    broker.cancel(cancelled)
    acknowledged = {completed, cancelled, pending, "never stored"}
    assert audit.lost(acknowledged, lives(server, broker), []) == sorted([pending, "never stored"])


def test_a_dead_task_is_lost_only_where_no_human_finds_it(server: RedisServer, broker: Broker) -> None:
    dead = steps.bury(broker)
    assert audit.lost({dead}, lives(server, broker), [dead]) == []
    assert audit.lost({dead}, lives(server, broker), []) == [dead]


def test_the_audit_finds_a_result_that_was_stored_over_another(server: RedisServer, broker: Broker) -> None:
    task_id = steps.submit(broker)
    steps.run(broker, task_id)
    assert lives(server, broker).stored_twice == []
    redis_: Any = broker.redis
    redis_.set(broker.keys.task + task_id, redis_.get(broker.keys.task + task_id))
    assert lives(server, broker).stored_twice == [task_id]


def test_an_id_may_have_a_result_in_each_life(server: RedisServer, broker: Broker) -> None:
    task = new_task()
    for _ in range(2):
        broker.submit([task])
        steps.run(broker, task.id)
        broker.redis.delete(broker.keys.task + task.id)  # as if it had expired
    found = lives(server, broker)
    assert (found.completed, found.stored_twice) == (2, [])


def test_the_audit_compares_the_figures(server: RedisServer, broker: Broker) -> None:
    steps.run(broker, steps.submit(broker))
    assert list(audit.untrue(broker, Ledger(), lives(server, broker))) == []
    steps.submit(broker)
    broker.redis.delete(broker.keys.completed)
    assert list(audit.untrue(broker, Ledger(), lives(server, broker))) == [
        "1 tasks are pending",
        "0 tasks are counted as completed, not 1",
    ]


def test_the_proxy_cuts_a_reply_after_redis_has_obeyed(server: RedisServer, broker: Broker) -> None:
    with Proxy(server.port) as proxy:
        client: Any = connect(f"redis://127.0.0.1:{proxy.port}/0", broker.settings, retries=0)
        client.incr("number")
        proxy.cut(1)
        with pytest.raises(redis.ConnectionError):
            client.incr("number")
        assert broker.redis.get("number") == b"2"
        assert client.incr("number") == 3
        client.close()
