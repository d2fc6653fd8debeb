"""Spans as a frame and as a waterfall: what was done for a task, by which process, and when."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtq.lab.charts import plot

COLUMNS = [
    "name", "process", "trace_id", "span_id", "parent_id", "task_id", "attempt", "outcome", "error",
    "started_at", "ended_at", "exported_by",
]  # fmt: skip
LOOKS = {
    "": plot.Look(plot.GREEN, "", "white", "other spans"),
    "wait": plot.Look("none", "....", plot.TEXT, "wait"),
    **plot.OUTCOMES,
    "worker lost": plot.OUTCOMES["worker lost"]._replace(says="worker lost"),
}


def read(path: Path | str) -> pd.DataFrame:
    """All spans in a file that `DTQ_TRACE_FILE` named, in order of their start.

    Returns:
        A frame with name, process (for a run: its worker, also if that is lost), trace_id, span_id,
        parent_id, task_id (inside of a run: that run's), attempt, outcome and error (of runs), started_at,
        ended_at (UTC), exported_by (the process that wrote it), start_s (since the first span of its trace
        began) and duration_s. A line that is still being written is left out.
    """
    lines = Path(path).read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    spans = pd.DataFrame([_row(json.loads(line)) for line in lines], columns=COLUMNS)
    for name in ("started_at", "ended_at"):
        spans[name] = pd.to_datetime(spans[name], utc=True)
    spans = spans.sort_values("started_at", ignore_index=True)
    spans["attempt"] = spans["attempt"].astype("Int64")  # with gaps
    parents = spans.set_index("span_id")[["parent_id", "task_id"]].to_dict("index")
    spans["task_id"] = [_task_of(span_id, parents) for span_id in spans["span_id"]]
    began = spans.groupby("trace_id")["started_at"].transform("min")
    spans["start_s"] = (spans["started_at"] - began).dt.total_seconds()
    spans["duration_s"] = (spans["ended_at"] - spans["started_at"]).dt.total_seconds()
    return spans


def of_task(spans: pd.DataFrame, task_id: str) -> pd.DataFrame:
    """The spans of one task, and those that it shares with others of its batch: submit, and POST."""
    traces = spans.loc[spans["task_id"] == task_id, "trace_id"]
    shared = spans["task_id"].isna() & spans["trace_id"].isin(traces)
    return spans[shared | (spans["task_id"] == task_id)].reset_index(drop=True)


def orphans(spans: pd.DataFrame) -> pd.DataFrame:
    """The spans whose parent nobody exported: a trace with holes."""
    return spans[spans["parent_id"].notna() & ~spans["parent_id"].isin(spans["span_id"])]


@plot.styled
def waterfall(
    spans: pd.DataFrame, title: str = "Where did the time of this task go?", ax: Axes | None = None
) -> Figure:
    """A bar per span, children below their parent and further in, with its process and how long it took.

    Args:
        spans: of one task, from `of_task`.
    """
    rows = [(depth, spans.loc[i]) for depth, i in _tree(spans)]
    end = max(1e-6, float((spans["start_s"] + spans["duration_s"]).max()))
    factor, unit = (1000, "ms") if end < 1 else (1, "s")
    ax = ax or Figure(figsize=(1.2 * plot.WIDTH, 1.5 + 0.3 * len(rows)), layout="constrained").add_subplot()
    for place, (_, span) in enumerate(rows):
        _bar(ax, place, span, factor, factor * end)
    names = [f"{'  ' * depth}{span['name']}" for depth, span in rows]
    ax.set_yticks(range(len(rows)), names, ha="left", family="monospace", fontsize=9)
    ax.set(xlabel=f"time since the submission began ({unit})", xlim=(0, factor * end * 1.01))
    ax.set_ylim(len(rows) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0, pad=5.6 * max(map(len, names), default=0) + 6)  # 5.6 points a letter
    ax.grid(axis="x")
    return plot.finish(ax, title)


def _bar(ax: Axes, place: int, span: Any, factor: float, end: float) -> None:
    """The bar of a span, with its process and duration on the side that has room."""
    look = LOOKS.get("wait" if span["name"].startswith("wait") else span["outcome"], LOOKS[""])
    begin, width = factor * span["start_s"], max(factor * span["duration_s"], end / 300)
    ax.barh(
        *(place, width, 0.62, begin),
        color=look.color,
        hatch=look.hatch,
        hatchcolor=look.ink,
        edgecolor=plot.TEXT if look.color == "none" else look.color,
        linewidth=0.6,
        label="" if look.says in ax.get_legend_handles_labels()[1] else look.says,
    )
    left = begin + width / 2 > 0.55 * end
    ax.annotate(
        *(f"{span['process']}, {_duration(span['duration_s'])}", (begin if left else begin + width, place)),
        xytext=(-4 if left else 4, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=9,
    )


def _row(span: dict[str, Any]) -> tuple[object, ...]:
    about, context = span["attributes"], span["context"]
    process = span["resource"]["attributes"]["service.instance.id"]
    return (
        *(span["name"], about.get("dtq.worker", process), context["trace_id"][2:], context["span_id"][2:]),
        *(span["parent_id"] and span["parent_id"][2:], about.get("messaging.message.id")),
        *(about.get("dtq.attempt"), about.get("dtq.outcome"), span["status"].get("description")),
        *(span["start_time"], span["end_time"], process),
    )


def _task_of(span_id: str, parents: dict[Any, dict[Any, Any]]) -> str | None:
    while span := parents.get(span_id):
        if isinstance(span["task_id"], str):
            return span["task_id"]
        span_id = span["parent_id"]
    return None


def _tree(spans: pd.DataFrame, parent: object = None, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """Depth and index of each span, every one followed by its children."""
    known = spans["parent_id"].isin(spans["span_id"])
    for i, span in spans[spans["parent_id"] == parent if parent else ~known].iterrows():
        yield depth, i
        yield from _tree(spans, span["span_id"], depth + 1)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
