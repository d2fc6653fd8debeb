"""The book's pages of source code."""

from pathlib import Path

import pytest

from scripts.publish import source_pages
from scripts.publish.source_pages import ROOT, address, line_of


@pytest.mark.parametrize(
    ("name", "path", "begins"),
    [
        ("dtq.queue.broker.Broker.submit", "dtq/queue/broker.py", "    def submit("),
        ("dtq.gateway.create_app", "dtq/gateway/__init__.py", "def create_app("),
        ("dtq.queue.task.Status", "dtq/queue/task.py", "class Status("),
        ("dtq.queue.task.Status.PENDING", "dtq/queue/task.py", "    PENDING ="),
        ("dtq.lab.charts.plot.BLUE", "dtq/lab/charts/plot.py", "BLUE, "),
        ("dtq.config.Settings.lease", "dtq/config.py", "    lease:"),
    ],
)
def test_a_name_has_the_line_of_its_definition(name: str, path: str, begins: str) -> None:
    line = line_of(name, path)
    assert line is not None
    assert (ROOT / path).read_text(encoding="utf-8").splitlines()[line - 1].startswith(begins)


def test_a_module_and_another_text_have_none() -> None:
    assert line_of("dtq.broker", "dtq/queue/broker.py") is None
    assert line_of("the broker", "dtq/queue/broker.py") is None


def test_addresses_of_files_folders_and_given_lines() -> None:
    assert address("dtq/queue/lua", "the scripts") == "dtq/queue/lua/index.html"
    assert address("dtq/queue/lua/claim.lua", "claim.lua") == "dtq/queue/lua/claim.lua.html"
    assert address("dtq/queue/lua/claim.lua", "claim.lua", "23") == "dtq/queue/lua/claim.lua.html#line-23"
    assert address("dtq/queue/broker.py", "`dtq.queue.broker`") == "dtq/queue/broker.py.html"


def test_a_folder_has_a_page_that_says_what_is_in_it(tmp_path: Path) -> None:
    entry = source_pages.write(ROOT / "dtq/queue/lua", tmp_path)

    assert (entry["file"], entry["title"]) == ("dtq/queue/lua/index", "lua/")
    assert {"file": "dtq/queue/lua/claim.lua", "title": "claim.lua"} in entry["sections"]
    text = (tmp_path / "dtq/queue/lua/index.md").read_text(encoding="utf-8")
    assert "| [claim.lua](claim.lua.md) | Claims pending tasks for a worker and starts their leases" in text
    page = (tmp_path / "dtq/queue/lua/claim.lua.md").read_text(encoding="utf-8")
    assert "{source} claim.lua\n:language: lua" in page
