"""A task has one trace, through all processes and whatever happens to them. Off, tracing is not there."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dtq.lab.cluster.local_cluster import LocalCluster
from dtq.lab.witness import traces
from dtq.processes.program import dtq
from dtq.queue.task import Status
from tests.helpers import PATIENCE, ROOT, wait_until

HANDLERS = """
import time
from pathlib import Path
from opentelemetry import trace
from dtq.tasks import task

def part(name, seconds):
    with trace.get_tracer("handlers").start_as_current_span(name):
        time.sleep(seconds)

@task("unlucky")
def unlucky(data, context):
    part("before", 0.01)
    if context.attempt <= 2:
        raise RuntimeError("bad luck")
    part("after", 60 if context.attempt == 3 else 0.01)

@task("held once")
def held_once(data, context):
    part("before", 0.01)
    while context.attempt == 1 and not Path(data).exists():
        time.sleep(0.01)
"""
LOADED = """
import sys
from dtq.tasks import task

@task("loaded")
def loaded(data, context):
    return list(sys.modules)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two traced workers; the trace file lies beside their logs."""
    directory: Path = tmp_path_factory.mktemp("traced")
    (directory / "handlers.py").write_text(HANDLERS)
    env = {"DTQ_TRACE_FILE": str(directory / "spans"), "DTQ_BACKOFF_BASE": "0.05", "DTQ_DRAIN_TIMEOUT": "0.1"}
    handlers, home = str(directory / "handlers.py"), directory / "home"
    with LocalCluster(2, lease=4, tasks=handlers, env=env, directory=home) as it:
        yield it


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run([sys.executable, "-c", code], **environment)


def run(command: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=PATIENCE
    )


def submit(cluster: LocalCluster, *arguments: str, **environment: str) -> str:
    """Submits from a process of its own, which is a traced client; returns the task's id."""
    home = cluster.directory
    environment = {"DTQ_TRACE_FILE": str(home.parent / "spans"), "DTQ_HOME": str(home)} | environment
    return run(dtq("submit", *arguments), **environment).stdout.strip()


def spans(cluster: LocalCluster, task_id: str) -> pd.DataFrame:
    return traces.of_task(traces.read(cluster.directory.parent / "spans"), task_id)


def runs(cluster: LocalCluster, task_id: str) -> pd.DataFrame:
    found = spans(cluster, task_id)
    return found[found["outcome"].notna()]


def finished(cluster: LocalCluster, task_id: str) -> pd.DataFrame:
    """The spans of a task, once it is completed and all who had a part in it have exported theirs."""
    task = cluster.client.wait(task_id, timeout=PATIENCE, progress=False)
    assert task.status == Status.COMPLETED
    wait_until(lambda: "completed" in set(runs(cluster, task_id)["outcome"]), what="the last run is exported")
    wait_until(lambda: traces.orphans(spans(cluster, task_id)).empty, what="what led to it is exported")
    return spans(cluster, task_id)


def in_attempt(cluster: LocalCluster, task_id: str, attempt: int) -> str:
    """Waits until the handler of this attempt has exported a span; returns the worker."""

    def before() -> Any:
        task = cluster.broker.get(task_id)
        done = spans(cluster, task_id)["name"].value_counts().get("before", 0)
        return task and done == attempt and task.status == Status.PROCESSING and task.worker_id

    return str(wait_until(before, what=f"attempt {attempt} runs"))


def test_failed_twice_recovered_once_completed_is_one_trace_without_an_orphan(cluster: LocalCluster) -> None:
    task_id = submit(cluster, "unlucky")
    killed = cluster.kill_worker(in_attempt(cluster, task_id, 3))

    trace = finished(cluster, task_id)
    task = cluster.client.get(task_id)
    cluster.add_workers(1)

    assert set(trace["trace_id"]) == {str(task.traceparent).split("-")[1]}
    assert list(traces.orphans(trace)["name"]) == []
    assert not trace["span_id"].duplicated().any()
    assert list(trace["name"][trace["parent_id"].isna()]) == ["submit"]
    assert sorted(trace["name"]) == sorted(
        ["submit", "POST /tasks", "wait", "wait after failed", "wait after failed", "wait after worker lost"]
        + ["run unlucky", "before"] * 4
        + ["after"]
    )
    run = trace[trace["name"] == "run unlucky"].set_index("attempt")
    assert list(run["outcome"]) == ["failed", "failed", "worker lost", "completed"]
    assert list(run["error"].fillna("")) == [
        *["RuntimeError: bad luck"] * 2,
        f"{killed} was silent for {cluster.settings.lease:g} s",
        "",
    ]
    assert (run.loc[3, "process"], run.loc[3, "exported_by"]) == (killed, task.worker_id)
    before = trace[trace["name"] == "before"]
    assert list(before["parent_id"]) == list(run["span_id"]), "also that of the dead worker's own span"
    assert list(before["exported_by"])[2] == killed
    wait = trace[trace["name"].str.startswith("wait")].set_index("attempt")
    assert (wait["ended_at"] <= run["ended_at"]).all()
    assert (run["ended_at"].shift().dropna() <= wait["started_at"][1:] + pd.Timedelta("1ms")).all()


def test_a_late_result_that_is_refused_makes_no_second_span(cluster: LocalCluster, tmp_path: Path) -> None:
    task_id = submit(cluster, "held once", str(tmp_path / "go"))
    paused = cluster.pause_worker(in_attempt(cluster, task_id, 1))
    finished(cluster, task_id)
    (tmp_path / "go").touch()
    cluster.resume_worker(paused)
    wait_until(lambda: "late result refused" in cluster.logs(paused), what="it comes too late")

    trace = spans(cluster, task_id)
    assert list(runs(cluster, task_id)["outcome"]) == ["worker lost", "completed"]
    assert not trace["span_id"].duplicated().any()
    assert len(traces.orphans(trace)) == 0


def test_a_task_that_is_given_back_keeps_its_trace(cluster: LocalCluster, tmp_path: Path) -> None:
    task_id = submit(cluster, "held once", str(tmp_path / "never"))
    stopped = cluster.stop_worker(in_attempt(cluster, task_id, 1))
    trace = finished(cluster, task_id)
    cluster.add_workers(1)

    run = runs(cluster, task_id)
    assert list(run["outcome"]) == ["given back", "completed"]
    assert run["process"].iloc[0] == stopped
    assert len(traces.orphans(trace)) == 0


def test_a_batch_is_one_trace_whose_tasks_share_two_spans(cluster: LocalCluster) -> None:
    file = str(cluster.directory.parent / "spans")
    code = f"import dtq; print(*dtq.Client({cluster.url!r}).submit_many('noop', range(3)))"
    ids = python(code, DTQ_TRACE_FILE=file).stdout.split()
    found = pd.concat(finished(cluster, task_id) for task_id in ids).drop_duplicates("span_id")

    assert found["trace_id"].nunique() == 1
    assert found["name"].value_counts().to_dict() == {
        "submit": 1,
        "POST /tasks/batch": 1,
        "wait": 3,
        "run noop": 3,
    }
    assert len(traces.orphans(found)) == 0


@pytest.mark.parametrize("header", ["", "nonsense", "00-" + 32 * "0" + "-" + 16 * "0" + "-01"])
def test_without_a_valid_context_the_gateway_begins_a_trace(cluster: LocalCluster, header: str) -> None:
    headers = {"traceparent": header, "tracestate": "a=1"}
    answer = requests.post(f"{cluster.url}/tasks", json={"type": "noop", "data": None}, headers=headers)
    trace = finished(cluster, answer.json()["task_id"])
    assert list(trace["name"]) == ["POST /tasks", "wait", "run noop"]
    assert list(trace["parent_id"].isna()) == [True, False, False]


def test_who_says_that_a_trace_is_not_sampled_is_heard(cluster: LocalCluster) -> None:
    headers = {"traceparent": f"00-{32 * 'a'}-{16 * 'b'}-00", "tracestate": "a=1"}
    answer = requests.post(f"{cluster.url}/tasks", json={"type": "noop", "data": None}, headers=headers)
    task = cluster.client.wait(answer.json()["task_id"], timeout=PATIENCE, progress=False)
    assert task.status == Status.COMPLETED
    assert task.traceparent.startswith(f"00-{32 * 'a'}-")
    last = finished(cluster, submit(cluster, "noop"))  # by then the other one's spans would be there
    assert len(last) == 4
    assert len(spans(cluster, task.id)) == 0


def test_the_waterfall_says_who_took_how_long_and_a_line_half_written_is_left_out(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    task_id = submit(cluster, "noop")
    finished(cluster, task_id)
    copy = tmp_path / "spans"
    copy.write_text((cluster.directory.parent / "spans").read_text() + '{"name": "half')
    (ax,) = traces.waterfall(traces.of_task(traces.read(copy), task_id)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "submit",
        "  POST /tasks",
        "    wait",
        "    run noop",
    ]
    assert [text.get_text().split(",")[0] for text in ax.texts[:2]] == ["client", "gateway"]
    assert all(text.get_text().endswith("s") for text in ax.texts)


# The next two start clusters of their own, which ends the one above.


def test_a_collector_gets_all_spans_although_the_processes_end(tmp_path: Path) -> None:
    received: list[tuple[str, str]] = []  # process, span

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                for scope in resource.scope_spans:
                    received.extend((about["service.instance.id"], span.name) for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        # Nothing leaves on time's account within this test: what arrives was flushed at the end.
        late = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        late |= {"OTEL_BSP_SCHEDULE_DELAY": "600000", "NO_PROXY": "127.0.0.1"}
        with LocalCluster(1, env=late, directory=tmp_path) as cluster:
            task_id = submit(cluster, "noop", "--wait", DTQ_TRACE_FILE="", **late).split()[0]
            assert cluster.broker.get(task_id), "it was submitted"
            assert received == [("client", "submit")]
            cluster.stop_worker()
        wait_until(lambda: len(received) == 4, what="the gateway, ended by SIGTERM, has flushed")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert received[1:] == [("worker-1", "wait"), ("worker-1", "run noop"), ("gateway", "POST /tasks")]


def test_without_being_asked_for_nothing_is_loaded(tmp_path: Path) -> None:
    redis_loads = set(python("import sys, redis; print(*sys.modules)").stdout.split())  # its own metrics
    (tmp_path / "loaded.py").write_text(LOADED)
    with LocalCluster(1, tasks=str(tmp_path / "loaded.py"), directory=tmp_path / "home") as cluster:
        code = (
            f"import sys, dtq, dtq.gateway.server; client = dtq.Client({cluster.url!r});"
            "task = client.wait(client.submit('loaded'), progress=False);"
            "print(task.traceparent, *task.result, *sys.modules)"
        )
        traceparent, *loaded = python(code).stdout.split()
    assert traceparent == "None"
    assert {"redis", "dtq.observe.tracing"} <= set(loaded)
    ours = set(loaded) - redis_loads
    assert [name for name in ours if name.startswith("opentelemetry") or name == "dtq.observe.otel"] == []


@pytest.mark.parametrize(
    ("file", "setup", "sentence"),
    [
        ("spans", "sys.modules['opentelemetry'] = None; ", "the extra dtq[tracing] is missing"),
        ("no/such/spans", "", "DTQ_TRACE_FILE='no/such/spans' cannot be written: No such file or directory."),
    ],
)
def test_what_is_in_the_way_is_one_sentence(tmp_path: Path, file: str, setup: str, sentence: str) -> None:
    code = (
        f"import sys; {setup}sys.argv = ['dtq', 'submit', 'noop']; from dtq.cli.commands import main; main()"
    )
    failed = python(code, DTQ_TRACE_FILE=file, PYTHONPATH=str(ROOT))
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: ")
    assert sentence in failed.stderr
    assert failed.stderr.count("\n") == 1
