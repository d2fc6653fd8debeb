"""What becomes of a process that other people's code has forked: it is a plain process, no second original."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)


def only_here(function: Callable[[], T]) -> T:
    """Calls a function. A process that it forks ends where the function ends, as if it were its whole program."""
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
    them here.
    """

    def reset() -> None:
        for number in HANDLED:
            if isinstance(getattr(signal.getsignal(number), "__self__", None), owner):
                signal.signal(number, signal.SIG_DFL)

    os.register_at_fork(after_in_child=reset)
