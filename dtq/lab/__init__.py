"""What only the notebooks need: a cluster to break, the ledger that audits it, charts, exercises.

Functions and classes are imported when they are first asked for (PEP 562), so that a worker that needs one
small module of this package does not wait for pandas and matplotlib. `frames` and `plot` are modules.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtq.lab.audits import audit
    from dtq.lab.cluster import LocalCluster
    from dtq.lab.commands import monitor
    from dtq.lab.exercises import begin, check, predict, progress
    from dtq.lab.load import steady_load
    from dtq.lab.naive import NaiveQueue
    from dtq.lab.samples import sample

__all__ = ["LocalCluster", "NaiveQueue", "audit", "begin", "check", "frames", "monitor", "plot", "predict"]
__all__ += ["progress", "sample", "steady_load"]

_HOMES = {
    "LocalCluster": "cluster",
    "NaiveQueue": "naive",
    "audit": "audits",
    "begin": "exercises",
    "check": "exercises",
    "monitor": "commands",
    "predict": "exercises",
    "progress": "exercises",
    "sample": "samples",
    "steady_load": "load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
