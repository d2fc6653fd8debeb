"""`plot.curves`: what was measured beside what was expected."""

from typing import Any

import pandas as pd

from dtq.lab.charts import plot

MEASURED = pd.DataFrame({"waits": [1.0, 1.9, None], "computes": [1.0, 1.5, 1.6]}, index=[1, 2, 3])
IDEAL = pd.DataFrame({"ideal": [1, 2, 3]}, index=[1, 2, 3])


def test_curves_mark_what_was_measured_and_not_what_was_expected() -> None:
    figure = plot.curves(MEASURED.rename_axis("workers"), IDEAL, "How much faster?", "speed-up")
    axes: Any = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert {name: line.get_marker() for name, line in lines.items()} == {
        "ideal": "None",
        "waits": "o",
        "computes": "^",
    }
    assert list(lines["computes"].get_ydata()) == [1.0, 1.5, 1.6]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ideal", "waits", "computes"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("workers", "speed-up")
    assert axes.get_title(loc="left") == "How much faster?"


def test_curves_need_no_theory_and_count_whole_workers() -> None:
    axes: Any = plot.curves(MEASURED).axes[0]
    axes.figure.canvas.draw()
    assert len(axes.lines) == 2
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert axes.get_ylim()[0] == 0
