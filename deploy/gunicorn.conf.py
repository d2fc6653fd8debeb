"""How gunicorn serves the gateway: gunicorn --config deploy/gunicorn.conf.py

Address, port and log are those of all of dtq (DTQ_HOST, PORT, DTQ_LOG_FORMAT); WEB_CONCURRENCY is the number
of processes. GUNICORN_CMD_ARGS overrides what is here, as in GUNICORN_CMD_ARGS="--threads 16".
"""

import os
import sys

from gunicorn.config import Config
from gunicorn.glogging import Logger

from dtq.errors import ConfigError
from dtq.gateway import wsgi
from dtq.observe import logs

try:
    settings = wsgi.load()
except ConfigError as error:  # here it is one sentence; in a worker it would be a stack trace
    sys.exit(f"Error: {error}")


class Log(Logger):
    """Gunicorn's messages go where dtq's go, in the same format."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


logs.setup(settings)
logger_class = Log

wsgi_app = "dtq.gateway.wsgi:create()"
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 8
graceful_timeout = 30  # seconds for requests in flight, when it is told to stop
keepalive = 75  # seconds; longer than a proxy's, so that it is not the gateway that hangs up first
worker_tmp_dir = (
    "/dev/shm" if os.path.isdir("/dev/shm") else None
)  # never on a disk: its beats must not block
control_socket_disable = True  # signals are enough, and the root may be read-only
