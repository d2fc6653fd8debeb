"""Draws the states of a task from transitions that were seen, and finds the states that scripts can set."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dtq.lab.charts import plot
from dtq.queue.scripts import LUA, TRANSITIONS
from dtq.queue.task import Status

Point = tuple[float, float]
NEW = "submitted"  # before its first status
PLACES: dict[str, Point] = {  # of the middle of each state's box
    NEW: (3.5, 5.0),
    Status.WAITING: (1.0, 1.8),
    Status.SCHEDULED: (4.2, 3.5),
    Status.PENDING: (6.0, 1.8),
    Status.RETRYING: (9.2, 3.5),
    Status.PROCESSING: (11.3, 1.8),
    Status.COMPLETED: (13.7, 3.5),
    Status.FAILED: (13.7, -0.2),
    Status.CANCELLED: (7.35, -1.9),
}
WIDE: dict[str, float] = {NEW: 7.0, Status.CANCELLED: 14.6}  # boxes that many arrows lead from or to
WIDTH, HEIGHT = 1.9, 0.56
CLIENT, WORKER, TIME = "a client, through the gateway", "a worker", "time, noticed by whoever looks first"
LOOKS: dict[str, tuple[str, Any]] = {
    CLIENT: (plot.GREEN, (0, (1, 1))),
    WORKER: (plot.BLUE, "-"),
    TIME: (plot.RED, "--"),
}
ACTORS = dict.fromkeys(("submit", "cancel", "requeue", "discard"), CLIENT)
ACTORS |= dict.fromkeys(("claim", "complete", "fail", "release"), WORKER) | {"maintain": TIME}
SETTERS = {  # functions of shared.lua -> what a task can become by them
    "enqueue": {Status.PENDING},
    "bury": {Status.FAILED},
    "cancel_child": {Status.CANCELLED},
    "settle": {Status.PENDING, Status.SCHEDULED, Status.CANCELLED},
}
TOLD = {  # what a child can become when it is told, by `settle_here`, that its parent has become this
    Status.COMPLETED: {Status.PENDING, Status.SCHEDULED},
    Status.CANCELLED: {Status.CANCELLED},
}
NAMED = re.compile(r"(?:h\.status.* = |postpone\(h, tail, |finish\(.*, )'(\w+)'")


@plot.styled
def draw(
    transitions: Mapping[tuple[str, str], Collection[str]],
    title: str = "Which script moves a task from which state to which?",
) -> Figure:
    """A box for each state, an arrow for each transition, with the names of the scripts that make it.

    Args:
        transitions: (state before, state after) -> scripts. Before its first state a task is `NEW`.

    Raises:
        KeyError: a state or a script has no place in the picture yet.
    """
    ax = Figure(figsize=(1.2 * plot.WIDTH, 5.9), layout="constrained").add_subplot()
    ax.set(xlim=(-0.1, 14.7), ylim=(-2.2, 5.3), aspect="equal")
    for state in [NEW, *Status]:
        _box(ax, state)
    for (before, after), scripts in transitions.items():
        actors = list(dict.fromkeys(ACTORS[script] for script in sorted(scripts)))
        crossing = (after, before) in transitions or (before, after) == (Status.FAILED, Status.PENDING)
        for n, actor in enumerate(actors):
            label = ", ".join(script for script in sorted(scripts) if ACTORS[script] == actor)
            bend = 0.1 + 0.14 * n if crossing else 0.15 * (n - (len(actors) - 1) / 2)
            _arrow(ax, _ends(before, after), actor, label, bend)
    for actor, (color, line) in LOOKS.items():
        ax.plot([], [], color=color, linestyle=line, linewidth=1.6, label=actor)
    figure = plot.finish(ax, title)
    ax.axis("off")
    return figure


def _width(state: str) -> float:
    return WIDE.get(state, WIDTH)


def _box(ax: Axes, state: str) -> None:
    (x, y), width = PLACES[state], _width(state)
    corner, shape = (x - width / 2, y - HEIGHT / 2), "round,pad=0,rounding_size=0.15"
    ax.add_patch(FancyBboxPatch(corner, width, HEIGHT, shape, facecolor="none", edgecolor=plot.TEXT))
    ax.text(x, y, state, ha="center", va="center_baseline", weight="normal" if state == NEW else "bold")


def _ends(before: str, after: str) -> tuple[Point, Point]:
    """Where an arrow leaves one box and meets the other. At a wide box it is vertical."""
    (x0, y0), (x1, y1) = PLACES[before], PLACES[after]
    x0, x1 = (x1 if before in WIDE else x0), (x0 if after in WIDE else x1)
    dx, dy = x1 - x0, y1 - y0

    def part(state: str) -> float:
        """The share of the way between the two middles that lies inside the box."""
        sideways = _width(state) / 2 / abs(dx) if dx else 1.0
        return min(sideways, HEIGHT / 2 / abs(dy) if dy else 1.0)

    start, end = part(before), 1 - part(after)
    return (x0 + start * dx, y0 + start * dy), (x0 + end * dx, y0 + end * dy)


def _arrow(ax: Axes, ends: tuple[Point, Point], actor: str, label: str, bend: float) -> None:
    """`bend` is how far its middle is to the left of the straight line, as a share of the length."""
    ((x0, y0), (x1, y1)), (color, line) = ends, LOOKS[actor]
    dx, dy = x1 - x0, y1 - y0
    style: dict[str, Any] = {"arrowstyle": "-|>", "color": color, "linestyle": line, "linewidth": 1.6}
    style |= {"shrinkA": 0, "shrinkB": 0, "mutation_scale": 11, "connectionstyle": f"arc3,rad={-2 * bend}"}
    ax.annotate("", (x1, y1), (x0, y0), arrowprops=style)
    side = math.copysign(1, bend or dx)  # above the line, or where it bends to
    x, y = (x0 + x1) / 2 - bend * dy, (y0 + y1) / 2 + bend * dx
    if abs(dx) < 0.01:  # beside the line, where it bends to; the words one below the other
        gap, align = (-0.12, "right") if bend * dy > 0 else (0.12, "left")
        ax.text(x + gap, y, label.replace(", ", ",\n"), fontsize=9, ha=align, va="center")
        return
    angle = math.degrees(math.atan2(dy, dx))
    gap = 0.2 * side / math.hypot(dx, dy)
    options: Any = {"rotation": (angle + 90) % 180 - 90, "rotation_mode": "anchor"}
    ax.text(x - gap * dy, y + gap * dx, label, fontsize=9, ha="center", va="center", **options)


def possible() -> set[tuple[str, str]]:
    """All (script, status) such that the script's text can give a task this status: it sets it by name, or
    through a function of `shared.lua` that does, or tells the children of tasks that it has ended.
    """
    found = set[tuple[str, str]]()
    for script in TRANSITIONS:
        text = (LUA / f"{script}.lua").read_text(encoding="utf-8")
        statuses = {Status(name) for name in NAMED.findall(text)}
        statuses |= {status for name in SETTERS if f"{name}(" in text for status in SETTERS[name]}
        if "settle_here(" in text:
            statuses |= {status for parent in statuses & TOLD.keys() for status in TOLD[parent]}
        found |= {(script, str(status)) for status in statuses}
    return found
