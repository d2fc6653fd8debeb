"""Redis's append-only file, read as a witness: every write that the server ever accepted, in order.

It shows what the queue's keys cannot: whether a result was written over an earlier one.
"""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import redis

from dtq.queue.task import Status, parse

PATIENCE = 5.0  # seconds
CHUNK = 2**16  # bytes of a piece; small, since the reader moves all unread bytes again and again


def results_stored(client: Any, task_key: str) -> Counter[str] | None:
    """How often a result was stored for each task.

    Args:
        client: the server, on this machine.
        task_key: what goes before the id in the key of a task's document.

    Returns:
        Task id -> number of results; None if the journal cannot be read, is never complete, or was rewritten,
        which removes its beginning.
    """
    try:
        files = _files(client) if _written(client) else None
    except (OSError, redis.ResponseError):
        return None
    if files is None:
        return None
    prefix, stored = task_key.encode(), Counter[str]()
    for name, key, value in _writes(files):
        if name == b"SET" and key.startswith(prefix) and parse(value).status is Status.COMPLETED:
            stored[key[len(prefix) :].decode()] += 1
    return stored


def _written(client: Any) -> bool:
    """Waits until all writes are in the file; False if that takes too long. While the disk is busy, Redis
    delays a write for up to two seconds, but answers its clients (`appendfsync everysec`).
    """
    end = time.monotonic() + PATIENCE
    while client.info("persistence").get("aof_buffer_length"):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _files(client: Any) -> list[Path] | None:
    """The files that hold the commands, oldest first; None if they do not hold all of them."""
    config = client.config_get("append*") | client.config_get("dir")
    if config["appendonly"] != "yes" or "appenddirname" not in config:
        return None  # no journal, or a server older than Redis 7, which keeps it in another form
    folder = Path(config["dir"]) / config["appenddirname"]
    manifest = (folder / f"{config['appendfilename']}.manifest").read_text()
    entries = [line.split() for line in manifest.splitlines()]  # file NAME seq NUMBER type KIND
    if any(kind == "b" and number != "1" for _, _, _, number, _, kind in entries):
        return None
    return [folder / name for _, name, _, _, _, kind in entries if kind == "i"]


def _writes(files: list[Path]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, first and second argument of each command with two arguments or more."""
    reader = hiredis.Reader()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                reader.feed(chunk)
                while (command := reader.gets()) is not False:
                    if len(command) >= 3:
                        yield command[0].upper(), command[1], command[2]
