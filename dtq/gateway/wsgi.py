"""The gateway for a WSGI server that runs many processes: `gunicorn 'dtq.gateway.wsgi:create()'`."""

import threading

from flask import Flask

from dtq import config
from dtq.errors import ConfigError
from dtq.gateway import create_app
from dtq.gateway.access import KeyPolicy, warn
from dtq.gateway.maintaining import keep_maintaining
from dtq.gateway.server import connect, log
from dtq.observe import logs, tracing


def load() -> config.Settings:
    """Settings from the environment.

    Raises:
        ConfigError: they cannot be used, or name no Redis server.
    """
    settings = config.load()
    if not settings.url:
        raise ConfigError("REDIS_URL is not set: under gunicorn the gateway needs a Redis server that runs.")
    return settings


def create() -> Flask:
    """The application, once in each process: a connection to Redis must not be shared across a fork.

    Raises:
        ConfigError: as `load`.
    """
    settings = load()
    logs.setup(settings)
    tracing.start("gateway")
    broker = connect(str(settings.url), settings)
    # Each process maintains the queue, so that leases end and delays pass also where no worker lives; Redis
    # lets one of them do it at a time. The thread ends with its process.
    threading.Thread(
        target=keep_maintaining, args=(broker.maintain, threading.Event(), log), daemon=True
    ).start()
    policy = KeyPolicy.decide(settings.auth, reachable=None)  # the server's own options may name any address
    warn(policy, broker)
    return create_app(broker, policy)
