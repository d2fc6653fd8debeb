"""Writes a log line for each request that changed something or failed. The line has the path of the request,
and nothing else that the client sent: no body, no header, no query.
"""

import logging
import re
import time
from typing import Any

import msgspec
from flask import Response, g, request

log = logging.getLogger("dtq.gateway")


class _Ids(msgspec.Struct):
    """The ids of tasks in an answer."""

    task_id: str | None = None
    task_ids: list[str] | None = None


def start_clock() -> None:
    """Notes when the request began."""
    g.began = time.monotonic()


def log_request(response: Response) -> Response:
    """Logs an answered request. A success is logged at DEBUG, so that a learner's terminal stays readable."""
    status = response.status_code
    level = logging.INFO if status >= 400 else logging.DEBUG
    if (status >= 400 or request.method not in ("GET", "HEAD", "OPTIONS")) and log.isEnabledFor(level):
        fields = _fields(response)
        words = "{method} {path}: {status} in {ms} ms".format_map(fields)
        words += f", {fields['tasks']} tasks" if fields["tasks"] else ""
        words += f", key {fields['key']}" if fields["key"] else ""
        log.log(level, "%s", words, extra=fields)
    return response


def _fields(response: Response) -> dict[str, Any]:
    ids = _Ids()
    if response.is_json and response.status_code < 400:
        ids = msgspec.json.decode(response.get_data(), type=_Ids)
    trace = re.match("00-([0-9a-f]{32})-", g.get("traceparent") or request.headers.get("traceparent", ""))
    key = g.get("key")
    return {
        "method": request.method,
        "path": request.path[:200],
        "status": response.status_code,
        "ms": round(1000 * (time.monotonic() - g.began), 1),
        "tasks": int(bool(ids.task_id)) if ids.task_ids is None else len(ids.task_ids),
        "task_id": ids.task_id or (request.view_args or {}).get("task_id"),
        "key": key.name if key else None,
        "trace_id": trace[1] if trace else None,
    }
