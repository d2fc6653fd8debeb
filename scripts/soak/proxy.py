"""A proxy that can cut a reply: Redis has done what it was asked, and the client never learns it."""

import asyncio
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from typing import Self

CHUNK = 65536  # bytes
NO_LINGER = struct.pack("ii", 1, 0)  # the connection is reset when it is closed


class Proxy:
    """Passes on what comes to its port, in a thread of its own.

    Args:
        target: the port of the server, on this machine.
    """

    def __init__(self, target: int) -> None:
        self._target, self._to_cut = target, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def cut(self, replies: int) -> None:
        """Resets connections instead of passing on the next replies."""
        self._to_cut = replies

    def __enter__(self) -> Self:
        self._ended = asyncio.Event()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as connections:

            async def connect(reader: StreamReader, writer: StreamWriter) -> None:
                await connections.create_task(self._connect(reader, writer))

            server = await asyncio.start_server(connect, sock=self._listener)
            await self._ended.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            replies, requests = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is away, so its clients see that
            _reset(writer)
            return
        ways = [
            asyncio.create_task(_pass_on(reader, requests)),
            asyncio.create_task(self._answer(replies, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            _reset(writer)
            _reset(requests)

    async def _answer(self, replies: StreamReader, writer: StreamWriter) -> None:
        while chunk := await replies.read(CHUNK):
            if self._to_cut:
                self._to_cut -= 1
                return
            writer.write(chunk)
            await writer.drain()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()


def _reset(writer: StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()
