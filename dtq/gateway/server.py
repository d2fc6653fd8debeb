"""Runs the gateway under waitress, beside a thread that maintains the queue, workers or not."""

import logging
import signal
import socket
import sys
import threading
from contextlib import closing

from dtq import announcement, redis_server
from dtq.config import Settings
from dtq.errors import ConfigError
from dtq.gateway import create_app
from dtq.gateway.access import policy_to_start_with, warn
from dtq.gateway.listening import Server
from dtq.gateway.maintaining import keep_maintaining
from dtq.queue.broker import ANSWER_TIMEOUT, Broker

log = logging.getLogger("dtq.gateway")


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C; starts the embedded Redis server where none is named or runs.

    Raises:
        ConfigError: the address cannot be listened on, or others reach it and there is no key yet.
        NoServerError: there is no Redis server.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it would warn of each busy moment
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    listener = listen(settings.host, settings.port)  # first: a taken port leaves nothing behind
    with listener, redis_server.serve(settings) as url, closing(connect(url, settings)) as broker:
        policy = policy_to_start_with(broker)
        warn(policy, broker)
        app = create_app(broker, policy)
        ended = threading.Event()
        maintenance = threading.Thread(
            target=keep_maintaining, args=(broker.maintain, ended, log), daemon=True
        )
        maintenance.start()
        server = Server(app, listener)
        address = _url(settings.host, listener.getsockname()[1])
        announcement.announce(settings.home, address)
        log.info("listening on %s", address)
        try:
            server.run()
        finally:
            announcement.withdraw(settings.home)
            ended.set()
            maintenance.join()


def connect(url: str, settings: Settings) -> Broker:
    """A broker for those who wait for an answer: it works within two seconds, or raises."""
    return Broker(url, settings, timeout=ANSWER_TIMEOUT)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address. ConfigError: it is taken, or not this machine's."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"The gateway cannot listen on {host}, port {port} ({error.strerror}): "
            "choose another port with PORT=5001 or --port 5001."
        ) from None


def _url(host: str, port: int) -> str:
    """The URL by which this machine itself reaches the address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
