"""Runs the gateway under waitress, beside a thread that maintains the queue, workers or not."""

import json
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import closing
from pathlib import Path

import redis
import waitress  # type: ignore[import-untyped]

from dtq import redis_server
from dtq.broker import MAINTENANCE_INTERVAL, Broker
from dtq.config import Settings
from dtq.errors import ConfigError
from dtq.gateway import create_app, models
from dtq.outage import Outage

log = logging.getLogger("dtq.gateway")


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C; starts the embedded Redis server where none is named or runs.

    Raises:
        ConfigError: the address cannot be listened on.
        NoServerError: there is no Redis server.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a busy moment is no news
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    listener = _listen(settings.host, settings.port)  # first: a taken port leaves nothing behind
    with listener, redis_server.serve(settings) as url, closing(connect(url, settings)) as broker:
        ended = threading.Event()
        maintenance = threading.Thread(target=_maintain, args=(broker, ended), daemon=True)
        maintenance.start()
        note = _note(settings, listener.getsockname()[1])
        try:
            # A body that is too long is read all the same, so that its sender can hear what was wrong.
            limits = {"threads": 16, "max_request_body_size": 16 * models.BODY_LIMIT}
            waitress.create_server(create_app(broker), sockets=[listener], **limits).run()
        finally:
            if note.exists() and json.loads(note.read_text())["pid"] == os.getpid():  # else another's
                note.unlink()
            ended.set()
            maintenance.join()


def connect(url: str, settings: Settings) -> Broker:
    """A broker for those who wait for an answer: it works within two seconds, or raises."""
    return Broker(f"{url}{'&' if '?' in url else '?'}socket_timeout=1&socket_connect_timeout=1", settings)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"The gateway cannot listen on {host}, port {port} ({error.strerror}): "
            "choose another port with PORT=5001 or --port 5001."
        ) from None


def _maintain(broker: Broker, ended: threading.Event) -> None:
    outage, pause = Outage(log), 0.0
    while not ended.wait(pause):
        try:
            broker.maintain()
            outage.over()
            pause = MAINTENANCE_INTERVAL
        except redis.RedisError as error:
            pause = outage.failed(error)


def _note(settings: Settings, port: int) -> Path:
    """Writes the address down, so that other terminals find it. They read all of it, or nothing."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    settings.home.mkdir(parents=True, exist_ok=True)
    draft = settings.home / f"gateway.{os.getpid()}"
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    log.info("listening on %s", url)
    return draft.replace(settings.home / "gateway.json")
