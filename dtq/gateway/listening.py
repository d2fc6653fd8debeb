"""Runs an application under waitress, and ends it so that each request that has arrived gets its answer.

waitress itself ends by an exception in its loop. That loses an answer that does not fit into a buffer of its
socket, a request that waits for a thread, and one whose body is still on its way.
"""

import select
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import waitress  # type: ignore[import-untyped]
from flask import Flask
from waitress import wasyncore

from dtq.gateway import models

LAST_ANSWERS = 5.0  # seconds that requests get to end, once the process was asked to end
TICK = 0.05  # seconds between two looks whether they have
# A body that is too long is read all the same, so that its sender can hear what was wrong.
LIMITS = {"threads": 16, "max_request_body_size": 16 * models.BODY_LIMIT}


class Server:
    """Serves until SIGTERM or SIGINT, which count from now on; a second one ends the process at once.

    Args:
        app: the application.
        listener: the socket that it listens on.
    """

    def __init__(self, app: Flask, listener: socket.socket) -> None:
        self._listener = listener
        self._sockets: dict[int, Any] = {}  # all that waitress watches, by file descriptor
        self._waitress = waitress.create_server(app, self._sockets, sockets=[listener], **LIMITS)
        self._ending = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self) -> None:
        """Once asked to end, takes no new connection, and returns when all requests have their answers, or
        `LAST_ANSWERS` later.
        """
        try:
            while not self._ending:
                self._turn(1.0)
            end = time.monotonic() + LAST_ANSWERS
            while select.select([self._listener], [], [], 0)[0] and time.monotonic() < end:
                self._turn(0)  # the system has accepted these connections already
            self._waitress.del_channel()
            self._listener.close()
            self._turn(TICK)
            while self._is_busy() and time.monotonic() < end:
                self._turn(TICK)
        finally:
            self._waitress.task_dispatcher.shutdown(timeout=1)

    def _turn(self, seconds: float) -> None:
        """Waits that long for something to read or write, and does it."""
        wasyncore.loop(seconds, map=self._sockets, count=1)

    def _is_busy(self) -> bool:
        """Whether a request is on its way, waits, or has not got all of its answer."""
        connections = self._waitress.active_channels.values()
        return any(one.request or one.requests or one.total_outbufs_len for one in connections)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._ending:
            sys.exit(0)
        self._ending = True
        self._waitress.pull_trigger()  # it waits in `select`, which a signal alone does not end
