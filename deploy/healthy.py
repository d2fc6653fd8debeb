"""Whether what runs in this container does its work: `python healthy.py gateway`, or `worker`."""

import os
import socket
import sys
import urllib.request
from contextlib import closing


def gateway() -> bool:
    """It answers, and reaches Redis; without, /health is a 503."""
    url = f"http://127.0.0.1:{os.environ.get('PORT', '5000')}/health"
    with urllib.request.urlopen(url, timeout=4) as answer:
        return bool(answer.status == 200)


def worker() -> bool:
    """Redis heard it within the last three beats; else its key has expired."""
    from dtq.config import load
    from dtq.queue.broker import Broker
    from dtq.redis_server import locate

    settings = load()
    with closing(Broker(locate(settings), settings)) as broker:
        return socket.gethostname() in [worker.host for worker in broker.workers()]


if __name__ == "__main__":
    try:
        sys.exit(not {"gateway": gateway, "worker": worker}[sys.argv[1]]())
    except Exception as error:
        sys.exit(f"unhealthy: {error}")
