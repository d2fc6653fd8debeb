"""The picture of the states."""

import pytest

from dtq.lab.charts import states
from dtq.queue.scripts import TRANSITIONS
from dtq.queue.task import Status


def test_every_state_and_every_script_has_its_place() -> None:
    assert set(states.PLACES) == {states.NEW, *Status}
    still = {"heartbeat", "deregister", "set_aside"}  # they change no status
    assert set(states.ACTORS) == set(TRANSITIONS) - still


def test_boxes_and_an_arrow_for_each_actor_with_its_scripts() -> None:
    moves = {(states.NEW, "pending"): {"submit"}, ("processing", "pending"): {"release", "maintain"}}
    figure = states.draw(moves)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert set(Status) | {states.NEW} <= set(words)
    assert [word for word in words if word in TRANSITIONS] == ["submit", "maintain", "release"]
    legend = figure.axes[0].get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == list(states.LOOKS)


def test_an_arrow_begins_and_ends_at_the_edge_of_a_box() -> None:
    (_, start), (_, end) = states._ends("pending", "cancelled")
    assert start == pytest.approx(states.PLACES["pending"][1] - states.HEIGHT / 2)
    assert end == pytest.approx(states.PLACES["cancelled"][1] + states.HEIGHT / 2)
    (left, _), (right, _) = states._ends("waiting", "pending")
    assert left == pytest.approx(states.PLACES["waiting"][0] + states.WIDTH / 2)
    assert right == pytest.approx(states.PLACES["pending"][0] - states.WIDTH / 2)


def test_the_words_at_two_arrows_side_by_side_stand_apart() -> None:
    figure = states.draw({("waiting", "cancelled"): {"cancel", "discard", "maintain"}})
    figure.draw_without_rendering()
    texts = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert not texts["cancel,\ndiscard"].overlaps(texts["maintain"])


def test_a_state_without_a_place_is_noticed() -> None:
    with pytest.raises(KeyError):
        states.draw({("pending", "paused"): {"submit"}})


def test_what_the_scripts_can_do_is_read_from_their_text() -> None:
    can = states.possible()
    assert {status for _, status in can} == set(Status), "each state is reached by some script"
    assert {status for script, status in can if script == "fail"} == {"failed", "retrying"}
    assert {status for script, status in can if script == "complete"} == {"completed", "pending", "scheduled"}
    assert {status for script, status in can if script == "discard"} == {"cancelled"}
    assert {script for script, _ in can} == set(states.ACTORS), "the other scripts change no status"
