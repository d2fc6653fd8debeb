"""Repeats an action beside an experiment."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(action: Callable[[], object], every: float, name: str) -> Iterator[None]:
    """Repeats an action in a thread while the block runs. When the block has ended, the thread has too.

    Args:
        action: called without arguments.
        every: seconds before each call.
        name: the thread's name.
    """
    ended = threading.Event()

    def keep_on() -> None:
        while not ended.wait(every):
            action()

    thread = threading.Thread(target=keep_on, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
