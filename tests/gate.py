"""A task type for the workers of tests, which load this file: it takes as long as a test wants it to."""

import time
from pathlib import Path

from dtq.tasks import Context, task


@task("gate")
def gate(file: str, context: Context) -> str:
    """Waits until there is this file."""
    while not Path(file).exists():
        time.sleep(0.01)
    return "gone through"
