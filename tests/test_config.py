"""Settings: where they are read from, and what is said of those that cannot be used."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dtq import config
from dtq.config import Settings
from dtq.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and none of the variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("DTQ_", "REDIS_")) or name == "PORT"]:
        monkeypatch.delenv(name)


VARIABLES: list[tuple[str, str, str, Any]] = [
    ("REDIS_URL", "redis_url", "redis://example.org:1234/5", "redis://example.org:1234/5"),
    ("REDIS_HOST", "redis_host", "example.org", "example.org"),
    ("REDIS_PORT", "redis_port", "1234", 1234),
    ("DTQ_REDIS_SENTINELS", "redis_sentinels", "10.0.0.1:26379,[::1]:26380", "10.0.0.1:26379,[::1]:26380"),
    ("DTQ_REDIS_SERVICE", "redis_service", "jobs", "jobs"),
    ("DTQ_REDIS_CLUSTER", "redis_cluster", "true", True),
    ("DTQ_WAIT_REPLICAS", "wait_replicas", "1", 1),
    ("DTQ_SENTINEL_PASSWORD", "sentinel_password", "hush", SecretStr("hush")),
    ("DTQ_KEY_PREFIX", "key_prefix", "{team-a}:", "{team-a}:"),
    ("DTQ_HOME", "home", "/tmp/dtq", Path("/tmp/dtq")),
    ("DTQ_HOST", "host", "0.0.0.0", "0.0.0.0"),
    ("PORT", "port", "0", 0),
    ("DTQ_AUTH", "auth", "required", "required"),
    ("DTQ_API_KEY", "api_key", "dtq_ci_secret", SecretStr("dtq_ci_secret")),
    ("DTQ_RATE_LIMIT", "rate_limit", "50/second", "50/second"),
    ("DTQ_RATE_LIMIT_AWAY", "rate_limit_away", "refuse", "refuse"),
    ("DTQ_HEARTBEAT", "heartbeat", "0.5", 0.5),
    ("DTQ_LEASE", "lease", "60", 60.0),
    ("DTQ_DRAIN_TIMEOUT", "drain_timeout", "1.5", 1.5),
    ("DTQ_TASK_TIMEOUT", "task_timeout", "1e3", 1000.0),
    ("DTQ_PREFETCH_SECONDS", "prefetch_seconds", "0", 0.0),
    ("DTQ_PREFETCH_MAX", "prefetch_max", "1000", 1000),
    ("DTQ_WORK_TIME", "work_time", "1", 1.0),
    ("DTQ_MAX_RETRIES", "max_retries", "0", 0),
    ("DTQ_BACKOFF_BASE", "backoff_base", "0.1", 0.1),
    ("DTQ_BACKOFF_CAP", "backoff_cap", "10", 10.0),
    ("DTQ_BACKOFF_JITTER", "backoff_jitter", "1", 1.0),
    ("DTQ_MAX_CRASHES", "max_crashes", "1", 1),
    ("DTQ_HIGH_BURST", "high_burst", "0", 0),
    ("DTQ_RESULT_TTL", "result_ttl", "1", 1),
    ("DTQ_DEAD_LETTER_TTL", "dead_letter_ttl", "60", 60),
    ("DTQ_DEAD_LETTER_MAX", "dead_letter_max", "10", 10),
    ("DTQ_LOG_FORMAT", "log_format", "json", "json"),
    ("DTQ_LOG_LEVEL", "log_level", "DEBUG", "DEBUG"),
]


@pytest.mark.parametrize(("variable", "field", "text", "value"), VARIABLES, ids=[row[0] for row in VARIABLES])
def test_each_setting_is_read_from_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, field: str, text: str, value: Any
) -> None:
    assert getattr(config.load(), field) != value, "it is not the default"
    monkeypatch.setenv(variable, text)

    assert getattr(config.load(), field) == value


def test_every_setting_is_in_this_list() -> None:
    listed = {field for _, field, _, _ in VARIABLES}

    assert listed <= set(Settings.model_fields)
    assert set(Settings.model_fields) - listed <= {"auth", "log_format", "rate_limit"}, "add a row above"


def test_the_defaults_fit_together() -> None:
    settings = config.load()

    assert (settings.heartbeat, settings.lease, settings.max_retries, settings.port) == (5, 15, 3, 5000)
    assert (settings.host, settings.key_prefix, settings.home) == ("127.0.0.1", "", Path(".dtq"))
    assert settings.url is None


@pytest.mark.parametrize("variable", ["DTQ_LEASE", "PORT", "REDIS_URL", "DTQ_LOG_LEVEL"])
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    before = config.load()
    monkeypatch.setenv(variable, "")

    assert config.load() == before


def test_a_dotenv_file_is_read_and_the_environment_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "# ours\nDTQ_LEASE=20\nDTQ_HEARTBEAT='4'\nREDIS_URL=redis://a:1/2\nOTHER=1\n"
    )
    monkeypatch.setenv("DTQ_LEASE", "30")

    settings = config.load()

    assert (settings.lease, settings.heartbeat, settings.url) == (30, 4, "redis://a:1/2")


def test_a_value_in_a_dotenv_file_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DTQ_MAX_RETRIES=many\n")

    with pytest.raises(ConfigError, match=r"^DTQ_MAX_RETRIES='many' cannot be used: "):
        config.load()


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_HOST": "redis"}, "redis://redis:6379/0"),
        ({"REDIS_HOST": "redis", "REDIS_PORT": "1234"}, "redis://redis:1234/0"),
        ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
        ({"REDIS_PORT": "1234"}, None),
        ({"REDIS_URL": "rediss://:secret@a/1", "REDIS_HOST": "redis"}, "rediss://:secret@a/1"),
        ({"REDIS_URL": "unix:///run/redis.sock"}, "unix:///run/redis.sock"),
    ],
)
def test_the_server_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert config.load().url == url


@pytest.mark.parametrize(
    ("variable", "text", "right"),
    [
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("REDIS_URL", "http://localhost", "redis://"),
        ("REDIS_URL", "redis://localhost:port/0", "port"),
        ("REDIS_URL", "redis://localhost:99999/0", "0-65535"),
        ("REDIS_PORT", "0", "greater than or equal to 1"),
        ("REDIS_PORT", "six", "valid integer"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("PORT", "-1", "greater than or equal to 0"),
        ("DTQ_KEY_PREFIX", "team a", "pattern"),
        ("DTQ_KEY_PREFIX", "a'b", "pattern"),
        ("DTQ_LEASE", "soon", "valid number"),
        ("DTQ_LEASE", "-1", "greater than 0"),
        ("DTQ_LEASE", "0", "greater than 0"),
        ("DTQ_LEASE", "inf", "finite number"),
        ("DTQ_LEASE", "nan", "finite number"),
        ("DTQ_HEARTBEAT", "0", "greater than 0"),
        ("DTQ_DRAIN_TIMEOUT", "0", "greater than 0"),
        ("DTQ_TASK_TIMEOUT", "nan", "finite number"),
        ("DTQ_PREFETCH_SECONDS", "-1", "greater than or equal to 0"),
        ("DTQ_PREFETCH_SECONDS", "inf", "finite number"),
        ("DTQ_PREFETCH_SECONDS", "nan", "finite number"),
        ("DTQ_PREFETCH_MAX", "0", "greater than or equal to 1"),
        ("DTQ_PREFETCH_MAX", "1001", "less than or equal to 1000"),
        ("DTQ_WORK_TIME", "inf", "finite number"),
        ("DTQ_MAX_RETRIES", "1.5", "valid integer"),
        ("DTQ_MAX_RETRIES", "101", "less than or equal to 100"),
        ("DTQ_BACKOFF_JITTER", "2", "less than or equal to 1"),
        ("DTQ_BACKOFF_JITTER", "nan", "less than or equal to 1"),
        ("DTQ_MAX_CRASHES", "0", "greater than or equal to 1"),
        ("DTQ_HIGH_BURST", "-1", "greater than or equal to 0"),
        ("DTQ_RESULT_TTL", "0", "greater than or equal to 1"),
        ("DTQ_LOG_LEVEL", "LOUD", "INFO"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, right: str
) -> None:
    monkeypatch.setenv(variable, text)

    with pytest.raises(ConfigError) as raised:
        config.load()
    sentence = str(raised.value)
    assert sentence.startswith(f"{variable}={text!r} cannot be used: ")
    assert right in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("heartbeat", "lease", "fits"), [("5", "10", True), ("5", "9.9", False), ("8", "15", False)]
)
def test_a_lease_is_worth_two_heartbeats(
    monkeypatch: pytest.MonkeyPatch, heartbeat: str, lease: str, fits: bool
) -> None:
    monkeypatch.setenv("DTQ_HEARTBEAT", heartbeat)
    monkeypatch.setenv("DTQ_LEASE", lease)

    if fits:
        assert config.load().lease == float(lease)
    else:
        with pytest.raises(ConfigError) as raised:
            config.load()
        assert str(raised.value) == (
            f"DTQ_LEASE={lease} is too short: it must be at least twice DTQ_HEARTBEAT={heartbeat}, "
            "so that one lost beat does not cost a worker its task."
        )
