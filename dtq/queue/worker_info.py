"""A worker's description of itself, which it sends with each heartbeat."""

from datetime import datetime

import msgspec


class WorkerInfo(msgspec.Struct, kw_only=True):
    """A worker as the key `worker:{id}` holds it. `heartbeat.lua` adds the times, by Redis's clock."""

    id: str
    status: str  # idle, busy or draining
    started_at: datetime | None = None
    last_heartbeat: datetime | None = None
    current_task: str | None = None
    tasks_processed: int = 0
    host: str = ""
    pid: int = 0
    instance: str = ""  # tells two processes of one name apart
    types: list[str] = []  # that it knows


_decoder = msgspec.json.Decoder(WorkerInfo, strict=False)


def parse(document: bytes) -> WorkerInfo | None:
    """A worker from its JSON; None if it is not readable: somebody has written it by hand."""
    try:
        return _decoder.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
