"""A log line for each request that changed something or failed. Of what a request carries it has nothing but
the path: not the body, not a header, not a query.
"""

import logging
import re
import time
from typing import Any

import msgspec
from flask import Response, g, request

log = logging.getLogger("dtq.gateway")


class _Done(msgspec.Struct):
    """What an answer says of tasks."""

    task_id: str | None = None
    task_ids: list[str] | None = None


def begin() -> None:
    """Before a request."""
    g.began = time.monotonic()


def tell(response: Response) -> Response:
    """After it. What went well is told at DEBUG, so that a learner's terminal stays readable."""
    status = response.status_code
    level = logging.INFO if status >= 400 else logging.DEBUG
    if (status >= 400 or request.method not in ("GET", "HEAD", "OPTIONS")) and log.isEnabledFor(level):
        fields = _about(response)
        words = "{method} {path}: {status} in {ms} ms".format_map(fields)
        words += f", {fields['tasks']} tasks" if fields["tasks"] else ""
        words += f", key {fields['key']}" if fields["key"] else ""
        log.log(level, "%s", words, extra=fields)
    return response


def _about(response: Response) -> dict[str, Any]:
    done = _Done()
    if response.is_json and response.status_code < 400:
        done = msgspec.json.decode(response.get_data(), type=_Done)
    trace = re.match("00-([0-9a-f]{32})-", g.get("traceparent") or request.headers.get("traceparent", ""))
    key = g.get("key")
    return {
        "method": request.method,
        "path": request.path[:200],
        "status": response.status_code,
        "ms": round(1000 * (time.monotonic() - g.began), 1),
        "tasks": int(bool(done.task_id)) if done.task_ids is None else len(done.task_ids),
        "task_id": done.task_id or (request.view_args or {}).get("task_id"),
        "key": key.name if key else None,
        "trace_id": trace[1] if trace else None,
    }
