"""The README is true: its tables agree with the code, and its commands do what it says."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from dtq.config import Settings
from dtq.lab.course.lessons import LESSONS
from tests.commands import listening
from tests.helpers import PATIENCE, ROOT, wait_until

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
TOUR = next(block for block in BLOCKS if "# Submit a task" in block)
ENDLESS = ("MONITOR", "--watch")


def commands(block: str) -> list[str]:
    """The block's commands, each with its continuation lines and without its comment."""
    lines = block.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s)#\s.*", "", line).strip())]


def test_the_plan_is_that_of_the_course() -> None:
    rows = re.findall(r"^\| (\d) \| \[(\w+)\]\((\S+)\) \| (.*?) \| (\d+) \|$", README, re.MULTILINE)
    assert rows == [
        (name[4], name, f"notebooks/{name}.ipynb", does, str(minutes)) for name, minutes, does in LESSONS
    ]
    assert {path.stem for path in ROOT.glob("notebooks/*.ipynb")} == {lesson.notebook for lesson in LESSONS}


def test_the_configuration_table_is_that_of_the_settings() -> None:
    table = README[README.index("| variable |") : README.index("## Troubles")]
    told: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.MULTILINE):
        told |= dict(zip(re.findall(r"`(\w+)`", names), defaults.replace("`", "").split(", "), strict=False))
    fields = Settings.model_fields
    real = {field.alias or f"DTQ_{name.upper()}": field.default for name, field in fields.items()}
    assert told.keys() == real.keys()
    shown = {name: f"{it:g}" if isinstance(it, int | float) else str(it) for name, it in real.items()}
    in_words = {name for name, default in shown.items() if default in ("", "None")}
    assert {name: told[name] for name in told if name not in in_words} == {
        name: default for name, default in shown.items() if name not in in_words
    }


def test_the_faults_have_tests() -> None:
    named = re.findall(r"\[`(test_\w+)`\]\((\S+)\)", README)
    assert len(named) > 12
    assert [(test, path) for test, path in named if f"def {test}(" not in (ROOT / path).read_text()] == []


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\((\S+?)\)", README) if not link.startswith("http")]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """`dtq up` as the README starts it, in a folder of its own; the folder and the gateway's port."""
    folder = tmp_path_factory.mktemp("readme")
    start = next(line for block in BLOCKS for line in commands(block) if line.startswith("dtq up"))
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [*start.split(), "--port", "0"], cwd=folder, env=environment(), stdout=log, stderr=log
        )
    try:
        url = listening(folder / ".dtq")
        wait_until(
            lambda: requests.get(f"{url}/health", timeout=PATIENCE).json()["workers"] == 3,
            what="three workers",
        )
        yield folder, int(url.rsplit(":")[-1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE)


def environment() -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("DTQ_", "REDIS_", "PORT"))
    }
    return clean | {"PATH": f"{Path(sys.executable).parent}:{clean['PATH']}"}


def is_completed(port: int, task_id: str) -> bool:
    answer = requests.get(f"http://localhost:{port}/tasks/{task_id}", timeout=PATIENCE)
    return bool(answer.json()["status"] == "completed")


def typed(command: str, folder: Path) -> str:
    """What a command prints that is typed into a shell; it must work."""
    shell, options = ["bash", "-c", command], {"cwd": folder, "env": environment(), "timeout": PATIENCE}
    done = subprocess.run(shell, capture_output=True, text=True, **options)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_the_tour_works_command_by_command(up: tuple[Path, int]) -> None:
    folder, port = up
    said: dict[str, str] = {}
    task_id = ""
    for command in commands(TOUR):
        if command.endswith(ENDLESS):
            continue
        ready = command.replace("localhost:5000", f"localhost:{port}").replace("{TASK_ID}", task_id)
        ready = ready.replace("scripts/stress_test.py", str(ROOT / "scripts/stress_test.py"))
        said[command] = typed(ready, folder)
        if "-X POST" in command:
            answer = json.loads(said[command])
            assert answer["success"] is True
            assert answer["message"] == "Task submitted successfully"
            task_id = answer["task_id"]
            wait_until(partial(is_completed, port, task_id), what="the task is completed")

    def answer_of(end: str) -> str:
        return next(text for command, text in said.items() if command.endswith(end))

    assert json.loads(answer_of("/health"))["status"] == "healthy"
    assert json.loads(answer_of("/tasks"))["count"] == 1
    assert len(json.loads(answer_of("/workers"))["workers"]) == 3
    assert json.loads(answer_of("/tasks/{TASK_ID}"))["data"] == "Hello Distributed Systems!"
    assert answer_of("KEYS 'worker:*'").count("worker:worker-") == 3
    assert f"task:{task_id}" in answer_of("KEYS 'task:*'")
    assert answer_of("SMEMBERS workers:active").count("worker-") == 3
    assert "0" in answer_of("LLEN tasks:pending")
    assert '"status":"completed"' in answer_of("GET task:{TASK_ID}").replace("\\", "")
    assert "500" in answer_of("dtq stress --tasks 500")
    assert "500" in answer_of("scripts/stress_test.py --tasks 500")
    assert "0 lost" in answer_of("dtq demo")


@pytest.mark.parametrize("word", ENDLESS)
def test_what_goes_on_until_it_is_stopped_stops_by_ctrl_c(up: tuple[Path, int], word: str) -> None:
    folder, _ = up
    (command,) = [command for command in commands(TOUR) if command.endswith(word)]
    with subprocess.Popen(
        command.split(),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode in (0, 1, 130)


def test_a_gateway_and_a_worker_in_terminals_of_their_own(tmp_path: Path) -> None:
    block = next(block for block in BLOCKS if "terminal 1" in block)
    gateway, worker = commands(block)
    assert (gateway, worker) == ("dtq gateway", "python -m dtq worker")
    port = environment() | {"PORT": "0"}
    with subprocess.Popen(gateway.split(), cwd=tmp_path, env=port, stderr=subprocess.DEVNULL) as first:
        url = listening(tmp_path / ".dtq")
        with subprocess.Popen(worker.split(), cwd=tmp_path, env=port, stderr=subprocess.DEVNULL) as second:
            health = wait_until(
                lambda: (it := requests.get(f"{url}/health", timeout=PATIENCE).json())["workers"] and it,
                what="the worker is there",
            )
            assert health["status"] == "healthy"
            second.send_signal(signal.SIGINT)
        first.send_signal(signal.SIGINT)
    assert (first.returncode, second.returncode) == (0, 0)
