"""Whether a process of this machine lives."""

import os


def is_alive(pid: int) -> bool:
    """Whether there is a process of this id, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
