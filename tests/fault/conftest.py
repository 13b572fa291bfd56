"""One cluster at a time, kept for the next test that asks for the same one if the last test on it passed."""

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests.conftest import RUNNING
from tests.fault.fault_cluster import FaultCluster


class NewFaultCluster(Protocol):
    """Return the cluster that a test describes; the arguments are those of :class:`FaultCluster`."""

    def __call__(self, **wants: Any) -> FaultCluster: ...


class _ClusterCache:
    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._cluster: FaultCluster | None = None
        self._wants: dict[str, Any] = {}

    def cluster(self, wants: dict[str, Any]) -> FaultCluster:
        if self._cluster is None or not self._cluster.reusable or self._wants != wants:
            self.close()
            self._wants = wants
            self._cluster = FaultCluster(self._factory.mktemp("cluster"), **wants)
            self._cluster.open()
        return self._cluster

    def close(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()


@pytest.fixture(scope="module")
def cluster_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_ClusterCache]:
    """Keep at most one cluster per test module, and close the last one."""
    cluster_cache = _ClusterCache(tmp_path_factory)
    yield cluster_cache
    cluster_cache.close()


@pytest.fixture
def fault_cluster(cluster_cache: _ClusterCache, request: pytest.FixtureRequest) -> NewFaultCluster:
    """Reuse or start the cluster that a test asks for, and bring it to its initial state."""

    def find(**wants: Any) -> FaultCluster:
        cluster = cluster_cache.cluster(wants)
        request.node.stash[RUNNING] = list(cluster.workers.values())
        return cluster.begin()

    return find
