"""What the notebooks, `dtq demo` and the benchmarks need, and a queue in production does not.

`cluster` starts real processes to break, `witness` records and audits an experiment, `charts` draws it, and
`course` has the exercises. The package offers their main names and imports each on first use (PEP 562): a
worker that needs one small module does not wait for pandas and matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtq.lab.charts import plot
    from dtq.lab.cluster.load import steady_load
    from dtq.lab.cluster.local_cluster import LocalCluster
    from dtq.lab.cluster.naive import NaiveQueue
    from dtq.lab.course.exercises import begin, check, predict, progress
    from dtq.lab.witness import frames, traces
    from dtq.lab.witness.audits import audit
    from dtq.lab.witness.monitor import monitor
    from dtq.lab.witness.samples import sample

__all__ = ["LocalCluster", "NaiveQueue", "audit", "begin", "check", "frames", "monitor", "plot", "predict"]
__all__ += ["progress", "sample", "steady_load", "traces"]

_HOMES = {
    "LocalCluster": "cluster.local_cluster",
    "NaiveQueue": "cluster.naive",
    "audit": "witness.audits",
    "begin": "course.exercises",
    "check": "course.exercises",
    "monitor": "witness.monitor",
    "predict": "course.exercises",
    "progress": "course.exercises",
    "sample": "witness.samples",
    "steady_load": "cluster.load",
}
_MODULES = {"frames": "witness.frames", "plot": "charts.plot", "traces": "witness.traces"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
