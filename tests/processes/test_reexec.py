"""A process that starts anew as itself. `tests.faults.test_reload` closes terminals."""

import subprocess
import sys

SUCCESSOR = [sys.executable, "-ISc", "import os; print('second', os.getpid())"]
FIRST = f"""
import atexit, os
from dtq.processes.reexec import Successor
successor = Successor({SUCCESSOR!r})
atexit.register(print, "the end of the first")
print("first", os.getpid())
"""


def said(code: str) -> list[str]:
    """The lines of a program that ends well."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def test_who_is_called_takes_the_process_over_when_all_else_is_done() -> None:
    first, *rest = said(f"{FIRST}successor.call()\nprint('still the first')")
    pid = first.removeprefix("first ")
    assert rest == ["still the first", "the end of the first", f"second {pid}"]


def test_who_is_not_called_does_not_come() -> None:
    assert [line.split()[0] for line in said(FIRST)] == ["first", "the"]
