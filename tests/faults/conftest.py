"""A cluster of real processes for each test; nothing of it is left afterwards."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dtq.lab.cluster.local_cluster import LocalCluster


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., LocalCluster]]:
    """Starts clusters; keyword arguments as for LocalCluster. A lease is soon over, but not so soon that a
    worker loses it which only has to wait for a processor.
    """
    clusters: list[LocalCluster] = []

    def make(**options: Any) -> LocalCluster:
        clusters.append(LocalCluster(**{"heartbeat": 0.25, "lease": 4.0} | options))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.stop()


@pytest.fixture
def cluster(make_cluster: Callable[..., LocalCluster]) -> LocalCluster:
    """Three workers."""
    return make_cluster()
