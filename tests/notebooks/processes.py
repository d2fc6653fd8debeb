"""What a notebook may have left running."""

import os
import subprocess
import sys
from pathlib import Path


def leftovers(folder: Path) -> list[str]:
    """Processes that were started with `folder` in their environment, or that work inside it, such as Redis,
    which hides its environment. Beyond Linux only the first kind is seen.
    """
    if sys.platform != "linux":
        listing = subprocess.run(
            ["ps", "axeww", "-o", "command="], capture_output=True, text=True, check=True
        )
        return [line for line in listing.stdout.splitlines() if str(folder) in line]
    return [about for process in Path("/proc").glob("[0-9]*") if (about := _about(process, str(folder)))]


def _about(process: Path, folder: str) -> str:
    """Id and command of a process that belongs to the folder; nothing for others."""
    try:
        place, environment = os.readlink(process / "cwd"), (process / "environ").read_text(errors="replace")
        command = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""  # it has ended meanwhile, or is somebody else's
    own = place.startswith(folder) or folder in environment
    return f"{process.name} {command}" if own and process.name != str(os.getpid()) else ""
