"""A pytest plugin: how tests are shared out among several processes, where `-n` asks for them.

Tests of one file stay together, for the sake of what they share; each execution of a notebook is on its own.
What takes longest is begun first, so that no process is left with it in the end.
"""

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SPREAD = "tests/notebooks/test_execution.py"
LONGEST = (
    SPREAD,
    "tests/deploy/test_bare_root.py",
    "tests/browser/",
    "tests/faults/",
)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Shares(LoadScopeScheduling):
    """Gives a process a whole file, or one execution of a notebook, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        return nodeid if file == SPREAD else file


@pytest.hookimpl(tryfirst=True)  # else xdist answers for itself
def pytest_xdist_auto_num_workers() -> int:
    """Most tests wait for other processes most of the time."""
    return 2 * (os.cpu_count() or 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Shares:
    return Shares(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((n for n, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))

    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=rank)
