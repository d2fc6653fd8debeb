"""Charts of an experiment's own data. Each answers the question in its title and returns a Figure.

They stand on any background, light or dark: nothing is filled behind them, and text has a middle tone. No
chart needs colour to be read: hatches, markers and labels say the same. Colours are those of Okabe and Ito
(Color Universal Design, 2008). All take `title`, and `ax` to be drawn into one of `panels`. Charts over time
take `events`: what happened -> when, as a UTC datetime or in seconds on the chart's own axis.
"""

import functools
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple, ParamSpec, cast

import matplotlib as mpl
import pandas as pd
from IPython.core.getipython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

P = ParamSpec("P")
Events = Mapping[str, float | datetime]

BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
TEXT = "#7D7D7D"  # contrast of at least 4 to both white and JupyterLab's dark #111
STYLE: dict[Any, Any] = {
    "figure.facecolor": "none",
    "figure.dpi": 100,
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "font.size": 10,
    "text.color": TEXT,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}
WIDTH = 8.0  # inches
BELOW = 42  # points from a chart's x axis down to its legend: room for the axis's own labels
SINCE_START = "time since the first submission (s)"


class Look(NamedTuple):
    """How an outcome is drawn, and what the legend says."""

    color: str
    hatch: str
    ink: str  # of the hatch, and of a number inside the bar
    says: str


OUTCOMES = {
    "completed": Look(BLUE, "", "white", "completed"),
    "failed": Look(ORANGE, "////", "black", "failed"),
    "timeout": Look(PURPLE, "xxxx", "black", "over its time limit"),
    "worker lost": Look(RED, "\\\\\\\\", "white", "worker lost, until its lease ended"),
    "processing": Look("none", "....", TEXT, "no end yet"),
}
ANSWERS = {
    "acknowledged": Look(BLUE, "", "white", "acknowledged"),
    "refused": Look(ORANGE, "////", "black", "refused"),
    "no answer": Look(PURPLE, "xxxx", "black", "no answer"),
}
PRIORITIES = {"normal": ("o", BLUE), "high": ("^", RED)}
PLACES = {  # of the queue: colour and line style
    "pending": (BLUE, "-"),
    "processing": (GREEN, "--"),
    "delayed": (ORANGE, "-."),
    "waiting": (PURPLE, (0, (6, 1, 1, 1, 1, 1))),
    "dead_letter": (RED, ":"),
}
CURVES = [("o", BLUE), ("^", RED), ("s", GREEN), ("D", PURPLE)]  # what was measured
THEORIES = ["--", ":", "-."]
PERCENTILES = {50: (GREEN, "-"), 95: (ORANGE, "--"), 99: (RED, ":")}

if (shell := get_ipython()) is not None and hasattr(shell, "kernel"):
    from matplotlib_inline import backend_inline

    inline: Any = backend_inline
    # Sharp on every screen. Without this call a notebook would not show a Figure at all.
    inline.set_matplotlib_formats("retina")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in the workbook's style and leaves the reader's own settings alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


@styled
def panels(columns: int = 2, height: float = 3.6) -> Figure:
    """An empty figure with charts side by side: draw into its `axes[0]`, `axes[1]`, … Height in inches."""
    figure = Figure(figsize=(WIDTH * 1.2, height), layout="constrained")
    figure.subplots(1, columns)
    return figure


@styled
def timeline(
    attempts: pd.DataFrame,
    title: str = "Which worker ran which task, and when?",
    events: Events | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A lane per worker, a bar per attempt. Numbers are tasks in the order of submission (left out where a
    bar is too short); arrows lead from an attempt that ended badly to the next one of the same task.

    Args:
        attempts: from `frames.attempts`.
    """
    lanes = {worker: lane for lane, worker in enumerate(_workers(attempts))}
    ax = ax or _axes(1.7 + 0.5 * max(len(lanes), 1))
    end = _end_of(attempts, events)
    ax.set(yticks=list(lanes.values()), yticklabels=list(lanes), xlim=(0, end), xlabel=SINCE_START)
    ax.set_ylim(max(len(lanes), 1) - 0.45, -0.55)
    rows = attempts.assign(lane=attempts["worker"].map(lanes), end_s=attempts["end_s"].fillna(end))
    for outcome, look in OUTCOMES.items():
        if len(part := rows[rows["outcome"] == outcome]):
            _bars(ax, part, look)
    _arrows(ax, rows)
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    return finish(ax, title, _mark(ax, events, attempts["created_at"].min()))


@styled
def throughput(
    attempts: pd.DataFrame,
    title: str = "How many tasks were completed per second?",
    events: Events | None = None,
    step: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Completed tasks per second, counted in equal steps of time; a dashed line shows the whole run's mean.

    Args:
        attempts: from `frames.attempts`.
        step: seconds that are counted together; by default a 30th of the run, more where tasks are few.
    """
    ax = ax or _axes(3.2)
    ends = attempts.loc[attempts["outcome"] == "completed", "end_s"]
    end = max(ends.max(), 1e-3) if len(ends) else 1.0
    steps = max(round(end / step), 1) if step else min(max(len(ends) // 5, 5), 30)
    width = end / steps  # whole steps only: a last one that is cut short would look like a collapse
    counts = (ends / width).clip(upper=steps - 1e-9).astype(int).value_counts()
    rates = [counts.get(i, 0) / width for i in range(steps)]
    edges = [i * width for i in range(steps + 1)]
    ax.stairs(rates, edges, fill=True, color=BLUE, alpha=0.35)
    ax.stairs(rates, edges, color=BLUE, linewidth=1.5, label=f"counted in steps of {width:.2g} s")
    ax.axhline(len(ends) / end, color=TEXT, linestyle="--", label=f"mean: {len(ends) / end:.3g} per second")
    ax.set(xlabel=SINCE_START, ylabel="tasks per second", xlim=(0, _end_of(attempts, events)))
    ax.set_ylim(0, max([*rates, 1.0]) * 1.08)
    ax.grid(axis="y")
    return finish(ax, title, _mark(ax, events, attempts["created_at"].min()))


@styled
def latency(
    attempts: pd.DataFrame,
    title: str = "How long did tasks take, from submission to result?",
    ax: Axes | None = None,
) -> Figure:
    """How many tasks took how long, with the time in which 50, 95 and 99 % of them were done.

    Args:
        attempts: from `frames.attempts`; what is not completed yet is left out.
    """
    ax = ax or _axes(3.4)
    done = attempts[attempts["outcome"] == "completed"]
    seconds = (done["ended_at"] - done["created_at"]).dt.total_seconds()
    factor, unit = (1000, "ms") if len(done) and seconds.max() < 1 else (1, "s")
    if len(done):
        bins = min(max(len(done) // 4, 10), 50)
        ax.hist(seconds * factor, bins=bins, color=BLUE, alpha=0.7, edgecolor=BLUE, linewidth=0.6)
    for percent, (color, line) in PERCENTILES.items():
        if len(done):
            value = float(seconds.quantile(percent / 100)) * factor
            label = f"p{percent}: {percent} % within {value:.3g} {unit}"
            ax.axvline(value, color=color, linestyle=line, linewidth=2, label=label)
    ax.set(xlabel=f"time from submission to result ({unit})", ylabel="tasks")
    ax.set_xlim(left=0)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    return finish(ax, title)


@styled
def depth(
    samples: pd.DataFrame,
    title: str = "How many tasks were where in the queue?",
    events: Events | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The tasks in each place of the queue over time; places that stayed empty are left out.

    Args:
        samples: the `frame` of `sample`; a gap is a time without an answer from Redis.
    """
    ax = ax or _axes(3.2)
    for place, (color, line) in PLACES.items():
        if place == "pending" or samples[place].max() > 0:
            ax.plot(
                *(samples["time_s"], samples[place].astype(float)),
                color=color,
                linestyle=line,
                linewidth=2,
                drawstyle="steps-post",
                label=place.replace("_", " "),
            )
    ax.set(xlabel="time since the first measurement (s)", ylabel="tasks")
    ax.set_xlim(0, max(samples["time_s"].max(), 1e-3) if len(samples) else 1)
    ax.set_ylim(0, max(1.0, ax.get_ylim()[1]))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    return finish(ax, title, _mark(ax, events, samples["at"].min()))


@styled
def share(attempts: pd.DataFrame, title: str = "How was the work shared?", ax: Axes | None = None) -> Figure:
    """How many tasks each worker completed, and how many would be an even share.

    Args:
        attempts: from `frames.attempts`.
    """
    workers = _workers(attempts)
    ax = ax or _axes(1.7 + 0.4 * max(len(workers), 1))
    done = attempts.loc[attempts["outcome"] == "completed", "worker"].value_counts()
    counts = [int(done.get(worker, 0)) for worker in workers]
    total = max(sum(counts), 1)
    ax.barh(range(len(workers)), counts, height=0.62, color=BLUE)
    for lane, count in enumerate(counts):  # beside the chart, where no line crosses them
        ax.text(
            1.01, lane, f"{count}  ({count / total:.0%})", transform=ax.get_yaxis_transform(), va="center"
        )
    if workers:
        even = total / len(workers)
        ax.axvline(even, color=TEXT, linestyle="--", label=f"an even share: {even:.3g}")
    ax.set(yticks=range(len(workers)), yticklabels=workers, xlabel="tasks completed")
    ax.set_ylim(max(len(workers), 1) - 0.45, -0.55)
    ax.set_xlim(0, max([*counts, 1]) * 1.02)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finish(ax, title)


@styled
def order(
    attempts: pd.DataFrame, title: str = "In which order did the tasks start?", ax: Axes | None = None
) -> Figure:
    """Each task's place in the order of start, over its place in the order of submission. On the diagonal
    nobody overtook anybody.

    Args:
        attempts: from `frames.attempts`; a task counts with its first one.
    """
    ax = ax or _axes(3.8)
    first = attempts[attempts["attempt"] == 1].sort_values(["started_at", "number"])
    first = first.assign(place=range(1, len(first) + 1))
    last = max([*first["number"], *first["place"], 1])
    ax.plot([1, last], [1, last], color=TEXT, linestyle="--", linewidth=1, label="first come, first served")
    for priority, (marker, color) in PRIORITIES.items():
        if len(part := first[first["priority"] == priority]):
            size = 45 if last <= 100 else 14
            ax.scatter(
                part["number"], part["place"], size, color, marker=marker, label=f"priority {priority}"
            )
    ax.set(xlabel="submitted as number", ylabel="started as number")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(0.04)
    ax.grid()
    return finish(ax, title)


@styled
def curves(
    measured: pd.DataFrame,
    theory: pd.DataFrame | None = None,
    title: str = "Is what was measured what was expected?",
    unit: str = "",
    ax: Axes | None = None,
) -> Figure:
    """What was measured, as marks joined by lines, beside what a theory says, as lines without marks.

    Args:
        measured: a column per curve, four at most, over the index, whose name says what it is. A missing
            number leaves a gap.
        theory: the same, three at most, over an index of its own.
        unit: what the curves count, written along the y axis.
    """
    ax = ax or _axes(3.6)
    for line, (name, values) in zip(THEORIES, ({} if theory is None else theory).items(), strict=False):
        ax.plot(values.index, values, color=TEXT, linestyle=line, linewidth=1.5, label=name)
    for (mark, color), (name, values) in zip(CURVES, measured.items(), strict=False):
        ax.plot(values.index, values, color=color, marker=mark, markersize=7, linewidth=1.5, label=name)
    ax.set(xlabel=measured.index.name, ylabel=unit)
    ax.set_ylim(bottom=0)
    if pd.api.types.is_integer_dtype(measured.index):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid()
    return finish(ax, title)


@styled
def submissions(
    tries: pd.DataFrame,
    title: str = "Which submissions were acknowledged, and when?",
    events: Events | None = None,
    step: float = 0.1,
    ax: Axes | None = None,
) -> Figure:
    """The answers to a steady load, counted in equal steps of time. A refused one is tried again later.

    Args:
        tries: the `frame` of `steady_load`.
        step: seconds that are counted together.
    """
    ax = ax or _axes(3.2)
    zero = tries["sent_at"].min()
    seconds = (tries["answered_at"] - zero).dt.total_seconds()
    marks = [_seconds(when, zero) for when in (events or {}).values()]
    steps = int(max([seconds.max() if len(seconds) else 0.0, *marks]) / step) + 1
    below = [0] * steps
    for outcome, look in ANSWERS.items():
        if not (tries["outcome"] == outcome).any():
            continue
        found = (seconds[tries["outcome"] == outcome] / step).astype(int).value_counts()
        counts = [int(found.get(i, 0)) for i in range(steps)]
        ax.bar(
            *([(i + 0.5) * step for i in range(steps)], counts),
            width=0.8 * step,
            bottom=below,
            color=look.color,
            hatch=look.hatch,
            hatchcolor=look.ink,
            label=look.says,
        )
        below = [low + count for low, count in zip(below, counts, strict=True)]
    ax.set(xlabel=SINCE_START, ylabel=f"answers in {1000 * step:.0f} ms", xlim=(0, 1.01 * steps * step))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    return finish(ax, title, _mark(ax, events, zero))


def _axes(height: float) -> Axes:
    return Figure(figsize=(WIDTH, height), layout="constrained").add_subplot()


@styled  # also for axes that a notebook has filled itself
def finish(ax: Axes, title: str, raised: float = 0) -> Figure:
    """Gives axes the workbook's look: a title, `raised` by so many points, the colours, and a legend below
    the chart, where no data can be. Returns their figure.
    """
    figure: Any = ax.get_figure(root=True)
    ax.set_title(title, pad=10 + raised)
    # Ticks are made when they are drawn, which is after `styled` has put the reader's settings back.
    ax.tick_params(color=TEXT, labelcolor=TEXT, grid_color=TEXT, grid_alpha=0.3, grid_linewidth=0.6)
    if labels := ax.get_legend_handles_labels()[1]:
        width = sum(35 + 5 * len(label) for label in labels)  # points, about
        below = ScaledTranslation(0, -BELOW / 72, figure.dpi_scale_trans)
        ax.legend(
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=ax.transAxes + below,
            borderpad=0,
            ncols=min(len(labels), max(1, len(labels) * 500 // width)) if len(figure.axes) == 1 else 1,
            handlelength=2.6,
            columnspacing=1.4,
            fontsize=9,
        )
    return cast(Figure, figure)


def _workers(attempts: pd.DataFrame) -> list[str]:
    """All workers, worker-2 before worker-10."""

    def natural(name: str) -> list[str | int]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted(set(attempts["worker"]), key=natural)


def _end_of(attempts: pd.DataFrame, events: Events | None) -> float:
    """The last moment that a chart over time has to show, seconds."""
    zero = attempts["created_at"].min()
    marks = [_seconds(when, zero) for when in (events or {}).values()]
    times = attempts[["start_s", "end_s"]].max()
    return 1.01 * max([1e-3, *map(float, times.dropna()), *marks])


def _seconds(when: float | datetime, zero: datetime) -> float:
    return float((when - zero).total_seconds()) if isinstance(when, datetime) else when


def _points_per_unit(ax: Axes) -> float:
    """Length of a unit of the x axis in points (1/72 inch); approximate, since layout comes later."""
    figure: Any = ax.figure
    left, right = ax.get_xlim()
    return float(72 * ax.bbox.width / figure.dpi / (right - left))


def _bars(ax: Axes, part: pd.DataFrame, look: Look) -> None:
    """Bars of one outcome; a hair shorter than they are, so that those of one lane stay apart."""
    scale = _points_per_unit(ax)
    widths = (part["end_s"] - part["start_s"] - 1 / scale).clip(lower=1.2 / scale)
    bars = ax.barh(
        *(part["lane"], widths),
        height=0.7,
        left=part["start_s"],
        color=look.color,
        hatch=look.hatch,
        hatchcolor=look.ink,
        edgecolor=TEXT if look.color == "none" else look.color,
        linewidth=0.6,
        label=look.says,
    )
    numbers = [str(number) for number in part["number"]]
    fitting = [
        number if width * scale >= 6 * len(number) + 3 else ""
        for number, width in zip(numbers, widths, strict=True)
    ]
    back = {"facecolor": look.color, "edgecolor": "none", "pad": 0.8} if look.hatch else None
    for text in ax.bar_label(bars, fitting, label_type="center", color=look.ink, fontsize=9):
        if text.get_text() and back:
            text.set_bbox(back)


def _arrows(ax: Axes, rows: pd.DataFrame) -> None:
    """Draws an arrow from each attempt to the next attempt of the same task."""
    for _, attempts in rows[rows.duplicated("task_id", keep=False)].groupby("task_id"):
        for (_, before), (_, after) in pairwise(attempts.iterrows()):
            up = after["lane"] < before["lane"]
            start, end = before["lane"], after["lane"] + (0.36 if up else -0.36)
            if after["lane"] == before["lane"]:  # over the bars between the two
                start, path = start - 0.36, "arc,angleA=90,angleB=90,armA=6,armB=9,rad=3"
            else:
                path = "arc3"
            style = {"arrowstyle": "-|>", "color": TEXT, "linewidth": 1.4, "connectionstyle": path}
            style |= {"shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (after["start_s"], end), (before["end_s"], start), arrowprops=style)


def _mark(ax: Axes, events: Events | None, zero: datetime) -> float:
    """Draws a vertical line for each event, its name above the chart; names that would collide stand higher.
    Returns the points that the names take.
    """
    scale, right = _points_per_unit(ax), ax.get_xlim()[1]
    ends: list[float] = []  # of the last name on each level
    for name, when in sorted((events or {}).items(), key=lambda event: _seconds(event[1], zero)):
        second, width = _seconds(when, zero), 5.2 * len(name) / scale
        start = max(0.0, min(second, right - width))
        level = next((i for i, end in enumerate(ends) if end <= start), len(ends))
        ends[level : level + 1] = [start + width + 8 / scale]
        # Behind the bars of a timeline, so that it crosses out no number.
        ax.axvline(second, color=TEXT, linewidth=1.2, linestyle=(0, (2, 2)), zorder=0.9)
        ax.annotate(
            name,
            (start, 1),
            (0, 4 + 12 * level),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            fontsize=9,
        )
    return 12 * len(ends)
