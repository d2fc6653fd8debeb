"""A program that outlives its parent by a moment, to kill what that leaves behind. It needs Python alone.

It reads process groups from its standard input: `+12` to remember one, `-12` to forget it. When the other end
of the pipe is gone, however that came about, `kill -9` included, it kills the groups that it still knows.
"""

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Waits for the end of its parent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C is for the others
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):  # gone already (macOS says it by the second)
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
