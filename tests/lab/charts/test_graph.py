"""Tasks that depend on each other, as a picture."""

from typing import Any

from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch

from dtq.lab.charts import graph, plot
from dtq.queue.task import Status, Task


def task(name: str, *parents: str, status: Status = Status.COMPLETED) -> Task[Any]:
    return Task(id=name, type="noop", status=status, depends_on=list(parents), duration=0.5, data=None)


DIAMOND = [task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c", status=Status.WAITING)]
NAMES = {each.id: each.id.upper() for each in DIAMOND}


def test_a_child_stands_right_of_its_parents_also_when_it_comes_first() -> None:
    places = graph._layers({each.id: each for each in reversed(DIAMOND)})
    assert {name: x for name, (x, _) in places.items()} == {"a": 0, "b": 1, "c": 1, "d": 2}
    assert len(set(places.values())) == 4


def test_boxes_say_name_status_and_time_and_the_path_is_thick() -> None:
    (ax,) = graph.draw(DIAMOND, NAMES, path=["a", "c", "d"]).axes
    assert [text.get_text() for text in ax.texts] == [
        "A\ncompleted, 0.50 s",
        "B\ncompleted, 0.50 s",
        "C\ncompleted, 0.50 s",
        "D\nwaiting, 0.50 s",
    ]
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    thick = [arrow for arrow in arrows if to_hex(arrow.get_edgecolor()) == plot.ORANGE.lower()]
    assert (len(arrows), len(thick)) == (4, 2)
