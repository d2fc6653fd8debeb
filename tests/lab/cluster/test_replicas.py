"""A primary, replicas and Sentinels in a notebook: a failover, its traces, and what is lost in it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from dtq.errors import DtqError
from dtq.lab.cluster.load import steady_load
from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.lab.cluster.replicas import ReplicatedRedis
from dtq.lab.witness.audits import audit
from dtq.queue.task import Status
from tests.helpers import alive, family


def servers_of(cluster: LocalCluster) -> ReplicatedRedis:
    assert isinstance(cluster.servers, ReplicatedRedis)
    return cluster.servers


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=2, replicas=1) as cluster:
        yield cluster


def test_it_starts_and_its_parts_know_each_other(cluster: LocalCluster) -> None:
    servers = servers_of(cluster)
    assert (servers.name, servers.replicas, servers.linked()) == ("redis-1", ["redis-2"], ["redis-2"])
    assert servers.url == cluster.redis_url
    assert servers.quorum().startswith("OK 3 usable Sentinels")
    assert cluster.settings.redis_sentinels == servers.sentinels
    assert "+monitor master dtq" in cluster.logs("sentinel-1")
    assert "Ready to accept connections" in cluster.logs("redis-2")
    assert len(family(cluster._supervisor.pid)) == 10  # its guard, five servers, gateway, two workers, itself


def test_nothing_is_left_at_the_end() -> None:
    with LocalCluster(workers=0, replicas=1) as cluster:
        pids = family(cluster._supervisor.pid)
    assert not any(map(alive, pids))


def test_without_wait_what_no_replica_got_is_lost_and_comes_not_back(cluster: LocalCluster) -> None:
    servers = servers_of(cluster)
    with steady_load(cluster, "sleep", 0.01) as load:
        load.wait_for(5)
        before = load.frame["answered_at"].max()
        servers.cut()
        load.wait_for(10)
        assert servers.linked() == []
        dead = cluster.kill_redis()
        killed_at = datetime.now(UTC)
        servers.mend()
        load.wait_for(5)
    cluster.wait_idle()
    assert (dead, servers.name) == ("redis-1", "redis-2")
    ledger = audit(load.acknowledged, cluster, cluster.executions())
    assert len(ledger.lost) >= 9  # one may have been on its way when the link was cut
    assert set(ledger.completed) | set(ledger.lost) == set(load.acknowledged)
    tries = load.frame
    between = tries[(tries["answered_at"] > before) & (tries["sent_at"] < killed_at)]
    assert set(ledger.lost) <= set(between["task_id"])
    assert ledger.stored_again == {}
    assert ledger.stored is not None  # the new primary's journal is the whole story

    keys = [cluster.broker.keys.task + task_id for task_id in ledger.lost]
    cluster.restart_redis()
    servers.mend()
    assert (servers.linked(), servers.ask(dead, "EXISTS", *keys)) == ([dead], 0)
    events = servers.events(killed_at)
    assert {"+sdown", "+odown", "+elected-leader", "+promoted-slave", "+switch-master"} <= set(
        events["event"]
    )
    assert events["seconds"].is_monotonic_increasing
    assert events["seconds"].min() >= 0


def test_what_was_acknowledged_with_wait_is_not_lost() -> None:
    with LocalCluster(workers=1, replicas=2, env={"DTQ_WAIT_REPLICAS": "1"}) as cluster:
        servers = servers_of(cluster)
        with steady_load(cluster, "sleep", 0.01) as load:
            load.wait_for(5)
            servers.cut()
            load.wait_for(5, "refused")
            cluster.kill_redis()
            servers.mend()
            load.wait_for(5)
        cluster.wait_idle()
        ledger = audit(load.acknowledged, cluster, cluster.executions())
        assert (ledger.lost, len(ledger.completed)) == ([], len(set(load.acknowledged)))
        tries = load.frame
        assert set(tries.loc[tries["outcome"] == "refused", "number"]) <= set(
            tries.loc[tries["outcome"] == "acknowledged", "number"]
        )


def test_a_link_is_cut_and_mended_without_a_failover(cluster: LocalCluster) -> None:
    servers = servers_of(cluster)
    servers.cut()
    cluster.redis.set("lab:test", "written")
    assert servers.ask("redis-2", "GET", "lab:test") is None
    servers.mend()
    assert servers.ask("redis-2", "GET", "lab:test") == "written"
    assert servers.name == "redis-1"


def test_with_one_sentinel_left_there_is_no_quorum(cluster: LocalCluster) -> None:
    servers = servers_of(cluster)
    assert servers.kill_sentinel() == "sentinel-1"
    assert servers.quorum().startswith("OK 2 usable Sentinels")
    assert servers.kill_sentinel() == "sentinel-2"
    assert servers.quorum().startswith("NOQUORUM 1 usable Sentinels")
    with pytest.raises(DtqError, match="One Sentinel is left"):
        servers.kill_sentinel()
    task = cluster.client.wait(cluster.client.submit("noop"), progress=False)
    assert task.status == Status.COMPLETED
