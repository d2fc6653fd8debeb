"""Charts of an experiment's own data. Each answers the question in its title and returns a matplotlib Figure.

They stand on any background, light or dark: nothing is filled behind them, and text has a middle tone. No chart
needs colour to be read: hatches, markers and labels say the same. Colours are those of Okabe and Ito (Color
Universal Design, 2008). All take `title`, and `ax` to be drawn into one of `panels`.
"""

import functools
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.core.getipython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

P = ParamSpec("P")

BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
TEXT = "#7D7D7D"  # contrast of at least 4 to both white and JupyterLab's dark #111
STYLE = {
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": TEXT,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "figure.dpi": 100,
}
WIDTH = 8.0  # inches
SINCE_START = "time since the first submission (s)"


class Look(NamedTuple):
    """How an outcome is drawn, and what the legend says."""

    color: str
    hatch: str
    ink: str  # of a number inside the bar
    says: str


OUTCOMES = {
    "completed": Look(BLUE, "", "white", "completed"),
    "failed": Look(ORANGE, "///", "black", "failed"),
    "timeout": Look(PURPLE, "xxx", "black", "over its time limit"),
    "worker lost": Look(RED, "\\\\\\\\", "white", "worker lost, up to the end of its lease"),
    "processing": Look("none", "....", TEXT, "still running"),
}
PRIORITIES = {"normal": ("o", BLUE), "high": ("^", RED)}

if (shell := get_ipython()) is not None and hasattr(shell, "kernel"):
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("retina")  # sharp on every screen; also makes a notebook show a Figure at all


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in the workbook's style and leaves the reader's own settings alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def panels(columns: int = 2, height: float = 3.2) -> Figure:
    """An empty figure with charts side by side: draw into its `axes[0]`, `axes[1]`, … Height in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * 1.2, height), layout="constrained")
        figure.subplots(1, columns)
        return figure


@styled
def timeline(
    attempts: pd.DataFrame, title: str = "Which worker ran which task, and when?", ax: Axes | None = None
) -> Figure:
    """A lane per worker, a bar per attempt. Numbers are tasks in the order of submission; arrows lead from an
    attempt that ended badly to the next one of the same task.

    Args:
        attempts: from `frames.attempts`.
    """
    lanes = {worker: lane for lane, worker in enumerate(sorted(set(attempts["worker"]), key=_natural))}
    ax = ax or _axes(1.5 + 0.55 * max(len(lanes), 1))
    now = float(np.nanmax([0.0, *attempts["start_s"], *attempts["end_s"]]))
    rows = attempts.assign(lane=attempts["worker"].map(lanes), end_s=attempts["end_s"].fillna(now))
    span = max(now, 1e-3)
    for outcome, look in OUTCOMES.items():
        part = rows[rows["outcome"] == outcome]
        if len(part):
            _bars(ax, part, look, span)
    _links(ax, rows, span)
    ax.set(yticks=list(lanes.values()), yticklabels=list(lanes), xlim=(0, span * 1.01), xlabel=SINCE_START)
    ax.set_ylim(max(len(lanes), 1) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    return _finish(ax, title, legend=len(attempts) > 0)
