"""dtq: a small distributed task queue to learn from. A Flask gateway and workers coordinate through Redis.

Read in this order: `keys` (what is in Redis), `task` (what a task is), `broker` and `lua/` (how it moves),
`worker` (who runs it), `gateway` (how it is submitted and watched).
"""

from dtq.tasks import PermanentError, task

__all__ = ["PermanentError", "task"]
__version__ = "0.1.0"
