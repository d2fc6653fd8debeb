"""The figures over HTTP: /stats and /metrics of a real run, held against its documents."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import msgspec
import pytest
import redis
import requests
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from dtq.errors import ApiError
from dtq.gateway import create_app
from dtq.lab import LocalCluster
from dtq.observe import metrics, unknown_types
from dtq.observe.stats import Spread
from dtq.queue.broker import Broker
from dtq.queue.task import Task
from dtq.queue.worker_info import WorkerInfo
from dtq.redis_server import RedisServer
from tests.helpers import PATIENCE, new_task

WORK = {
    "sleep": [0.001 * n for n in range(40)],
    "noop": [None] * 30,
    "flaky": [1, 1],
    "fail": [{"permanent": True}] * 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers that have done all of `WORK`."""
    env = {"DTQ_BACKOFF_BASE": "0.05", "DTQ_MAX_RETRIES": "1"}
    with LocalCluster(workers=2, heartbeat=5, lease=60, env=env) as running:
        ids = [i for type, items in WORK.items() for i in running.client.submit_many(type, items)]
        running.client.wait(ids, timeout=PATIENCE, progress=False)
        running.client.cancel(running.client.submit("noop", delay=600))
        yield running


@pytest.fixture
def done(cluster: LocalCluster) -> list[Task[Any]]:
    return cluster.client.list(status="completed", limit=1000)


def by_hand(values: Sequence[float]) -> Spread:
    """Percentiles by the definition of nearest rank: of n sorted values, the one at n·p/100, rounded up."""
    ordered = sorted(values)
    figures = [ordered[math.ceil(len(values) * percent / 100) - 1] for percent in (50, 95, 99)]
    figures.append(math.fsum(values) / len(values))
    return Spread(*(pytest.approx(figure, rel=1e-9) for figure in figures))


def durations(tasks: Sequence[Task[Any]]) -> list[float]:
    return [task.duration for task in tasks if task.duration is not None]


def waits(tasks: Sequence[Task[Any]]) -> list[float]:
    firsts = [task.history[0].started_at if task.history else task.started_at for task in tasks]
    pairs = [(task.created_at, first) for task, first in zip(tasks, firsts, strict=True)]
    return [(first - created).total_seconds() for created, first in pairs if created and first]


def scrape(client: FlaskClient) -> dict[tuple[str, str], float]:
    """Name and label's value -> value of each line of /metrics."""
    text = client.get("/metrics").text
    lines = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, "".join(sample.labels.values())): sample.value for sample in lines}


@pytest.fixture
def beside(cluster: LocalCluster) -> FlaskClient:
    """Another gateway of the cluster's queue."""
    return create_app(cluster.broker).test_client()


# ---------------------------------------------------------------- a real run


def test_stats_are_what_the_documents_say(cluster: LocalCluster, done: list[Task[Any]]) -> None:
    told = cluster.client.stats(window=3600)
    assert (told.completed, len(done), told.bounded) == (72, 72, False)
    assert told.throughput_per_s == 72 / 3600
    assert told.run_s == by_hand(durations(done))
    assert told.wait_s == by_hand(waits(done))
    assert told.run_seconds_total == pytest.approx(math.fsum(durations(done)))
    assert {group.type: (group.completed, group.failed) for group in told.by_type} == {
        "sleep": (40, 0),
        "noop": (30, 0),
        "flaky": (2, 0),
        "fail": (0, 3),
    }
    assert sum(group.failed for group in told.by_worker) == 3
    assert {group.worker for group in told.by_worker} <= set(cluster.workers)
    for group in told.by_type + told.by_worker:
        its = [task for task in done if (group.type or group.worker) in (task.type, task.worker_id)]
        assert group.completed == len(its)
        expected = (by_hand(durations(its)), by_hand(waits(its))) if its else (Spread(), Spread())
        assert (group.run_s, group.wait_s) == expected


def test_counts_and_counters_are_those_of_the_run(cluster: LocalCluster) -> None:
    told, health = cluster.client.stats(), cluster.client.health()
    assert told.workers == health["workers"] == 2
    assert told.counts["completed"] == health["completed_tasks"] == 72
    assert told.counts["dead_letter"] == health["dead_letter"] == 3
    counted = {name: n for name, n in told.counters.items() if n and name != "released"}
    assert counted == {"submitted": 76, "retried": 2, "dead_lettered": 3, "cancelled": 1}
    assert told.oldest_pending_s == 0.0


def test_prometheus_and_stats_say_the_same(cluster: LocalCluster, beside: FlaskClient) -> None:
    told, lines = cluster.client.stats(), scrape(beside)
    assert lines["dtq_tasks_completed_total", ""] == lines["dtq_task_run_seconds_count", ""] == 72
    assert lines["dtq_task_run_seconds_sum", ""] == told.run_seconds_total
    quantiles = [lines["dtq_task_run_seconds", quantile] for quantile in ("0.5", "0.95", "0.99")]
    assert quantiles == [told.run_s.p50, told.run_s.p95, told.run_s.p99]
    assert {name: lines[f"dtq_tasks_{name}_total", ""] for name in told.counters} == told.counters
    places = {place: n for (name, place), n in lines.items() if name == "dtq_tasks"}
    assert places == {place: told.counts[place] for place in places}
    assert lines["dtq_workers", ""] == 2


def test_every_gateway_says_the_same(cluster: LocalCluster, beside: FlaskClient) -> None:
    theirs = requests.get(f"{cluster.url}/metrics", timeout=PATIENCE)
    assert theirs.status_code == 200
    here_and_there = (theirs.text, beside.get("/metrics").text)
    there, here = (re.sub(r"(?m)^(dtq_redis_memory_bytes) .*$", r"\1", text) for text in here_and_there)
    assert there == here, "but for the memory, which each question changes a little"
    told, heard = cluster.client.stats(3600), beside.get("/stats?window=3600").get_json()
    assert heard["by_type"] == msgspec.to_builtins(told.by_type)
    assert heard["wait_s"] == msgspec.to_builtins(told.wait_s)


def test_a_client_hears_what_is_wrong_with_a_window(cluster: LocalCluster) -> None:
    with pytest.raises(ApiError, match="window: Input should be less than or equal to 3600, not"):
        cluster.client.stats(window=3601)


# ---------------------------------------------------------------- the form


def test_an_empty_queue_is_no_error(http: FlaskClient) -> None:
    told = http.get("/stats").get_json()
    nothing = {"p50": None, "p95": None, "p99": None, "mean": None}
    assert (told["window_s"], told["completed"], told["throughput_per_s"], told["bounded"]) == (
        60,
        0,
        0,
        False,
    )
    assert told["run_s"] == told["wait_s"] == nothing
    assert (told["by_type"], told["by_worker"], told["workers"]) == ([], [], 0)
    lines = scrape(http)
    assert lines.pop(("dtq_redis_memory_bytes", "")) > 0
    assert set(lines.values()) == {0.0}
    assert ("dtq_task_run_seconds_count", "") in lines


def test_stats_name_every_figure(http: FlaskClient, broker: Broker) -> None:
    broker.submit([new_task()])
    told = http.get("/stats").get_json()
    assert told.keys() == {
        "at", "window_s", "completed", "throughput_per_s", "bounded", "run_s", "run_seconds_total", "wait_s",
        "by_type", "by_worker", "counts", "counters", "workers", "oldest_pending_s", "memory",
        "unknown_types",
    }  # fmt: skip
    assert told["at"].endswith("Z")
    assert told["counts"]["pending"] == told["counters"]["submitted"] == 1
    assert told["oldest_pending_s"] > 0


def test_stats_name_types_that_wait_for_a_worker_that_knows_them(http: FlaskClient, broker: Broker) -> None:
    """Of each type one task is looked at, so that many of one type do not hide the others."""
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", types=["noop"]))
    types = ["noop", *["many"] * 300, "few", "crop"]
    broker.submit([new_task(name, priority="high" if name == "few" else "normal") for name in types])
    assert http.get("/stats").get_json()["unknown_types"] == [], "no worker has met them"
    _, [noop] = broker.report_and_claim("worker-1", [], 1, ["noop"])
    assert broker.report_and_claim("worker-1", [], 1, ["noop"])[1] == []
    told = http.get("/stats").get_json()
    assert told["unknown_types"] == ["crop", "few", "many"]
    assert (told["counts"]["pending"], told["counts"]["parked"], noop.type) == (302, 302, "noop")
    assert scrape(http)["dtq_parked_tasks", ""] == 302
    broker.heartbeat(WorkerInfo(id="worker-2", status="idle", types=["many"]))
    assert http.get("/stats").get_json()["unknown_types"] == ["crop", "few"]


def test_the_types_that_are_looked_at_are_bounded(http: FlaskClient, broker: Broker) -> None:
    broker.heartbeat(WorkerInfo(id="worker-1", status="idle", types=["noop"]))
    broker.submit([new_task(f"type-{n}") for n in range(50)])
    assert broker.report_and_claim("worker-1", [], 1, ["noop"])[1] == []
    assert len(http.get("/stats").get_json()["unknown_types"]) == unknown_types.TYPES


def test_a_script_of_the_figures_reads_few_documents(own_http: FlaskClient, own_redis: RedisServer) -> None:
    """Others wait while a script runs: a dashboard asks for the figures every two seconds."""
    with closing(redis.Redis.from_url(own_redis.url)) as server:
        for n in range(1000):
            server.set(
                f"task:{n}", f'{{"id":"{n}","type":"noop","worker_id":"w","status":"completed","data":1}}'
            )
        server.zadd("metrics:completed_at", {n: server.time()[0] for n in range(1000)})
        server.config_resetstat()
        told = own_http.get("/stats").get_json()
        used = server.info("commandstats")
    assert [group["completed"] for group in told["by_type"]] == [1000]
    assert used["cmdstat_getrange"]["calls"] == 1000
    assert used["cmdstat_eval"]["calls"] >= 1000 / metrics.SLICE


@pytest.mark.parametrize("window", ["1", "1.5", "3600"])
def test_windows_that_fit(http: FlaskClient, window: str) -> None:
    answer = http.get(f"/stats?window={window}")
    assert (answer.status_code, answer.get_json()["window_s"]) == (200, float(window))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("window=0", "window: Input should be greater than or equal to 1"),
        ("window=0.99", "window: Input should be greater than or equal to 1"),
        ("window=3600.1", "window: Input should be less than or equal to 3600"),
        ("window=-5", "window: Input should be greater than or equal to 1"),
        ("window=inf", "window: Input should be"),
        ("window=nan", "window: Input should be"),
        ("window=soon", "window: Input should be a valid number"),
        ("window=", "window: Input should be a valid number"),
        ("windows=60", "windows: Extra inputs are not permitted"),
    ],
)
def test_windows_that_do_not_fit(http: FlaskClient, query: str, sentence: str) -> None:
    answer = http.get(f"/stats?{query}")
    assert answer.status_code == 400
    assert sentence in answer.get_json()["error"]


def test_metrics_are_in_prometheus_form(http: FlaskClient, broker: Broker) -> None:
    broker.submit([new_task()])
    answer = http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.name.startswith("dtq_") and family.documentation for family in families)
    assert all("econds" in family.documentation for family in families if "seconds" in family.name)
    assert {family.name: family.type for family in families if family.type != "counter"} == {
        "dtq_tasks": "gauge",
        "dtq_parked_tasks": "gauge",
        "dtq_workers": "gauge",
        "dtq_oldest_pending_seconds": "gauge",
        "dtq_redis_memory_bytes": "gauge",
        "dtq_redis_memory_limit_bytes": "gauge",
        "dtq_task_run_seconds": "summary",
    }
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert labels <= {"place", "quantile"}, "labels of single tasks would grow without end"
    assert len({family.name for family in families}) == len(families)


def test_memory_with_and_without_a_limit(own_http: FlaskClient, own_redis: RedisServer) -> None:
    free = own_http.get("/stats").get_json()["memory"]
    used = free.pop("used_bytes")
    assert 100_000 < used < 1_000_000_000
    assert free == {"limit_bytes": None, "share": None, "policy": "noeviction"}
    assert scrape(own_http)["dtq_redis_memory_limit_bytes", ""] == 0

    with closing(redis.Redis.from_url(own_redis.url)) as server:
        server.config_set("maxmemory", 10**9)
        server.config_set("maxmemory-policy", "volatile-ttl")
        server.set("ballast", b"x" * 10**7)
    told, lines = own_http.get("/stats").get_json()["memory"], scrape(own_http)
    assert told["used_bytes"] > used + 10**7
    assert (told["limit_bytes"], told["policy"]) == (10**9, "volatile-ttl")
    assert told["share"] == told["used_bytes"] / 10**9
    assert lines["dtq_redis_memory_limit_bytes", ""] == 10**9
    assert lines["dtq_redis_memory_bytes", ""] == pytest.approx(told["used_bytes"], rel=0.2)


@pytest.mark.parametrize("path", ["/stats", "/metrics"])
def test_only_get_is_answered(http: FlaskClient, path: str) -> None:
    assert http.post(path).status_code == 405
    assert (http.head(path).status_code, http.head(path).data) == (200, b"")


@pytest.mark.parametrize("path", ["/stats", "/metrics"])
def test_without_redis_there_are_no_figures(own_http: FlaskClient, own_redis: RedisServer, path: str) -> None:
    assert own_http.get(path).status_code == 200
    own_redis.stop()
    answer = own_http.get(path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.get_json() == {"error": "Redis does not answer just now; try again."}
    own_redis.start()
    assert own_http.get(path).status_code == 200
