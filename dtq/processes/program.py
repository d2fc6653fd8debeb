"""The command line by which one process of dtq starts another."""

import sys


def dtq(*arguments: str) -> list[str]:
    """The command line of `dtq` with these arguments, under the Python that runs here."""
    return [sys.executable, "-m", "dtq", *arguments]
