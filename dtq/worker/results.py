"""The border between JSON and a handler: payloads become Python values, results and errors become text."""

import json
from typing import Any

import msgspec

from dtq.tasks import PermanentError
from dtq.worker.interrupts import TimeLimit

SIZE_LIMIT = 2**20  # bytes
DEPTH_LIMIT = 100  # levels; programs that read JSON have a stack of limited depth


def read_payload(payload: msgspec.Raw) -> Any:
    """The payload as a Python value. PermanentError: the payload cannot be read."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PermanentError(f"the payload cannot be read: {error}") from None


def write_result(result: Any) -> bytes:
    """The result as JSON. PermanentError: it cannot be JSON, is too long, or is nested too deep."""
    try:
        text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(f"the result is not JSON: {error}") from None
    if _is_deeper(result, DEPTH_LIMIT):
        raise PermanentError(f"the result is nested deeper than {DEPTH_LIMIT} levels")
    if len(text) > SIZE_LIMIT:
        raise PermanentError(f"the result has {len(text):,} bytes, the limit is {SIZE_LIMIT:,}")
    return text


def error_text(error: BaseException) -> str:
    """The error as text that can be stored, in at most 1,000 characters."""
    name = "" if isinstance(error, PermanentError | TimeLimit) else f"{type(error).__name__}: "
    try:
        text = f"{name}{error}"
    except Exception:  # a learner's own class may fail in its __str__
        text = f"{name}its text cannot be read"
    return text[:1000].encode(errors="backslashreplace").decode()


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return not levels or any(_is_deeper(item, levels - 1) for item in value)
