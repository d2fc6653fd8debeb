"""The broker's tests run on one server, and on a Redis Cluster."""

import functools
from collections.abc import Callable

import pytest

from dtq.queue.broker import Broker


@pytest.fixture(scope="session", params=[False, True], ids=["server", "cluster"])
def on_cluster(request: pytest.FixtureRequest) -> bool:
    """Whether the queue is on a cluster."""
    chosen: bool = request.param
    return chosen


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, on_cluster: bool) -> str:
    """A server, or one node of the cluster."""
    url: str = request.getfixturevalue("cluster_url" if on_cluster else "server_url")
    return url


@pytest.fixture
def make_broker(make_broker: Callable[..., Broker], on_cluster: bool) -> Callable[..., Broker]:
    """Makes brokers of one queue that is this test's alone."""
    return functools.partial(make_broker, redis_cluster=on_cluster)
