"""`dtq doctor`, on servers and queues that are well, and on those to which something was done."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from dtq.config import Settings
from dtq.doctor import Finding, State, examine, look, queue, server
from dtq.doctor.probe import Probe
from dtq.lab import LocalCluster
from dtq.queue.broker import Broker
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer, free_port
from tests.commands import run as run_dtq
from tests.commands import said, started, system
from tests.helpers import wait_until
from tests.steps import bury, bury_next, claim_one, end_leases, make_due, now, run, submit

NAMES = ["redis", "version", "role", "persistence", "eviction", "memory", "clock"]
NAMES += ["settings", "workers", "leases", "pending", "types", "places", "waiting", "dead letter"]
NAMES += ["unreadable", "gateway"]
Look = Callable[..., Finding]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without the queues of other tests: where it holds much, the doctor looks at a sample alone."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running.url


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Any]:
    """A client of a server to which anything may be done."""
    with RedisServer(tmp_path / "redis") as running, closing(redis.Redis.from_url(running.url)) as client:
        yield client


def url_of(client: Any, user: str = "") -> str:
    return f"redis://{user}127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"


def ask(url: str, check: Any, **settings: Any) -> Finding:
    """What a check says about a server."""
    with closing(Probe(url, Settings(_env_file=None, **settings))) as probe:
        return look(check, probe)


@pytest.fixture
def say(redis_url: str, broker: Broker) -> Look:
    """What a check says about this test's queue."""

    def say(check: Any, **settings: Any) -> Finding:
        return ask(redis_url, check, key_prefix=broker.settings.key_prefix, **settings)

    return say


# ---------------------------------------------------------------- the server


@pytest.mark.parametrize("check", server.CHECKS, ids=lambda check: check.__name__)
def test_our_own_server_is_well(own: Any, check: Any) -> None:
    found = ask(url_of(own), check)
    assert (found.name, found.state, found.advice) == (check.__name__, "ok", "")
    assert found.seen.endswith(".")


@pytest.mark.parametrize(
    ("options", "check", "state", "words"),
    [
        ({"appendonly": "no"}, server.persistence, "fail", "writes nothing to disk"),
        ({"appendonly": "no", "save": "900 1"}, server.persistence, "warn", "Snapshots only (save 900 1)"),
        ({"appendfsync": "no"}, server.persistence, "warn", "half a minute"),
        ({"appendfsync": "always"}, server.persistence, "ok", "always, and nothing is lost"),
        ({"appendfsync": "everysec"}, server.persistence, "ok", "may cost the last second"),
        (
            {"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"},
            server.eviction,
            "fail",
            "waiting tasks too",
        ),
        (
            {"maxmemory": "1gb", "maxmemory-policy": "volatile-ttl"},
            server.eviction,
            "fail",
            "results, before",
        ),
        ({"maxmemory-policy": "allkeys-lru"}, server.eviction, "warn", "as soon as it gets a memory limit"),
        ({"maxmemory": "1gb", "maxmemory-policy": "noeviction"}, server.eviction, "ok", "refuses new tasks"),
        ({"maxmemory": "1gb"}, server.memory, "ok", "of 1,073.7 MB used (0%)"),
    ],
)
def test_settings_of_the_server(
    own: Any, options: dict[str, str], check: Any, state: str, words: str
) -> None:
    for name, value in options.items():
        own.config_set(name, value)
    found = ask(url_of(own), check)
    assert (found.state, bool(found.advice)) == (state, state != "ok")
    assert words in found.seen


@pytest.mark.parametrize(("share", "state"), [(0.6, "ok"), (0.88, "warn"), (0.99, "fail")])
def test_a_server_that_fills_up(own: Any, share: float, state: str) -> None:
    own.setrange("ballast", 20_000_000, b"x")  # beside it, what a connection takes does not count
    own.config_set("maxmemory", int(own.info("memory")["used_memory"] / share))
    assert ask(url_of(own), server.memory).state == state


def test_what_was_evicted_is_counted(own: Any) -> None:
    own.config_set("maxmemory-policy", "allkeys-lru")
    for n in range(20):
        own.set(f"ballast-{n}", b"x" * 1_000_000)
    own.config_set("maxmemory", int(own.info("memory")["used_memory"]) - 5_000_000)
    own.set("one more", 1)
    evicted = own.info("stats")["evicted_keys"]
    told = re.search(r"; (\d+) keys so far\.$", ask(url_of(own), server.eviction).seen)
    assert told
    assert 0 < evicted <= int(told[1])  # the question may have cost another one


def test_a_disk_that_cannot_be_written(own: Any, tmp_path: Path) -> None:
    (tmp_path / "redis" / "dump.rdb").mkdir()  # takes the place of the file
    own.bgsave()
    wait_until(lambda: own.info("persistence")["rdb_last_bgsave_status"] == "err")
    found = ask(url_of(own), server.persistence)
    assert (found.state, found.advice) == ("fail", "Is the disk full? Read its log.")
    assert "rdb_last_bgsave_status" in found.seen


def test_a_replica_takes_no_tasks(own: Any, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "replica") as other, closing(redis.Redis.from_url(other.url)) as client:
        client.replicaof("127.0.0.1", own.connection_pool.connection_kwargs["port"])
        found = ask(other.url, server.role)
    assert (found.state, found.seen) == ("fail", "It is a replica, which refuses every write.")


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        ({"redis_version": "4.0.14"}, "fail", "Redis 4.0.14 is too old."),
        ({"redis_version": "5.0.0"}, "warn", "tasks cannot even be finished"),
        ({"redis_version": "6.2.14"}, "warn", "Redis 6.2.14: when its memory is full"),
        ({"redis_version": "7.0.0"}, "ok", "Redis 7.0.0."),
        ({"redis_version": "10.0.1"}, "ok", "Redis 10.0.1."),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, "ok", "Valkey 7.2.5."),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0-rc1"}, "ok", "Valkey 9.1.0-rc1."),
    ],
)
def test_versions(redis_url: str, told: dict[str, str], state: str, words: str) -> None:
    with closing(Probe(redis_url, Settings(_env_file=None))) as probe:
        probe.info = told
        found = look(server.version, probe)
    assert found.state == state
    assert words in found.seen


@pytest.mark.parametrize(("wrong", "side"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_clocks_that_differ(redis_url: str, monkeypatch: pytest.MonkeyPatch, wrong: float, side: str) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + wrong)
    found = ask(redis_url, server.clock)
    assert found.state == "warn"
    assert f"{side} Redis" in found.seen
    assert "all deadlines are on Redis's clock" in found.seen
    assert "NTP" in found.advice


# ---------------------------------------------------------------- servers that tell little, or nothing


@pytest.fixture
def limited(own: Any) -> Callable[..., str]:
    """Makes addresses of the server for a user who may not do all."""

    def limited(*rules: str) -> str:
        own.execute_command("ACL", "SETUSER", "guest", "on", ">word", "~*", "&*", "+@all", *rules)
        return url_of(own, "guest:word@")

    return limited


def test_a_managed_server_hides_its_settings(own: Any, limited: Callable[..., str]) -> None:
    url = limited("-config")
    assert ask(url, server.persistence) == Finding(
        name="persistence", state=State.OK, seen="Append-only file."
    )
    own.config_set("appendonly", "no")
    assert ask(url, server.persistence).state == "unknown"
    others = [ask(url, check).state for check in server.CHECKS if check is not server.persistence]
    assert set(others) == {"ok"}


def test_what_is_refused_stays_unknown(limited: Callable[..., str]) -> None:
    url = limited("-info", "-@sortedset")
    for check in (server.version, server.memory, queue.leases, queue.waiting):
        found = ask(url, check)
        assert (found.name, found.state) == (check.__name__, "unknown")
        assert "Redis gives no answer" in found.seen
        assert "allow dtq's user the command" in found.advice
        assert "word" not in found.seen
    assert ask(url, queue.dead_letter).state == "unknown"


def test_a_wrong_password_is_said_and_not_shown(own: Any) -> None:
    own.config_set("requirepass", "right")
    for user in ("", ":wrong@", "somebody:wrong@"):
        settings = Settings(_env_file=None, redis_url=url_of(own, user))
        [found] = examine(settings)
        assert (found.name, found.state) == ("redis", "fail")
        assert "lets nobody in without the right password" in found.seen
        assert "wrong" not in found.seen + found.advice


def test_a_server_that_does_not_answer() -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = Settings(_env_file=None, redis_url=f"redis://:hush@{address}")
    [found] = examine(settings)
    assert (found.name, found.state) == ("redis", "fail")
    assert found.seen.startswith(f"{address} does not answer")
    assert "hush" not in found.seen


def test_no_server_at_all(tmp_path: Path) -> None:
    [found] = examine(Settings(_env_file=None, home=tmp_path))
    assert (found.name, found.state) == ("redis", "fail")
    assert "No Redis server runs for" in found.seen


# ---------------------------------------------------------------- settings and workers


def beat(broker: Broker, name: str = "worker-1", status: str = "idle") -> None:
    broker.heartbeat(WorkerInfo(id=name, status=status))


def test_a_quiet_queue_is_well(broker: Broker, say: Look) -> None:
    beat(broker)
    checks = [check for check in queue.CHECKS if check is not queue.gateway]
    assert {check.__name__: say(check).state for check in checks} == {
        check.__name__: "ok" for check in checks
    }


def test_a_lease_of_two_beats_is_short(say: Look) -> None:
    assert say(queue.settings, heartbeat=5, lease=10).state == "warn"
    assert say(queue.settings, heartbeat=5, lease=15).state == "ok"


def test_workers_with_other_settings(make_broker: Callable[..., Broker], say: Look) -> None:
    beat(make_broker(heartbeat=60), "quick")
    assert say(queue.settings, heartbeat=60, lease=180).state == "ok"
    found = say(queue.settings)
    assert (found.state, found.seen) == ("warn", "quick beats every 60 s, and DTQ_HEARTBEAT is 5 here.")


def test_without_workers_tasks_wait(broker: Broker, say: Look) -> None:
    assert (say(queue.workers).state, say(queue.workers).seen) == ("warn", "No worker lives.")
    submit(broker)
    assert (say(queue.workers).state, say(queue.workers).advice) == ("fail", "Start one with `dtq worker`.")
    assert say(queue.workers).seen == "No worker lives, and 1 task waits for one."
    submit(broker)
    assert say(queue.workers).seen == "No worker lives, and 2 tasks wait for one."


def test_workers_are_counted(broker: Broker, say: Look) -> None:
    beat(broker)
    beat(broker, "worker-2", "busy")
    assert say(queue.workers) == Finding(name="workers", state=State.OK, seen="2 workers, 1 of them busy.")


def test_a_worker_that_ended_without_goodbye(broker: Broker, say: Look) -> None:
    beat(broker)
    broker.redis.sadd(broker.keys.workers, "worker-2")
    assert (say(queue.workers).state, say(queue.workers).seen) == (
        "warn",
        "worker-2 ended without goodbye.",
    )


def test_a_worker_that_is_silent(broker: Broker, say: Look) -> None:
    beat(broker)
    silent = json.dumps({"id": "worker-2", "status": "busy", "last_heartbeat": now(broker) - 150})
    broker.redis.set(broker.keys.worker + "worker-2", silent, px=150_000)  # a beat each 100 s
    broker.redis.sadd(broker.keys.workers, "worker-2")
    assert say(queue.workers).state == "ok"
    silent = json.dumps({"id": "worker-2", "status": "busy", "last_heartbeat": now(broker) - 220})
    broker.redis.set(broker.keys.worker + "worker-2", silent, px=80_000)
    assert (say(queue.workers).state, say(queue.workers).seen) == ("warn", "worker-2 missed a beat.")


# ---------------------------------------------------------------- tasks


def test_a_lease_that_nobody_sees_end(broker: Broker, say: Look) -> None:
    task_id = submit(broker)
    claim_one(broker)
    assert say(queue.leases).state == "ok"
    end_leases(broker, task_id)
    found = say(queue.leases)
    assert found.state == "fail"
    assert found.seen.startswith(f"The lease of {task_id} ended over 5 s ago, and nobody noticed")
    assert "start one" in found.advice


def test_a_delay_that_nobody_sees_end(broker: Broker, say: Look) -> None:
    task_ids = [submit(broker, delay=60.0) for _ in range(5)]
    assert say(queue.leases).state == "ok"
    make_due(broker, *task_ids)
    assert say(queue.leases).state == "fail"
    assert say(queue.leases).seen.startswith(", ".join(task_ids[:3]) + " came due over 5 s ago")


def made_old(broker: Broker, task_id: str, seconds: float) -> None:
    """As if it had been submitted so long ago."""
    task = broker.get(task_id)
    assert task
    assert task.created_at
    key, stamp = broker.keys.task + task_id, f"{task.created_at.timestamp():.14g}"
    document = broker.redis.get(key).decode()
    assert document.count(stamp) == 1
    broker.redis.set(key, document.replace(stamp, f"{now(broker) - seconds:.14g}"))


def test_idle_workers_beside_pending_tasks(
    broker: Broker, say: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "AGAIN", 0.01)
    beat(broker)
    task_id = submit(broker)
    assert (say(queue.pending).state, say(queue.pending).seen) == ("ok", "1 task pending.")
    made_old(broker, task_id, 30)
    found = say(queue.pending)
    assert found.state == "fail"
    seen = rf"Task {task_id} is next, \d+ s old, and somebody is idle: worker-1\."
    assert re.fullmatch(seen, found.seen)


def test_a_queue_that_moves_is_no_fault(broker: Broker, say: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two looks the worker takes the task."""
    beat(broker)
    made_old(broker, submit(broker), 30)
    monkeypatch.setattr(time, "sleep", lambda _: claim_one(broker))
    assert say(queue.pending).state == "ok"


def test_busy_workers_and_a_long_queue(broker: Broker, say: Look) -> None:
    beat(broker, status="busy")
    task_id = submit(broker)
    made_old(broker, task_id, 30)
    assert say(queue.pending).state == "ok"
    made_old(broker, task_id, 90)
    assert (say(queue.pending).state, say(queue.pending).advice) == ("warn", "Add workers: `dtq worker`.")


def test_ids_and_documents_that_do_not_fit(broker: Broker, say: Look) -> None:
    lost, wrong, homeless = (submit(broker) for _ in range(3))
    late = submit(broker, delay=60.0)
    run_first = claim_one(broker)
    assert run_first.id == lost
    dead = bury_next(broker, wrong)
    assert say(queue.places).state == "ok"

    broker.redis.delete(broker.keys.task + lost)
    broker.redis.lrem(broker.keys.pending, 0, homeless)
    broker.redis.zrem(broker.keys.delayed, late)
    broker.redis.zadd(broker.keys.waiting, {dead: 1})
    found = say(queue.places)
    assert found.state == "fail"
    k, astray = broker.keys, found.seen
    assert astray.startswith("4 tasks astray: ")
    whole = queue._astray, queue._homeless
    with closing(Probe(url_of(broker.redis), broker.settings)) as probe:
        assert {sentence for look in whole for sentence in look(probe)} == {
            f"{lost} in {k.processing} has no document",
            f"{dead} in {k.waiting} is failed",
            f"{homeless} is pending and nowhere",
            f"{late} is scheduled and nowhere",
        }


def test_a_place_that_is_too_long_is_not_judged(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [submit(broker) for _ in range(10)]
    broker.redis.lrem(broker.keys.pending, 0, ids[5])
    with closing(Probe(url_of(broker.redis), broker.settings)) as probe:
        assert queue._homeless(probe) == {f"{ids[5]} is pending and nowhere"}
        monkeypatch.setattr(queue, "SCANNED", 8)
        assert queue._homeless(probe) == set()


def test_what_tasks_wait_for_may_never_come(broker: Broker, say: Look) -> None:
    parent, dead = submit(broker), submit(broker)
    child = submit(broker, depends_on=[parent])
    assert (say(queue.waiting).state, say(queue.waiting).seen) == ("ok", "1 task waiting for others.")
    run(broker, parent)
    run(broker, dead)
    run(broker, child)

    dead = bury(broker)
    submit(broker, depends_on=[dead])
    found = say(queue.waiting)
    assert (found.state, found.seen) == ("warn", f"1 task waiting for others. {dead} failed for good.")
    broker.redis.delete(broker.keys.task + dead)
    found = say(queue.waiting)
    assert (found.state, found.advice) == ("fail", "Cancel what depends on it.")
    assert f"{dead} will never be completed." in found.seen


def test_the_dead_letter_waits_for_somebody(broker: Broker, say: Look) -> None:
    assert (say(queue.dead_letter).name, say(queue.dead_letter).seen) == ("dead letter", "It is empty.")
    bury(broker)
    assert say(queue.dead_letter).state == "warn"
    assert say(queue.dead_letter).seen.startswith("1 task failed for good. Kept for ever: ")
    assert say(queue.dead_letter, dead_letter_max=100).seen == "1 task failed for good."


def test_tasks_of_types_that_no_live_worker_knows(broker: Broker, say: Look) -> None:
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", types=["noop"]))
    submit(broker, "resize")
    assert say(queue.types).state == "ok", "no worker has met it"
    assert broker.report_and_claim("worker-1", [], 1, ["noop"])[1] == []
    found = say(queue.types)
    assert (found.state, found.seen) == (
        "warn",
        "No live worker knows resize, so tasks of such types wait.",
    )
    assert "dtq worker --tasks" in found.advice
    assert say(queue.places).state == "ok", "a parked task is where it should be"
    broker.heartbeat(WorkerInfo(id="worker-2", status="idle", types=["resize"]))
    assert say(queue.types).state == "ok"


def test_documents_that_nobody_can_read(broker: Broker, say: Look) -> None:
    assert say(queue.unreadable).state == "ok"
    for n in range(5):
        broker.redis.set(broker.keys.task + submit(broker, id=f"bad-{n}"), "somebody wrote this by hand")
    assert broker.tasks() == []
    found = say(queue.unreadable)
    assert (found.name, found.state) == ("unreadable", "warn")
    assert found.seen == "5 documents that nobody can read: bad-0, bad-1, bad-2 and 2 more."
    for command in ("GET {}bad-0", "DEL {}bad-0"):
        assert command.format(broker.keys.task) in found.advice
    assert f"LREM {broker.keys.unreadable} 0 bad-0" in found.advice


def test_ids_that_are_no_text_are_astray(broker: Broker, say: Look) -> None:
    for place in (broker.keys.pending, broker.keys.waiting):
        command = "LPUSH" if place == broker.keys.pending else "ZADD"
        broker.redis.execute_command(command, place, *([] if command == "LPUSH" else [1]), b"\xff\xfe")
    found = {check.__name__: say(check) for check in (queue.pending, queue.places, queue.waiting)}
    assert "\ufffd\ufffd in " in found["places"].seen
    assert found["places"].state == "fail"


# ---------------------------------------------------------------- the command


def states(folder: Path, **variables: str) -> tuple[int, dict[str, str]]:
    """Exit code, and the states by name."""
    done = run_dtq(folder, "doctor", "--json", **variables)
    assert done.stderr == ""
    return done.returncode, {found["name"]: found["state"] for found in json.loads(done.stdout)}


def test_a_system_that_is_well(tmp_path: Path) -> None:
    with system(tmp_path):
        shown = said(tmp_path, "doctor").splitlines()
        assert [line[9:21].strip() for line in shown[:-1]] == NAMES
        assert {line[:9].strip() for line in shown[:-1]} == {"ok"}
        assert shown[-1] == "17 ok"
        assert "2 workers, none of them busy." in shown[NAMES.index("workers")]
        assert "is healthy, and asks nobody for an API key." in shown[-2]
        assert states(tmp_path) == (0, dict.fromkeys(NAMES, "ok"))


def test_a_busy_system_is_well_too(tmp_path: Path) -> None:
    """Tasks that move between the looks are not astray."""
    with system(tmp_path):
        with started(tmp_path, "stress", "--tasks", "3000") as stress:
            looks = [states(tmp_path) for _ in iter(lambda: stress.process.poll() is None, False)]
        assert looks
        assert {(code, found["places"], found["leases"]) for code, found in looks} == {(0, "ok", "ok")}


def test_a_misconfigured_server(own: Any, tmp_path: Path) -> None:
    with closing(Broker(url_of(own), Settings(_env_file=None))) as broker:
        stuck, _ = submit(broker), submit(broker)
        assert claim_one(broker).id == stuck
        end_leases(broker, stuck)
    own.config_set("appendonly", "no")
    own.config_set("maxmemory", "1gb")
    own.config_set("maxmemory-policy", "allkeys-lru")
    variables = {"REDIS_URL": url_of(own), "PORT": str(free_port())}

    code, found = states(tmp_path, **variables)
    assert code == 1
    bad = dict.fromkeys(("persistence", "eviction", "workers", "leases"), "fail") | {"gateway": "unknown"}
    assert found == dict.fromkeys(NAMES, "ok") | bad
    done = run_dtq(tmp_path, "doctor", **variables)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "12 ok, 4 fail, 1 unknown"
    assert done.stdout.count("\n                      → ") == 5, "each of them says what to do"


def test_a_gateway_that_asks_for_keys(tmp_path: Path) -> None:
    with started(tmp_path, "gateway", "--port", "0", DTQ_AUTH="required") as gateway:
        gateway.url()
        shown = said(tmp_path, "doctor")
    assert "is degraded, and asks for API keys." in shown
    assert "warn     workers      No worker lives.\n" in shown


def test_in_a_program_it_is_given_its_settings() -> None:
    with LocalCluster(workers=1, heartbeat=5, lease=20) as cluster:
        its = cluster.settings.model_copy(update={"redis_url": cluster.redis_url, "home": cluster.directory})
        found = {finding.name: finding for finding in examine(its)}
        assert {finding.state for finding in found.values()} == {"ok"}
        assert found["gateway"].seen == f"{cluster.url} is healthy, and asks nobody for an API key."
        assert found["settings"].seen == "Heartbeat 5 s, lease 20 s."


def test_names_cannot_steer_the_terminal(own: Any, tmp_path: Path) -> None:
    own.sadd("workers:active", "\x1b[2Jevil")
    own.set("worker:good", json.dumps({"id": "good", "status": "idle"}), ex=15)
    own.sadd("workers:active", "good")
    shown = run_dtq(tmp_path, "doctor", REDIS_URL=url_of(own), PORT=str(free_port())).stdout
    assert "?[2Jevil ended without goodbye." in shown
    assert "\x1b" not in shown


def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    done = run_dtq(tmp_path, "doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("fail     redis        No Redis server runs for ")
