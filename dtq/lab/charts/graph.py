"""Tasks that depend on each other, drawn as a graph."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from dtq.lab.charts import plot
from dtq.queue.task import Status, Task

Place = tuple[float, float]
LINES = {Status.COMPLETED: "-", Status.FAILED: "--", Status.CANCELLED: ":"}  # of the box; others are dash-dot
COLORS = {Status.COMPLETED: plot.BLUE, Status.FAILED: plot.RED, Status.CANCELLED: plot.TEXT}


@plot.styled
def draw(
    tasks: Iterable[Task[Any]],
    names: Mapping[str, str],
    path: Sequence[str] = (),
    title: str = "Which task depends on which?",
) -> Figure:
    """A box per task, with its name, its status and the seconds it ran; arrows lead from parents to children.

    Args:
        tasks: parents and children, in any order.
        names: id -> what the box says.
        path: ids, one after the other, whose arrows are drawn thick: the critical path, for example.
    """
    known = {task.id: task for task in tasks}
    places = _layers(known)
    rows = max(Counter(x for x, _ in places.values()).values())
    ax = Figure(figsize=(plot.WIDTH * 1.2, 0.8 + 0.75 * rows), layout="constrained").add_subplot()
    for task in known.values():
        _box(ax, places[task.id], task, names[task.id])
        for parent in task.depends_on:
            thick = (parent, task.id) in pairwise(path)
            ax.add_patch(_arrow(places[parent], places[task.id], thick))
    ax.set(xlim=(-0.5, max(x for x, _ in places.values()) + 0.5), ylim=(-rows / 2 - 0.1, rows / 2 + 0.1))
    ax.axis("off")
    return plot.finish(ax, title)


def _layers(tasks: Mapping[str, Task[Any]]) -> dict[str, Place]:
    """Each task one column further right than the last of its parents; a column is centred."""
    columns: dict[str, int] = {}

    def column(task_id: str) -> int:
        if task_id not in columns:
            columns[task_id] = max((1 + column(parent) for parent in tasks[task_id].depends_on), default=0)
        return columns[task_id]

    for task_id in tasks:
        column(task_id)
    sizes, seen, places = Counter(columns.values()), Counter[int](), dict[str, Place]()
    for task_id in tasks:
        x = columns[task_id]
        places[task_id] = (x, (sizes[x] - 1) / 2 - seen[x])
        seen[x] += 1
    return places


def _box(ax: Axes, place: Place, task: Task[Any], name: str) -> None:
    ran = f", {task.duration:.2f} s" if task.duration is not None else ""
    color, line = COLORS.get(task.status, plot.ORANGE), LINES.get(task.status, "-.")
    style = {
        "boxstyle": "round,pad=0.4",
        "facecolor": "none",
        "edgecolor": color,
        "linestyle": line,
        "linewidth": 2,
    }
    ax.text(*place, f"{name}\n{task.status}{ran}", ha="center", va="center", fontsize=9, bbox=style)


def _arrow(start: Place, end: Place, thick: bool) -> FancyArrowPatch:
    look: dict[str, Any] = {"linewidth": 3.5 if thick else 1.2, "color": plot.ORANGE if thick else plot.TEXT}
    (x, y), (to_x, to_y) = start, end
    return FancyArrowPatch((x + 0.22, y), (to_x - 0.22, to_y), arrowstyle="-|>", mutation_scale=12, **look)
