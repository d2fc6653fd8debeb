"""The reaper: a program that outlives its parent by a moment and kills the processes left behind.

It reads process groups from its standard input: `+12` to remember one, `-12` to forget it. When the parent
ends, even by `kill -9`, the pipe closes, and the reaper kills the groups that it still knows.
"""

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Waits for the end of the parent, then kills the groups that are left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C is for the others
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):  # the group is gone; macOS raises the second
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
