"""A proxy that can cut a reply: Redis has done what it was asked, and the client never learns it."""

import asyncio
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from typing import Any, Self

CHUNK = 65536  # bytes
NO_LINGER = struct.pack("ii", 1, 0)  # so that a connection is reset when it is closed


class Proxy:
    """Passes on what comes to its port, in a thread of its own.

    Args:
        target: the port of the server, on this machine.
    """

    def __init__(self, target: int) -> None:
        self._target, self._to_cut = target, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: dict[asyncio.Task[Any], StreamWriter] = {}
        self._loop, self._ended = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def cut(self, replies: int) -> None:
        """Resets connections instead of passing on the next replies."""
        self._to_cut = replies

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._listener)
        await self._ended.wait()
        server.close()
        for writer in self._connections.values():
            _reset(writer)
        while self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serves one client, until it or the server closes the connection."""
        task = asyncio.current_task()
        assert task
        self._connections[task] = writer
        with suppress(OSError):  # the server is away, and so is the proxy for its clients
            replies, requests = await asyncio.open_connection("127.0.0.1", self._target)
            await _first_of(_pass_on(reader, requests), self._answer(replies, writer))
            _reset(requests)
        _reset(writer)
        del self._connections[task]

    async def _answer(self, replies: StreamReader, writer: StreamWriter) -> None:
        while chunk := await replies.read(CHUNK):
            if self._to_cut > 0:
                self._to_cut -= 1
                return
            writer.write(chunk)
            await writer.drain()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()


async def _first_of(*ways: Any) -> None:
    """Goes both ways until one has ended; how it ended does not matter."""
    tasks = [asyncio.create_task(way) for way in ways]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()
