"""Source on a page: the right lines, under the right link; and who called whom."""

import inspect

import pytest

from dtq.lab.course.source import Excerpt, calls, excerpt, show
from dtq.queue.broker import Broker
from dtq.queue.scripts import TRANSITIONS
from dtq.queue.task import Status
from dtq.worker.interrupts import Interrupts
from dtq.worker.worker import Worker
from tests import steps
from tests.helpers import ROOT


def at(found: Excerpt) -> str:
    """The line of the file on which an excerpt says that it begins."""
    return found.path.read_text().splitlines()[found.line - 1].strip()


@pytest.mark.parametrize("thing", [Broker.submit, Interrupts.limit, Worker, Status, excerpt])
def test_the_whole_of_a_thing(thing: object) -> None:
    found = excerpt(thing)
    assert at(found) == found.text.splitlines()[0]
    assert found.text == inspect.cleandoc("\n" + inspect.getsource(inspect.unwrap(thing)))  # type: ignore[arg-type]


@pytest.mark.parametrize("script", TRANSITIONS)
def test_the_whole_of_a_script(script: str) -> None:
    found = excerpt(f"{script}.lua")
    assert found.text == (ROOT / "dtq/queue/lua" / f"{script}.lua").read_text().rstrip()


def test_a_block_ends_where_its_indentation_does() -> None:
    block = excerpt("heartbeat.lua", "for i = 5")
    assert at(block) == block.text.splitlines()[0] == "for i = 5, #ARGV, 2 do"
    assert block.text.splitlines()[-1] == "end"
    assert "else" in block.text
    assert "return {1, lost}" not in block.text
    loop = excerpt(Worker.run, "while not self.interrupts.stopping")
    assert loop.text.splitlines()[-1] == "        self.claimed.end(self.perform(task))"
    attempt = excerpt(Worker.perform, "try:")
    assert ("except Interrupted:" in attempt.text, "return Completed" in attempt.text) == (True, False)


def test_a_part_from_one_line_to_another() -> None:
    part = excerpt("fail.lua", "local wait", "postpone(").text.splitlines()
    assert (part[0].startswith("local wait"), part[-1].startswith("postpone("), len(part)) == (True, True, 3)


def test_what_is_not_there_any_more_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"In dtq/queue/lua/fail.lua no line begins with 'local weight'"):
        excerpt("fail.lua", "local weight")
    with pytest.raises(LookupError, match=r"In dtq.queue.broker.Broker.submit no line begins with 'raise'"):
        excerpt(Broker.submit, "return", "raise")


def test_it_is_shown_under_a_link(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT / "notebooks")
    page = excerpt(Broker.submit)._repr_markdown_()
    assert page.startswith("[dtq.queue.broker.Broker.submit](../dtq/queue/broker.py), line ")
    assert "\n\n```python\ndef submit(self" in page
    assert (
        excerpt("claim.lua")
        ._repr_markdown_()
        .startswith("[dtq/queue/lua/claim.lua](../dtq/queue/lua/claim.lua), line 1\n\n```lua")
    )
    show("shared.lua", "local function owned")
    assert "dtq/queue/lua/shared.lua, line" in capsys.readouterr().out


def test_calls_of_dtq_and_its_scripts_are_noted(broker: Broker) -> None:
    steps.submit(broker)
    worker = Worker(broker, "me")
    seen = calls(worker._refill)
    assert seen.result == 1
    assert seen.names[:2] == ["Worker._refill", "Worker._exchange"]
    deep = {name: depth for depth, name, _ in seen.steps}
    assert deep["claim.lua"] == deep["Scripts.run_together"] + 1 == deep["Worker._exchange"] + 3
    where = {name: where for _, name, where in seen.steps}
    assert where["claim.lua"] == "dtq/queue/lua/claim.lua"
    path, line = where["Claimed.take"].split(":")
    assert "def take(" in (ROOT / path).read_text().splitlines()[int(line) - 1]
    assert str(seen).splitlines()[1].startswith("   Worker._exchange ")


def test_a_context_manager_is_noted_once_and_others_not_at_all(broker: Broker) -> None:
    steps.submit(broker)
    worker = Worker(broker, "me")
    worker._refill()
    task = worker.claimed.start()
    assert task
    seen = calls(lambda: worker.perform(task))
    assert seen.names.count("about") == 1
    assert not any("<" in name or "test" in name for name in seen.names)


def test_what_the_action_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        calls(lambda: 1 / 0)
    assert calls(lambda: 3).names == []
