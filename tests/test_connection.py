"""Connections: passwords, users with few rights, TLS, a Redis Cluster that changes, replicas that confirm."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from dtq import config, redis_server
from dtq.cli.redis_prompt import RedisPrompt
from dtq.config import Settings, addresses
from dtq.connection import OLDEST_SERVERS, Redis, Server, connect
from dtq.errors import ConfigError, DtqError
from dtq.gateway import create_app
from dtq.gateway.access import ApiKeys, Scope, Sessions
from dtq.observe import metrics
from dtq.processes.children import Children
from dtq.queue.broker import Broker
from dtq.queue.task import NewTask, Status
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer, free_port
from dtq.transient import TRANSIENT, is_transient
from tests.helpers import ROOT, new_task, wait_until
from tests.redis_cluster import owner_of, redis_cluster
from tests.sentinels import start_sentinel
from tests.steps import (
    bury,
    claim_one,
    fail,
    maintain,
    make_due,
    make_old,
    run,
    status,
    submit,
)

ACL = ROOT / "deploy" / "redis.acl"
DEFAULTS = {"key_prefix": "{dtq}:", "rate_limit": "1/minute"}
Open = Callable[..., Broker]


@pytest.fixture
def open_broker() -> Iterator[Open]:
    """Opens brokers of the queue `{dtq}:`; keyword arguments are settings."""
    with ExitStack() as stack:
        yield lambda url, **settings: stack.enter_context(
            closing(Broker(url, Settings(_env_file=None, **DEFAULTS | settings)))
        )


def live(broker: Broker) -> None:
    """All that dtq does with a queue, once."""
    broker.redis.ping()
    parent = submit(broker)
    child = submit(broker, depends_on=[parent], priority="high")
    submit(broker, delay=60.0)
    run(broker, parent)
    assert fail(broker, claim_one(broker)) == "retry"
    make_due(broker, child)
    assert maintain(broker).due == 1
    held = claim_one(broker)
    assert broker.heartbeat(WorkerInfo(id="worker-1", status="busy"), [held]) == set()
    assert broker.release("worker-1", [held]) == 1
    run(broker, child)
    dead = bury(broker)
    assert broker.requeue() == [dead]
    run(broker, dead)
    assert broker.discard([bury(broker)])
    assert broker.cancel(submit(broker)) == "cancelled"
    broker.wait(0.01)
    assert metrics.stats(broker).counts["completed"] == len(broker.tasks(Status.COMPLETED)) == 3
    assert len(broker.tasks()) == 6
    assert [worker.id for worker in broker.workers()] == ["worker-1"]
    broker.deregister("worker-1")
    make_old(broker, parent, child, dead)
    assert maintain(broker).deleted == 3
    broker.redis.delete(broker.keys.task + submit(broker))
    maintain(broker)
    assert broker.counts()["pending"] == 0
    assert broker.persistent()
    let_in(broker)


def let_in(broker: Broker) -> None:
    """All that it does with API keys and with rate limits, once."""
    keys, sessions = ApiKeys(broker), Sessions(broker)
    _, text = keys.create("me", Scope.ADMIN)
    with pytest.raises(DtqError, match="already"):
        keys.create("me", Scope.ADMIN)
    assert keys.find(text)
    assert keys.any()
    key, _ = keys.rotate("me")
    token = sessions.open(key)
    assert sessions.find(token) == key
    sessions.close(token)
    keys.revoke("me")
    assert keys.list() == []
    with create_app(broker).test_client() as client:
        assert [client.get("/tasks").status_code for _ in range(2)] == [200, 429]


# ---------------------------------------------------------------- one server


def test_a_unix_socket(tmp_path: Path, open_broker: Open) -> None:
    with RedisServer(tmp_path, options={"unixsocket": f"'{tmp_path}/redis.sock'"}):
        live(open_broker(f"unix://{tmp_path}/redis.sock"))


@pytest.mark.since(6, 0)  # an older server does not know it anyway
def test_a_server_that_knows_no_hello(tmp_path: Path, open_broker: Open) -> None:
    """RESP3 begins with HELLO, a word that Redis 5 does not know."""
    options = {"rename-command": "HELLO ''", "requirepass": "secret"}
    with RedisServer(tmp_path, options=options) as server:
        live(open_broker(server.url))


def test_a_server_with_a_password(tmp_path: Path, open_broker: Open) -> None:
    with RedisServer(tmp_path, options={"requirepass": "pass:w@rd/?"}) as server:
        live(open_broker(server.url))
        for url in (server.url.replace("pass", "word"), f"redis://127.0.0.1:{server.port}"):
            with pytest.raises(TRANSIENT) as refused:
                open_broker(url).counts()
            assert "w@rd" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://:hush@a", "redis://:hu/hush@a", "redis://:hush@a:b", "redis://a?password=hush&db=c"]
)
def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ConfigError, match=r"^REDIS_URL='.*\*\*\*.*' cannot be used: ") as refused:
        config.load()
    assert "hu" not in str(refused.value)


@pytest.mark.since(7, 0)  # an older server does not understand the rules
def test_a_user_with_few_rights(tmp_path: Path, open_broker: Open) -> None:
    options = {"aclfile": f"'{ACL}'"}
    with RedisServer(tmp_path, options=options) as server, redis.Redis.from_url(server.url) as admin:
        granted = {word[1:] for word in ACL.read_text().split() if word.startswith("+")}
        admin.config_resetstat()
        user = open_broker(f"redis://dtq:change-me@127.0.0.1:{server.port}")
        live(user)
        used = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
        assert admin.acl_log() == []
        # The first two are for a Cluster and for DTQ_WAIT_REPLICAS; everybody may say who they are.
        assert granted - used == {"cluster|slots", "wait"}
        assert used - granted == {"auth", "config|resetstat"}

        for refused in (
            lambda: user.redis.get("{other}:task:1"),
            lambda: user.redis.eval("return redis.call('GET', '{other}:task:1')", 0),
            lambda: user.redis.publish("{other}:tasks:new", "1"),
            lambda: user.redis.keys("*"),
            lambda: user.redis.flushall(),
            lambda: open_broker(server.url.replace("//", "//dtq:change-me@"), key_prefix="{other}:").counts(),
        ):
            with pytest.raises(redis.ResponseError, match=r"(?i)permission|ACL"):
                refused()


@pytest.mark.parametrize(
    ("told", "name", "too_old", "finishes_when_full"),
    [
        ({"redis_version": "4.0.14"}, "Redis 4.0.14", True, False),
        ({"redis_version": "5.0.0"}, "Redis 5.0.0", False, False),
        ({"redis_version": "6.2.14"}, "Redis 6.2.14", False, False),
        ({"redis_version": "7.0.0"}, "Redis 7.0.0", False, True),
        ({"redis_version": "10.0.1"}, "Redis 10.0.1", False, True),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, "Valkey 7.2.5", False, True),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0-rc1"}, "Valkey 9.1.0-rc1", False, True),
    ],
)
def test_which_server_it_is(told: dict[str, str], name: str, too_old: bool, finishes_when_full: bool) -> None:
    server = Server.of(told)
    assert (str(server), server.too_old) == (name, too_old)
    assert server.finishes_when_full == finishes_when_full


def test_the_readme_names_the_oldest_servers() -> None:
    assert OLDEST_SERVERS in " ".join((ROOT / "README.md").read_text().split())


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Directives of a server that speaks TLS alone. The embedded one is built without."""
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("redis-server is not installed")
    monkeypatch.setattr(redis_server, "find_program", lambda: program)
    certificate, names = ca.issue_cert("127.0.0.1"), ("ca", "key", "certificate")
    files = {name: tmp_path / f"{name}.pem" for name in names}
    ca.cert_pem.write_to_path(str(files["ca"]))
    certificate.private_key_pem.write_to_path(str(files["key"]))
    certificate.cert_chain_pems[0].write_to_path(str(files["certificate"]))
    return {
        "tls-ca-cert-file": str(files["ca"]), "tls-key-file": str(files["key"]), "tls-auth-clients": "no",
        "tls-cert-file": str(files["certificate"]), "requirepass": "secret",
    }  # fmt: skip


@pytest.fixture
def secure(tmp_path: Path, tls: dict[str, str]) -> Iterator[RedisServer]:
    """A server that speaks TLS alone."""
    with RedisServer(tmp_path / "redis", options=tls) as server:
        yield server


def test_a_server_with_tls(secure: RedisServer, open_broker: Open) -> None:
    assert secure.url.startswith("rediss://:secret@127.0.0.1:")
    live(open_broker(secure.url))


def test_a_server_that_cannot_prove_who_it_is(secure: RedisServer, tmp_path: Path, open_broker: Open) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    url = secure.url.split("?")[0]
    for doubtful in (url, f"{url}?ssl_ca_certs={stranger}"):
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            open_broker(doubtful).counts()
    with pytest.raises(redis.ConnectionError):
        open_broker(url.replace("rediss", "redis")).counts()


# ---------------------------------------------------------------- a Redis Cluster


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "^DTQ_KEY_PREFIX='' would spread .* name in braces"),
        ({"key_prefix": "team-a:"}, "^DTQ_KEY_PREFIX='team-a:' would spread"),
        ({"key_prefix": "{}a:"}, "^DTQ_KEY_PREFIX='{}a:' would spread"),
        ({"key_prefix": "{a}:", "redis_sentinels": "a,b"}, "exclude each other"),
        ({"redis_cluster": False, "redis_sentinels": "a", "url": "unix:///a"}, "not on a unix socket"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], sentence: str) -> None:
    url = settings.pop("url", "redis://a")
    with pytest.raises(ConfigError, match=sentence):
        connect(url, Settings(_env_file=None, **{"redis_cluster": True} | settings), retries=0)


def test_all_that_a_queue_does_on_a_cluster(cluster_url: str, open_broker: Open) -> None:
    live(open_broker(cluster_url, redis_cluster=True, key_prefix="{all}:"))


def test_a_cluster_with_tls(tmp_path: Path, tls: dict[str, str], open_broker: Open) -> None:
    with redis_cluster(tmp_path, **tls, tls_cluster="yes", masterauth="secret") as nodes:
        assert nodes[0].url.startswith("rediss://:secret@")
        live(open_broker(nodes[0].url, redis_cluster=True))


def test_a_cluster_must_be_named() -> None:
    with pytest.raises(ConfigError, match="name one of its nodes in REDIS_URL"):
        redis_server.locate(Settings(_env_file=None, redis_cluster=True, key_prefix="{a}:"))


def test_a_server_that_is_no_cluster_says_so(server_url: str, open_broker: Open) -> None:
    with pytest.raises(
        ConfigError, match=r"DTQ_REDIS_CLUSTER is set, but 127\.0\.0\.1:.*cluster support disabled"
    ):
        open_broker(server_url, redis_cluster=True).counts()


def test_dtq_redis_asks_the_node_that_has_the_queue(
    cluster_url: str, open_broker: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(9):  # of three nodes each has some
        broker = open_broker(cluster_url, redis_cluster=True, key_prefix=f"{{prompt-{n}}}:")
        submit(broker)
        assert RedisPrompt(cluster_url, settings=broker.settings).run(["LLEN", broker.keys.pending])
        assert capsys.readouterr().out == "(integer) 1\n"


@pytest.mark.since(7, 0)  # for `cluster-port`
def test_the_node_that_was_named_may_be_gone_later(tmp_path: Path, open_broker: Open) -> None:
    with redis_cluster(tmp_path, cluster_require_full_coverage="no") as nodes:
        owner = owner_of(nodes, "{dtq}:")
        named = next(node for node in nodes if node is not owner)
        broker = open_broker(named.url, redis_cluster=True)
        task_id = submit(broker)
        os.kill(named.pid, signal.SIGKILL)
        broker.redis.connection_pool.disconnect()
        broker.once.connection_pool.disconnect()
        assert status(broker, task_id) == "pending"
        os.kill(owner.pid, signal.SIGKILL)
        with pytest.raises(redis.ConnectionError):
            broker.counts()


# ---------------------------------------------------------------- Sentinels and replicas


@pytest.fixture
def processes() -> Iterator[Children]:
    """They end with the test."""
    processes = Children()
    yield processes
    processes.close(grace=0)


@pytest.mark.parametrize("text", ["", "a:b", ":26379", "a,,b", "a:99999", "[::1"])
def test_sentinels_that_cannot_be_used(text: str) -> None:
    with pytest.raises(ValueError, match=r"a list like 10\.0\.0\.1:26379,10\.0\.0\.2:26379"):
        addresses(text)


def test_the_sentinels_of_a_list() -> None:
    assert addresses("a, b:1,[::1]:2,[::1]") == [("a", 26379), ("b", 1), ("::1", 2), ("::1", 26379)]


def test_passwords_of_sentinels_and_of_the_primary(
    tmp_path: Path, processes: Children, open_broker: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    with RedisServer(tmp_path / "redis", options={"requirepass": "secret"}) as primary:
        where = start_sentinel(processes, tmp_path, primary, "hush")
        settings = {"redis_sentinels": f"127.0.0.1:{free_port()},{where}", "sentinel_password": "hush"}
        live(open_broker("redis://:secret@any/0", **settings))
        asked = Settings(_env_file=None, **settings)
        assert redis_server.locate(asked) == "redis://dtq/0"
        assert RedisPrompt("redis://:secret@any/0", settings=asked).run(["PING"])
        assert capsys.readouterr().out == "PONG\n"

        with pytest.raises(redis.AuthenticationError):
            open_broker("redis://any", **settings).counts()
        for wrong in ({"sentinel_password": "secret"}, {"redis_service": "other"}):
            with pytest.raises(redis.ConnectionError, match=r"^No Sentinel that answers us knows .*'$"):
                open_broker("redis://:secret@any/0", **settings | wrong).counts()


def test_sentinels_with_tls(
    tmp_path: Path, processes: Children, secure: RedisServer, open_broker: Open
) -> None:
    where = start_sentinel(processes, tmp_path, secure)
    live(open_broker(secure.url, redis_sentinels=where))


def test_a_task_is_acknowledged_when_a_replica_has_it(tmp_path: Path, open_broker: Open) -> None:
    with (
        RedisServer(tmp_path / "primary") as primary,
        RedisServer(tmp_path / "replica", options={"replicaof": f"127.0.0.1 {primary.port}"}) as replica,
    ):
        broker, copy = open_broker(primary.url, wait_replicas=1), open_broker(replica.url)
        wait_until(lambda: copy.redis.info("replication")["master_link_status"] == "up")
        assert status(copy, submit(broker)) == "pending"

        os.kill(replica.pid, signal.SIGSTOP)
        task = new_task()
        for _ in ("submitted", "submitted again, though it is there"):
            with pytest.raises(redis.ResponseError, match="NOREPLICAS 0 of 1 replicas have it") as refused:
                broker.submit([task])
            assert is_transient(refused.value)
        os.kill(replica.pid, signal.SIGCONT)
        wait_until(lambda: _submitted(broker, task))
        assert status(copy, task.id) == "pending"


def _submitted(broker: Broker, task: NewTask) -> bool:
    try:
        return broker.submit([task]) == []
    except redis.ResponseError:
        return False


def test_a_client_of_redis_py_has_all_that_dtq_asks_of_it(redis_url: str) -> None:
    asked = {name for name in vars(Redis) if not name.startswith("_")} - {"connection_pool"}
    assert asked > {"get", "evalsha", "pipeline"}
    assert [name for name in sorted(asked) if not callable(getattr(redis.Redis, name, None))] == []
