"""One node is cut off from Redis, in every possible way, for less or for more than its lease."""

import time
from collections.abc import Callable

import pytest

from tests.fault.conftest import NewFaultCluster
from tests.fault.fault_cluster import FaultCluster
from tests.fault.signals import SOON
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

#: Long enough to distinguish a short cut from a long one on a busy machine.
PATIENT = {"lease_ttl": 2.0, "heartbeat_interval": 0.4}
LEASE = 2.0
#: Well below the part of a lease that remains after a late heartbeat.
BRIEF = 0.5

#: By name: nothing can be reached; silence both ways; requests are lost; answers are lost.
CUTS: dict[str, Callable[[Proxy], None]] = {
    "reset": Proxy.refuse,
    "silent": Proxy.hole,
    "deaf to it": lambda proxy: proxy.hole("up"),
    "deaf": lambda proxy: proxy.hole("down"),
}
cuts = pytest.mark.parametrize("cut", CUTS)


def works(cluster: FaultCluster, node: str) -> None:
    """Assert that the worker of a node takes tasks from the node's own queue: it is connected, and not deaf."""
    cluster.run_task(next(address.queue for address in cluster.before.values() if address.node == node))


@cuts
def test_a_node_cut_off_for_less_than_its_lease_keeps_its_daemons(fault_cluster: NewFaultCluster, cut: str) -> None:
    """Attacks invariant 5: the node or the monitor might give up the lease too early. No token may change."""
    # Given
    cluster = fault_cluster(settings=PATIENT, broker="behind")
    node, _ = cluster.wait_leader()
    start = cluster.journal_end()

    # When
    CUTS[cut](cluster.proxies[node])
    time.sleep(BRIEF)
    cluster.proxies[node].heal()

    # Then
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
    assert not cluster.events("lost", start)


@cuts
def test_a_node_cut_off_for_longer_than_its_lease_is_replaced_and_rejoins(
    fault_cluster: NewFaultCluster, cut: str
) -> None:
    """Attacks invariant 1: both sides of the partition might run the same daemons."""
    # Given
    cluster = fault_cluster(settings=PATIENT, broker="behind")
    node, leader = cluster.wait_leader()

    # When
    CUTS[cut](cluster.proxies[node])

    # Then
    cluster.wait_moved(node)
    cluster.assert_not_restarted(cluster.names_not_on(node))
    assert cluster.wait_leader()[1].epoch > leader.epoch
    cluster.proxies[node].heal()
    cluster.final_check()
    works(cluster, node)


def test_a_slow_network_ends_no_lease(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariants 5 and 10: each answer arrives after the next heartbeat is due. No token may change."""
    # Given
    cluster = fault_cluster(settings=PATIENT, broker="behind")
    node, _ = cluster.wait_leader()
    start = cluster.journal_end()

    # When
    cluster.proxies[node].delay(0.2)
    beaten = cluster.lease_end(node)
    wait_until(lambda: cluster.lease_end(node) > beaten + 1000 * LEASE, within=SOON, because="it still beats")
    cluster.proxies[node].heal()

    # Then
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
    assert not cluster.events("lost", start)


def test_late_requests_of_a_replaced_node_change_nothing(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 3: heartbeats, claims and reports of a fenced node reach Redis long after they were sent."""
    # Given
    cluster = fault_cluster(settings=PATIENT, broker="behind")
    node = cluster.other_node(cluster.wait_leader()[0])

    # When
    cluster.proxies[node].hold("up")
    cluster.wait_moved(node)
    moved = cluster.client.locate_many(cluster.wanted)
    cluster.proxies[node].heal()

    # Then
    assert cluster.final_check() == moved


def test_a_node_that_loses_redis_and_keeps_its_broker_is_replaced(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 1: spawn tasks from the broker might start daemons on a node without a lease."""
    # Given
    cluster = fault_cluster(settings=PATIENT)
    node = cluster.other_node(cluster.wait_leader()[0])

    # When
    cluster.proxies[node].hole()

    # Then
    cluster.wait_moved(node)
    cluster.assert_not_restarted(cluster.names_not_on(node))
    works(cluster, node)
    cluster.proxies[node].heal()
    cluster.final_check()
