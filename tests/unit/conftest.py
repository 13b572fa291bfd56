"""Fixtures of the unit tests."""

from collections.abc import Iterator

import pytest

from tests.unit.monitor_harness import LEASE, ClusterHarness
from tests.unit.protocol.clock import virtual_time


@pytest.fixture
def cluster() -> Iterator[ClusterHarness]:
    """Two nodes in a cluster that is older than a lease, and one wanted daemon."""
    with virtual_time() as clock:
        cluster = ClusterHarness(clock)
        cluster.advance(2 * LEASE)
        yield cluster
