"""`cluster`: a real Slurm cluster, one per test process, as after its start whenever a test begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster


@pytest.fixture(scope="session")
def cluster_of_process() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(cluster_of_process: Cluster) -> Iterator[Cluster]:
    """No job, no killed daemon and no changed setting reaches the next test."""
    yield cluster_of_process
    cluster_of_process.restore()
