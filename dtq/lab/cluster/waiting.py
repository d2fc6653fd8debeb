"""Waiting for something that must happen, but not for ever."""

import time
from collections.abc import Callable
from typing import TypeVar

from dtq.errors import DtqError

T = TypeVar("T")
PATIENCE = 120.0  # seconds for what takes a few at most, unless the machine has much else to do


def until(seen: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Waits until `seen` returns something true, and returns that.

    Raises:
        DtqError: it takes longer than `patience` seconds.
    """
    end = time.monotonic() + patience
    while not (answer := seen()):
        if time.monotonic() > end:
            raise DtqError(f"Not within {patience:g} s: {what}")
        time.sleep(0.01)
    return answer
