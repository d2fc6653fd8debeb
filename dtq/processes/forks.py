"""What becomes of a process that other people's code forks: a plain process, no second original."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)


def only_here(function: Callable[[], T]) -> T:
    """Calls a function. A process that it forks ends where the function ends, as if that were its program."""
    here = os.getpid()
    try:
        return function()
    finally:
        if os.getpid() != here:
            _end(sys.exception())


def _end(error: BaseException | None) -> None:
    code = error.code if isinstance(error, SystemExit) else None
    if isinstance(code, str) or (error and not isinstance(error, SystemExit)):
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    os._exit(code or 0)


def ordinary_children(owner: type) -> None:
    """From now on, signals do in forked processes what they do by default, where a method of `owner` handles
    them here. They wait until the child is ready for them.
    """

    def wait() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED))

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def become_ordinary() -> None:
        for number in HANDLED:
            if isinstance(getattr(signal.getsignal(number), "__self__", None), owner):
                signal.signal(number, signal.SIG_DFL)
        go_on()

    masks: list[set[int]] = []
    os.register_at_fork(before=wait, after_in_parent=go_on, after_in_child=become_ordinary)
