"""dtq: a small distributed task queue to learn from. A Flask gateway and workers coordinate through Redis.

Read in this order: `queue` (tasks, their keys in Redis and each transition), `worker` (runs the tasks) and
`gateway` (the queue over HTTP). Then `processes` (starts and restarts programs), `observe` (logs, figures and
traces), `doctor` (checks a running queue), `cli` (the `dtq` command) and `lab` (what the notebooks need).
"""

from typing import TYPE_CHECKING, Any

from dtq.tasks import PermanentError

if TYPE_CHECKING:
    from dtq.client import Client

__all__ = ["Client", "PermanentError"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads `Client` on first use: a worker needs no HTTP client and should start fast."""
    if name == "Client":
        from dtq.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
