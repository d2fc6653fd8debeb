"""Charts: what is drawn from the data, and that any background will do."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dtq.lab.charts import plot
from dtq.lab.witness import frames
from dtq.queue.task import Attempt
from tests.lab.tasks import START, at, done

LOST = Attempt(attempt=1, worker="worker-10", started_at=at(1), ended_at=at(3), outcome="worker lost")
TASKS = [
    done("a", 0, 0, 2, worker_id="worker-2"),
    done("b", 0.1, 2, 4, worker_id="worker-2"),
    done("c", 0.2, 4, 6, worker_id="worker-2", attempts=2, history=[LOST]),
    done("d", 0.3, 0.3, 1, worker_id="worker-10", priority="high"),
]
ATTEMPTS = frames.attempts(TASKS)
EMPTY = frames.attempts([])
SAMPLES = pd.DataFrame(
    {
        "at": [at(0), at(1), at(2), at(3)],
        "time_s": [0.0, 1.0, 2.0, 3.0],
        "pending": [9, None, 4, 0],
        "processing": [3, None, 3, 0],
        "delayed": [0, None, 0, 0],
        "waiting": [0, None, 0, 0],
        "dead_letter": [0, None, 0, 1],
    }
)
TRIES = pd.DataFrame(
    {
        "sent_at": [at(0), at(0.1), at(0.9), at(2)],
        "answered_at": [at(0.05), at(0.15), at(0.95), at(2.05)],
        "outcome": ["acknowledged", "refused", "refused", "acknowledged"],
    }
)
CHARTS: dict[str, tuple[Callable[..., Figure], pd.DataFrame]] = {
    "timeline": (plot.timeline, ATTEMPTS),
    "throughput": (plot.throughput, ATTEMPTS),
    "latency": (plot.latency, ATTEMPTS),
    "share": (plot.share, ATTEMPTS),
    "order": (plot.order, ATTEMPTS),
    "depth": (plot.depth, SAMPLES),
    "submissions": (plot.submissions, TRIES),
}
each_chart = pytest.mark.parametrize(("draw", "frame"), list(CHARTS.values()), ids=list(CHARTS))


def texts(figure: Figure) -> list[str]:
    """All that is written, except along the axes."""
    legend: Any = figure.axes[0].get_legend()
    return [text.get_text() for text in [*figure.axes[0].texts, *(legend.get_texts() if legend else [])]]


def bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


@each_chart
def test_it_asks_a_question_and_names_its_axes(draw: Callable[..., Figure], frame: pd.DataFrame) -> None:
    figure = draw(frame)
    [axes] = figure.axes
    assert axes.get_title(loc="left").endswith("?")
    assert axes.get_xlabel()
    assert axes.get_ylabel() or axes.get_yticklabels()[0].get_text().startswith("worker-")
    assert draw(frame, title="Mine").axes[0].get_title(loc="left") == "Mine"


@each_chart
def test_it_stands_on_any_background(draw: Callable[..., Figure], frame: pd.DataFrame) -> None:
    before = {name: mpl.rcParams[name] for name in plot.STYLE}
    figure = draw(frame)
    figure.draw_without_rendering()  # the ticks are made here, with the reader's settings

    [axes] = figure.axes
    assert (figure.get_facecolor()[3], to_rgba(axes.get_facecolor())[3]) == (0, 0)
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.title]
    assert {label.get_color() for label in labels} == {plot.TEXT}
    assert {name: mpl.rcParams[name] for name in plot.STYLE} == before


@each_chart
def test_it_is_drawn_where_it_is_told_to(draw: Callable[..., Figure], frame: pd.DataFrame) -> None:
    figure = plot.panels(2)
    assert draw(frame, ax=figure.axes[1]) is figure
    figure.draw_without_rendering()
    assert not figure.axes[0].has_data()


@each_chart
def test_nothing_to_draw_is_an_empty_chart(draw: Callable[..., Figure], frame: pd.DataFrame) -> None:
    figure = draw(frame.iloc[:0])
    figure.draw_without_rendering()
    assert figure.axes[0].get_title(loc="left")


def test_timeline_has_a_lane_per_worker_and_a_bar_per_attempt() -> None:
    [axes] = plot.timeline(ATTEMPTS).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["worker-2", "worker-10"]
    assert len(bars(axes)) == 5
    lost = [bar for bar in bars(axes) if bar.get_hatch()]
    assert [round(bar.get_x(), 3) for bar in lost] == [1], "readable without colour"


def test_timeline_numbers_what_is_long_enough() -> None:
    many = frames.attempts([done(f"t{n}", 0, n / 100, n / 100 + 0.009) for n in range(500)])
    assert {"1", "2", "3", "4"} <= set(texts(plot.timeline(ATTEMPTS)))
    assert [text for text in texts(plot.timeline(many)) if text.isdigit()] == []


def test_timeline_leads_from_a_lost_attempt_to_the_next() -> None:
    [arrow] = [text for text in plot.timeline(ATTEMPTS).axes[0].texts if getattr(text, "arrow_patch", None)]
    assert (arrow.xyann[0], arrow.xy[0]) == (3, 4)


@pytest.mark.parametrize("draw", [plot.timeline, plot.throughput])
def test_events_are_marked_in_seconds_or_as_a_moment(draw: Callable[..., Figure]) -> None:
    figure = draw(ATTEMPTS, events={"killed": 1.2, "much later": START + timedelta(seconds=20)})
    lines = [line.get_xdata()[0] for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1]
    assert lines == [1.2, 20]
    assert {"killed", "much later"} <= set(texts(figure))
    assert figure.axes[0].get_xlim()[1] > 20


def test_names_of_events_that_are_close_stand_above_each_other() -> None:
    figure = plot.throughput(ATTEMPTS, events={"worker-2 killed": 1.0, "worker-1 killed": 1.1, "late": 5})
    heights = [text.xyann[1] for text in figure.axes[0].texts]
    assert heights[0] == heights[2] < heights[1]


def test_submissions_counts_every_answer_once_and_stacks_them() -> None:
    [axes] = plot.submissions(TRIES, events={"killed": 3}, step=1).axes
    assert [(bar.get_y(), bar.get_height(), bool(bar.get_hatch())) for bar in bars(axes)] == [
        *((0, height, False) for height in (1, 0, 1, 0)),
        *((low, height, True) for low, height in ((1, 2), (0, 0), (1, 0), (0, 0))),
    ]
    assert {"acknowledged", "refused", "killed"} == set(texts(axes.figure))
    assert axes.get_ylabel() == "answers in 1000 ms"
    assert axes.get_xlim()[1] > 3


def test_throughput_counts_every_completed_task_once() -> None:
    [axes] = plot.throughput(ATTEMPTS, step=1.0).axes
    values, edges, _ = axes.patches[0].get_data()
    assert list(edges) == [0, 1, 2, 3, 4, 5, 6]
    assert list(values) == [0, 1, 1, 0, 1, 1], "at 1, 2, 4 and 6 s: the very last end is in the last step"


def test_latency_tells_percentiles_in_a_fitting_unit() -> None:
    quick = frames.attempts([done(f"t{n}", 0, 0, n / 1000) for n in range(1, 101)])
    figure = plot.latency(quick)
    assert texts(figure) == [
        "p50: 50 % within 50.5 ms",
        "p95: 95 % within 95 ms",
        "p99: 99 % within 99 ms",
    ]
    assert sum(bar.get_height() for bar in bars(figure.axes[0])) == 100
    assert texts(plot.latency(ATTEMPTS))[0] == "p50: 50 % within 2.95 s"


def test_depth_leaves_out_what_stayed_empty_and_keeps_gaps() -> None:
    [axes] = plot.depth(SAMPLES).axes
    assert [line.get_label() for line in axes.lines] == ["pending", "processing", "dead letter"]
    assert len({line.get_linestyle() for line in axes.lines}) == 3, "readable without colour"
    assert pd.isna(axes.lines[0].get_ydata()[1])


def test_share_counts_results() -> None:
    figure = plot.share(ATTEMPTS)
    assert texts(figure) == ["3  (75%)", "1  (25%)", "an even share: 2"]


def test_order_shows_who_overtook_whom() -> None:
    [axes] = plot.order(ATTEMPTS).axes
    normal, high = (points.get_offsets().tolist() for points in axes.collections)
    assert normal == [[1, 1], [3, 3], [2, 4]], "a task counts with its first attempt"
    assert high == [[4, 2]]
