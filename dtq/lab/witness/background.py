"""Something that goes on beside an experiment."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(action: Callable[[], object], every: float, name: str) -> Iterator[None]:
    """Does it again and again while the block runs, in a thread; when the block has ended, it is over.

    Args:
        action: what is done.
        every: seconds before each time.
        name: of the thread.
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
