"""The `dtq` command, each time as a person runs it: a process of its own in a folder of its own."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtq import announcement
from dtq.processes.program import dtq
from dtq.redis_server import free_port
from tests.commands import environment, run, said, started, system, terminal, workers
from tests.helpers import ROOT, wait_until

COMMANDS = ["demo", "doctor", "gateway", "key", "redis", "status", "stress", "submit", "up", "worker"]
QUEUES = ["pending", "processing", "delayed", "waiting", "dead letter", "completed"]
MINE = "from dtq.tasks import task\n\n@task('double')\ndef double(data, context): return 2 * data\n"
STRESS_TEST = ROOT / "scripts" / "stress_test.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a system runs, for all tests that leave it as it is."""
    with system(tmp_path_factory.mktemp("system")) as folder:
        yield folder


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_one_sentence_of_help(command: str, tmp_path: Path) -> None:
    usage, sentence, *_ = said(tmp_path, command, "--help").split("\n\n")

    assert usage.startswith(f"Usage: python -m dtq {command}")
    assert re.fullmatch(r"[A-Z].*[^.]\.", sentence.strip())
    assert "\n" not in sentence


def test_the_overview_names_every_command_and_cuts_no_sentence(tmp_path: Path) -> None:
    overview = said(tmp_path, "--help")

    assert re.findall(r"^  (\w+)  +[A-Z].*[^.]\.$", overview, re.MULTILINE) == COMMANDS
    assert said(tmp_path, "-h") == overview
    assert re.fullmatch(r".*version \d+\.\d+\.\d+\n", said(tmp_path, "--version"))


def test_help_does_not_load_what_only_a_command_needs() -> None:
    heavy = {"flask", "pydantic", "redis", "requests", "tqdm"}
    program = f"import sys, dtq.cli.commands; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"


def test_no_command_needs_what_only_the_notebooks_have() -> None:
    program = """
import sys
sys.modules |= dict.fromkeys(["pandas", "matplotlib", "numpy", "IPython"])  # as if they were not installed
import dtq.lab.demo, dtq.cli.redis_prompt, dtq.cli.status, dtq.cli.stress
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# ---------------------------------------------------------------- up


def test_up_starts_a_worker_again_that_died(tmp_path: Path) -> None:
    with system(tmp_path):
        before = workers(tmp_path)
        os.kill(before["worker-1"], signal.SIGKILL)
        wait_until(
            lambda: workers(tmp_path).get("worker-1") not in (None, before["worker-1"]),
            what="it is there again",
        )

        assert workers(tmp_path)["worker-2"] == before["worker-2"]
    log = (tmp_path / "up.log").read_text()
    assert "worker-1 ended with -9, it is started again" in log
    assert not announcement.path(tmp_path / ".dtq").exists()


def test_up_says_where_everything_is(folder: Path) -> None:
    redis = json.loads((folder / ".dtq" / "redis.json").read_text())
    log = (folder / "up.log").read_text()

    assert f"Redis    {redis['url']}" in log
    assert f"Gateway  {announcement.find(folder / '.dtq')} " in log
    assert "Workers  worker-1, worker-2" in log


def test_up_on_a_port_that_is_taken_says_so_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = run(tmp_path, "up", "--port", port)

    assert done.returncode == 1
    assert f"The gateway cannot listen on 127.0.0.1, port {port}" in done.stderr
    assert not (tmp_path / ".dtq").exists()


def test_tasks_are_kept_from_one_up_to_the_next(tmp_path: Path) -> None:
    with system(tmp_path):
        task_id = said(tmp_path, "submit", "noop", "--delay", "1000").strip()
    with system(tmp_path):
        assert task_id in said(tmp_path, "status")


# ---------------------------------------------------------------- gateway and worker


def test_gateway_and_workers_run_in_terminals_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    with started(tmp_path, "gateway", "--port", "0") as gateway:
        gateway.url()
        with started(tmp_path, "worker", "--processes", "2", "--name", "mine", "--tasks", "mine"):
            wait_until(lambda: len(workers(tmp_path)) == 2, what="both processes are there")

            assert sorted(workers(tmp_path)) == ["mine-1", "mine-2"]
            assert said(tmp_path, "submit", "double", "21", "--wait").splitlines()[1:] == ["42"]
        assert workers(tmp_path) == {}, "they said goodbye"


# ---------------------------------------------------------------- submit


@pytest.mark.parametrize(
    ("data", "result"),
    [
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("Hello, world!", "Hello, world!"),
        ("42", 42),
        ('"42"', "42"),
        ("", ""),
        ('{"a": ', '{"a": '),
        ("ü", "ü"),
    ],
)
def test_data_is_json_or_else_plain_text(folder: Path, data: str, result: object) -> None:
    task_id, text = said(folder, "submit", "process", data, "--wait").splitlines()

    assert json.loads(text) == {"processed": result}
    assert json.loads(said(folder, "redis", "GET", f"task:{task_id}"))["data"] == result


def test_options_of_a_submission_arrive(folder: Path) -> None:
    parent = said(folder, "submit", "noop", "--delay", "1000").strip()
    options = ["--priority", "high", "--depends-on", parent, "--max-retries", "0", "--timeout", "1.5"]
    task_id = said(folder, "submit", "noop", *options).strip()

    task = json.loads(said(folder, "redis", "GET", f"task:{task_id}"))
    assert (task["priority"], task["depends_on"], task["max_retries"]) == ("high", [parent], 0)
    assert (task["timeout"], task["status"], task["data"]) == (1.5, "waiting", None)


def test_waiting_for_a_task_that_fails_tells_why(folder: Path) -> None:
    done = run(folder, "submit", "fail", '{"permanent": true}', "--wait")

    assert done.returncode == 1
    assert re.fullmatch(r"[0-9a-f-]{36}\n", done.stdout)
    assert done.stderr == "Error: The task is failed: failed for good, as asked.\n"


# ---------------------------------------------------------------- status


def test_status_shows_health_queues_workers_and_tasks(folder: Path) -> None:
    task_id = said(folder, "submit", "noop", "--wait").splitlines()[0]

    shown = said(folder, "status").splitlines()

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ is healthy\.", shown[0])
    assert re.findall(r"([a-z ]+?) \d+(?:, |$)", shown[1]) == QUEUES
    assert [line.split()[0] for line in shown[3:6]] == ["worker", "worker-1", "worker-2"]
    assert shown[7].split() == ["task", "type", "priority", "status", "attempts", "worker", "age"]
    assert re.match(rf"{task_id} +noop +normal +completed +1 +worker-[12] +\d+\.\ds$", shown[8])


def test_names_cannot_steer_the_terminal(folder: Path) -> None:
    submitted = run(folder, "submit", "\x1b[2Jevil", "--delay", "1000")
    assert "No live worker knows \\x1b[2Jevil" in submitted.stderr

    shown = said(folder, "status")

    assert "?[2Jevil" in shown
    assert "\x1b" not in shown + submitted.stderr


def test_status_tells_of_a_system_without_redis(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    with started(tmp_path, "gateway", "--port", "0", REDIS_URL=url) as gateway:
        gateway.url()
        assert re.fullmatch(r"http://\S+ is unhealthy\. Redis .*\n", said(tmp_path, "status"))


def test_status_is_drawn_anew_in_the_same_place_until_ctrl_c(folder: Path) -> None:
    with terminal(folder, "status", "--watch") as screen:
        first = screen.read_until("worker-2")
        task_id = said(folder, "submit", "noop").strip()
        later = screen.read_until(task_id)
        screen.interrupt()

        assert screen.exit_code() == 0
    assert first.startswith("\x1b[2J\x1b[H")
    assert "\x1b[H" in later


# ---------------------------------------------------------------- stress


@pytest.mark.parametrize("command", [dtq("stress"), [sys.executable, str(STRESS_TEST)]])
def test_stress_tells_time_throughput_latency_and_shares(folder: Path, command: list[str]) -> None:
    options = ["--tasks", "300", "--type", "process", "--data", "x", "--concurrency", "3"]
    done = subprocess.run([*command, *options], cwd=folder, env=environment(), capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    figures = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert figures["submitted"].startswith("300 tasks of type process in ")
    assert figures["ended"] == "300 completed"
    assert re.fullmatch(r"\d+\.\d\d s from .*", figures["time"])
    assert re.fullmatch(r"[1-9]\d* tasks/s", figures["throughput"])
    assert re.fullmatch(r"mean \d+ ms, p95 \d+ ms", figures["latency"])
    shares = [int(text.split()[0]) for name, text in figures.items() if name.startswith("worker-")]
    assert sum(shares) == 300


def test_stress_does_a_hundred_by_default_and_five_thousand_if_asked(folder: Path) -> None:
    assert "ended       100 completed\n" in said(folder, "stress")
    assert "ended       5000 completed\n" in said(folder, "stress", "--tasks", "5000")


def test_stress_with_tasks_that_fail_says_so(folder: Path) -> None:
    done = run(folder, "stress", "--tasks", "3", "--type", "fail", "--data", '{"permanent": true}')

    assert done.returncode == 1
    assert "ended       3 failed\n" in done.stdout
    assert re.search(r"^error .*failed for good.* \(3 times\)$", done.stdout, re.MULTILINE)


def test_stress_with_a_type_that_no_worker_knows_does_not_wait_for_ever(folder: Path) -> None:
    done = run(folder, "stress", "--tasks", "3", "--type", "unheard-of")

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"Error: No worker knows the type 'unheard-of': take one of .*noop.*\.\n", done.stderr
    )


def test_stress_without_workers_does_not_wait_for_ever(tmp_path: Path) -> None:
    with started(tmp_path, "gateway", "--port", "0") as gateway:
        gateway.url()
        done = run(tmp_path, "stress")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: No worker runs, so nothing would be done: start one with `dtq worker`.\n"


def test_stress_shows_its_progress_in_a_terminal(folder: Path) -> None:
    options = ["--tasks", "20", "--type", "sleep", "--data", "0.02"]
    with terminal(folder, "stress", *options) as screen:
        shown = screen.read_until("throughput")
    assert "submitted:" in shown
    assert "completed:" in shown


# ---------------------------------------------------------------- redis


def test_redis_runs_one_command_for_other_programs(folder: Path) -> None:
    assert said(folder, "redis", "LLEN", "tasks:pending").strip().isdigit()
    assert sorted(said(folder, "redis", "SMEMBERS", "workers:active").split()) == ["worker-1", "worker-2"]
    assert said(folder, "redis", "SET", "mine", "-h") == "OK\n"
    assert said(folder, "redis", "GET", "mine") == "-h\n"


def test_redis_asks_for_commands_where_none_is_given(folder: Path) -> None:
    assert said(folder, "redis", stdin="PING\nexit\nPING\n").count("PONG") == 1


def test_redis_marks_types_for_people(folder: Path) -> None:
    with terminal(folder, "redis", "LLEN", "no:such:list") as screen:
        assert "(integer) 0" in screen.read_until("\n")


def test_a_refused_redis_command_is_an_error(folder: Path) -> None:
    done = run(folder, "redis", "NONSENSE")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("(error) ERR unknown command 'NONSENSE'")


# ---------------------------------------------------------------- demo


def test_demo_kills_a_worker_and_loses_nothing(tmp_path: Path) -> None:
    shown = said(tmp_path, "demo")

    victim = re.search(r"^Killed (worker-[123]) ", shown, re.MULTILINE)
    assert victim
    assert re.search(rf"was in the hands of {victim[1]}; worker-[123] completed it\.", shown)
    assert "0 lost of 20 acknowledged tasks" in shown
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["status"], "No gateway answers at http://127.0.0.1:{port}: start one with `dtq up`."),
        (["submit", "noop"], "No gateway answers at http://127.0.0.1:{port}: start one with `dtq up`."),
        (["stress"], "No gateway answers at http://127.0.0.1:{port}: start one with `dtq up`."),
        (["worker"], "No Redis server runs for "),
        (["redis", "PING"], "No Redis server runs for "),
        (["up", "--tasks", "nothing"], "--tasks nothing: no module of this name can be imported from "),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    port = str(free_port())
    done = run(tmp_path, *arguments, PORT=port)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: " + sentence.format(port=port))
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "sentence"),
    [
        (["status"], {"PORT": "abc"}, 1, "PORT='abc' cannot be used"),
        (["worker"], {"DTQ_LEASE": "1"}, 1, "DTQ_LEASE=1 is too short"),
        (["redis", "PING"], {"REDIS_URL": "redis://127.0.0.1:1"}, 1, "Redis does not answer"),
        (["gateway", "--port", "99999"], {}, 2, "99999 is not in the range"),
        (["stress", "--tasks", "0"], {}, 2, "0 is not in the range"),
        (["stress", "--concurrency", "many"], {}, 2, "'many' is not a valid integer"),
        (["submit", "noop", "--priority", "urgent"], {}, 2, "'urgent' is not one of 'normal', 'high'"),
        (["submit"], {}, 2, "Missing argument 'TYPE'"),
        (["sumbit"], {}, 2, "No such command 'sumbit'"),
    ],
)
def test_bad_input_is_no_stack_trace(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], code: int, sentence: str
) -> None:
    done = run(tmp_path, *arguments, **variables)

    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusal_of_the_gateway_is_shown_as_it_is(folder: Path) -> None:
    for arguments in (["NaN"], ["--depends-on", "nobody"], ["--delay", "1e9"]):
        done = run(folder, "submit", "noop", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"Error: .*\.\n", done.stderr)


PIPED = ["status", "status --watch", "redis MONITOR", "redis INFO", "stress", "--help"]


@pytest.mark.parametrize("command", PIPED)
def test_a_closed_pipe_is_no_stack_trace(folder: Path, command: str) -> None:
    line = f"{shlex.join(dtq())} {command} | head -n 1"
    done = subprocess.run(line, shell=True, cwd=folder, env=environment(), capture_output=True, text=True)

    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
