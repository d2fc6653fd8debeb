"""What several tests need."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from dtq.task import NewTask


def wait_until(predicate: Callable[[], Any], timeout: float = 10.0, what: str = "") -> Any:
    """Calls `predicate` until it returns something true, and returns that; fails after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (answer := predicate()):
        assert time.monotonic() < end, f"not within {timeout:g} s: {what or predicate}"
        time.sleep(0.01)
    return answer


def new_task(type: str = "noop", data: Any = None, **options: Any) -> NewTask:
    """A task to submit, its payload given as a Python value."""
    return NewTask(type=type, data=msgspec.Raw(msgspec.json.encode(data)), **options)
