"""What a worker says of itself at each beat."""

from datetime import datetime

import msgspec


class WorkerInfo(msgspec.Struct, kw_only=True):
    """A worker as `worker:{id}` shows it. The times are put in by `heartbeat.lua`, on Redis's clock."""

    id: str
    status: str  # idle, busy or draining
    started_at: datetime | None = None
    last_heartbeat: datetime | None = None
    current_task: str | None = None
    tasks_processed: int = 0
    host: str = ""
    pid: int = 0


_decoder = msgspec.json.Decoder(WorkerInfo, strict=False)


def parse(document: bytes) -> WorkerInfo:
    return _decoder.decode(document)
