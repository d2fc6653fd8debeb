"""dtq: a small distributed task queue to learn from. A Flask gateway and workers coordinate through Redis.

Read in this order: `keys` (what is in Redis), `task` (what a task is), `broker` and `lua/` (how it moves),
`worker` (who runs it), `gateway` (how it is submitted and watched).
"""

from typing import TYPE_CHECKING, Any

from dtq.tasks import PermanentError

if TYPE_CHECKING:
    from dtq.client import Client

__all__ = ["Client", "PermanentError"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`Client` is loaded when it is first asked for: a worker needs no HTTP client, and should start fast."""
    if name == "Client":
        from dtq.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
