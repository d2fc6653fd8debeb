"""Settings: read from the environment and `.env`, checked once, at the edge."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.connection import parse_url

from dtq.errors import ConfigError


def _redis_url(url: str) -> str:
    try:
        cast(Any, parse_url)(url)
    except ValueError as error:
        if "Port" not in str(error):
            raise
        reason = "its port must be a number in 0-65535, and special characters of a password %2F and the like"
        raise ValueError(reason) from None  # the original text may quote a part of the password
    return url


def _without_password(url: str) -> str:
    """The url with its password masked."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"^(\w+://)?.*@", r"\1***@", url))


def addresses(text: str) -> list[tuple[str, int]]:
    """The hosts and ports of Sentinels in a list like `10.0.0.1:26379,10.0.0.2`."""
    try:
        parts = [urlsplit(f"//{address.strip()}") for address in text.split(",")]
        found = [(part.hostname or "", part.port or 26379) for part in parts]
    except ValueError:
        found = []
    if not found or not all(host for host, _ in found):
        raise ValueError("it must be a list like 10.0.0.1:26379,10.0.0.2:26379")
    return found


def _sentinels(text: str) -> str:
    addresses(text)
    return text


def _rate_limit(text: str) -> str:
    one = r" *[1-9]\d{0,8} *(/|per) *([1-9]\d{0,8} *)?(second|minute|hour|day)s? *"
    if text != "off" and not re.fullmatch(f"{one}(;{one})*", text):
        raise ValueError("it must be like 50/second, several like 50/second;1000/hour, or off")
    return text


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MaybeZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # seconds


class Settings(BaseSettings):
    """All settings. A field such as `lease` is read from `DTQ_LEASE`, unless it has an alias."""

    model_config = SettingsConfigDict(
        env_prefix="DTQ_", env_file=".env", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(None, alias="REDIS_URL")
    redis_host: str | None = Field(None, alias="REDIS_HOST")
    redis_port: int = Field(6379, alias="REDIS_PORT", ge=1, le=65535)
    key_prefix: str = Field("", pattern=r"^[\w.:{}-]*$", description="goes before every Redis key")
    redis_sentinels: Annotated[str, AfterValidator(_sentinels)] | None = Field(
        None, description="Sentinels to ask for the primary, host:port,host:port"
    )
    redis_service: str = Field("dtq", description="name by which the Sentinels know the primary")
    redis_cluster: bool = Field(False, description="the server is a node of a Redis Cluster")
    wait_replicas: int = Field(0, ge=0, description="replicas that have a task before it is acknowledged")
    sentinel_password: SecretStr | None = Field(None, description="password of the Sentinels")
    home: Path = Field(Path(".dtq"), description="folder of the embedded Redis server's data and address")

    host: str = Field("127.0.0.1", description="address the gateway listens on")
    port: int = Field(5000, alias="PORT", ge=0, le=65535)
    auth: Literal["auto", "required", "off"] = Field(
        "auto", description="API keys: auto needs them wherever the gateway listens beyond this machine"
    )
    api_key: SecretStr | None = Field(None, description="key that client and commands send to the gateway")
    rate_limit: Annotated[str, AfterValidator(_rate_limit)] | None = Field(
        None,
        description="calls for each key or address, as `50/second`; off: none; by default with keys only",
    )
    rate_limit_away: Literal["local", "refuse", "allow"] = Field(
        "local", description="while Redis is away: each gateway counts alone, refuses all, or counts nothing"
    )

    heartbeat: Seconds = Field(5.0, description="seconds between a worker's signs of life")
    lease: Seconds = Field(15.0, description="seconds until a silent worker's tasks are given to others")
    drain_timeout: Seconds = Field(30.0, description="seconds that a stopping worker gives its task")
    task_timeout: Seconds = Field(300.0, description="seconds that a task may run")
    prefetch_seconds: MaybeZero = Field(0.05, description="seconds of work that a worker claims at once")
    prefetch_max: int = Field(64, ge=1, le=1000, description="tasks that a worker claims at once")
    work_time: MaybeZero = Field(0.0, description="seconds of simulated work in `process`, `calculate`")

    max_retries: int = Field(3, ge=0, le=100, description="failures after which a task is dead")
    backoff_base: Seconds = Field(2.0, description="seconds before the first retry; doubles each time")
    backoff_cap: Seconds = Field(300.0, description="longest wait before a retry, seconds")
    backoff_jitter: float = Field(0.1, ge=0, le=1, description="share of a wait that is left to chance")
    max_crashes: int = Field(3, ge=1, description="lost workers after which a task is dead")
    high_burst: int = Field(10, ge=0, description="high tasks in a row before a normal one; 0: no limit")
    result_ttl: int = Field(3600, ge=1, description="seconds that a finished task is kept")
    dead_letter_ttl: int = Field(0, ge=0, description="seconds that a dead task is kept; 0: for ever")
    dead_letter_max: int = Field(0, ge=0, description="dead tasks that are kept, the newest; 0: all")
    log_format: Literal["human", "json"] = Field("human", description="how log lines look")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @property
    def url(self) -> str | None:
        """The URL of the Redis server that the settings name, or None for the embedded one.

        Raises:
            ConfigError: the server is in a Cluster, but none of its nodes is named.
        """
        if self.redis_cluster and not (self.redis_url or self.redis_host):
            raise ConfigError("DTQ_REDIS_CLUSTER is set, but not where: name one of its nodes in REDIS_URL.")
        if self.redis_sentinels and not self.redis_url:
            return f"redis://{self.redis_service}/0"  # the Sentinels know the host
        if self.redis_url or not self.redis_host:
            return self.redis_url
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{host}:{self.redis_port}/0"


def load() -> Settings:
    """Settings from the environment and `.env`.

    Raises:
        ConfigError: names the variable, its value and what would be right.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        variable = field if field.isupper() else f"DTQ_{field.upper()}"
        message = first["msg"].removeprefix("Value error, ")
        value = _without_password(first["input"]) if field == "REDIS_URL" else first["input"]
        raise ConfigError(f"{variable}={value!r} cannot be used: {message}.") from None
    if settings.lease < 2 * settings.heartbeat:
        raise ConfigError(
            f"DTQ_LEASE={settings.lease:g} is too short: it must be at least twice "
            f"DTQ_HEARTBEAT={settings.heartbeat:g}, so that one lost beat does not cost a worker its task."
        )
    return settings
