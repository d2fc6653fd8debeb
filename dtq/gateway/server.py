"""Runs the gateway under waitress, beside a thread that maintains the queue, workers or not."""

import ipaddress
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
from dtq.gateway.access import ApiKeys
from dtq.gateway.listening import Server
from dtq.queue.broker import ANSWER_TIMEOUT, Broker
from dtq.queue.maintenance import keep_maintaining
from dtq.transient import TRANSIENT

MAKE_KEY = "dtq key create --name me --scope admin"
log = logging.getLogger("dtq.gateway")


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C; starts the embedded Redis server where none is named or runs.

    Raises:
        ConfigError: the address cannot be listened on, or everybody could reach it without a key.
        NoServerError: there is no Redis server.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a busy moment is no news
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    listener = listen(settings.host, settings.port)  # first: a taken port leaves nothing behind
    with listener, redis_server.serve(settings) as url, closing(connect(url, settings)) as broker:
        check_keys(settings, broker)
        app = create_app(broker, keys_required=keys_required(settings, broker))
        ended = threading.Event()
        maintenance = threading.Thread(
            target=keep_maintaining, args=(broker.maintain, ended, log), daemon=True
        )
        maintenance.start()
        server = Server(app, listener)
        url = _url(settings.host, listener.getsockname()[1])
        announcement.announce(settings.home, url)
        log.info("listening on %s", url)
        try:
            server.run()
        finally:
            announcement.withdraw(settings.home)
            ended.set()
            maintenance.join()


def connect(url: str, settings: Settings) -> Broker:
    """A broker for those who wait for an answer: it works within two seconds, or raises."""
    return Broker(url, settings, timeout=ANSWER_TIMEOUT)


def check_keys(settings: Settings, broker: Broker) -> None:
    """Lets nobody serve the world by mistake.

    Raises:
        ConfigError: other machines reach the gateway, and there is no key that they could show.
    """
    if settings.auth != "off" and not _is_loopback(settings.host) and not _has_key(broker):
        raise ConfigError(
            f"Other machines reach {settings.host}, and there is no API key: make one with `{MAKE_KEY}`, "
            "or set DTQ_AUTH=off to serve everybody who reaches this address."
        )


def keys_required(settings: Settings, broker: Broker) -> bool:
    """Whether this address asks for keys; warns where that may surprise."""
    only_here = _is_loopback(settings.host)
    required = settings.auth == "required" or (settings.auth == "auto" and not only_here)
    if required and not _has_key(broker):
        log.warning("there is no API key, so nobody is answered: make one with `%s`", MAKE_KEY)
    if settings.auth == "off" and not only_here:
        log.warning("DTQ_AUTH=off: whoever reaches %s may do everything", settings.host)
    return required


def _has_key(broker: Broker) -> bool:
    try:
        return ApiKeys(broker).any()
    except TRANSIENT:  # then nobody can know, and nobody is let in without a key in any case
        return True


def _is_loopback(host: str) -> bool:
    """Whether this machine alone reaches the address; none stands for all of them, as when one listens."""
    found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return all(ipaddress.ip_address(str(address[0])).is_loopback for *_, address in found)


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
    """How this machine itself reaches the address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
