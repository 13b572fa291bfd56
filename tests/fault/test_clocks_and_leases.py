"""Redis's clock is set, its data is lost or old, and nodes have leases of different lengths: no daemon runs twice."""

import time

import pytest

from celery_daemons.domain.names import NodeName
from celery_daemons.store.keys import Keys
from celery_daemons.wire.arguments import encode_arguments
from tests.fault.conftest import NewFaultCluster
from tests.fault.daemon_kinds import SOURCE
from tests.fault.signals import SOON, freeze, thaw
from tests.support.waiting import wait_until

A, B = ("w1@test", "w2@test")
SETTINGS = {"lease_ttl": 2.0, "heartbeat_interval": 0.5}
LEASE = 2.0
#: Node w2 has another lease than w1.
LONG = 8.0
MIXED = SOURCE.replace(
    "app = Celery(",
    f"import sys\nif any('w2@test' in part for part in sys.argv):\n    SETTINGS['lease_ttl'] = {LONG}\n\napp = Celery(",
    1,
)


@pytest.mark.parametrize("step", [0.85 * LEASE, 3600.0])
def test_no_node_is_lost_when_redis_clock_is_set_forward(fault_cluster: NewFaultCluster, step: float) -> None:
    """Attacks invariants 1 and 4: by Redis's clock, the leases of both nodes end between two heartbeats."""
    # Given
    cluster = fault_cluster(settings=SETTINGS, fake_clock=True)
    start = cluster.journal_end()

    # When one step after the other falls between heartbeats, at any moment of them
    for number in range(1, 9):
        cluster.clock.set(number * step)
        time.sleep(LEASE * 0.37)

    # Then
    cluster.clock.set(8 * step)
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
    assert cluster.events("lost", start) == []


def test_a_silent_node_whose_lease_has_ended_by_redis_clock_alone_is_not_lost(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariants 1 and 4: the agent is paused, its hosts run on, and the monitor checks the leases at once."""
    # Given
    cluster = fault_cluster(settings={**SETTINGS, "scan_timeout": 20.0}, fake_clock=True)
    agent = cluster.agent(B)
    freeze(agent)
    wait_until(
        lambda: cluster.lease_end(B) / 1000 - time.time() < LEASE / 2, within=SOON, because="half of the lease is over"
    )

    # When; the drain is a change of a node, on which the monitor checks all leases
    cluster.clock.set(0.6 * LEASE)
    cluster.client.drain(B)

    # Then nothing of that node runs elsewhere before the lease has ended
    cluster.wait_moved(B)
    thaw(agent)
    cluster.client.wait_up(A, B, within=SOON)
    cluster.clock.set(0.0)
    cluster.final_check()


def test_a_lost_node_is_replaced_within_two_leases_although_redis_clock_was_set_back(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariants 2 and 4: by Redis's clock, the leases run for another hour."""
    # Given a cluster whose candidates have not lost the lead before: each loss makes them wait longer
    cluster = fault_cluster(settings={**SETTINGS, "scan_timeout": 20.0}, fake_clock=True)

    # When a machine is lost, and the clock is set before its lease has ended
    cluster.workers[B].kill_tree()
    cluster.workers[B].close()
    cluster.clock.set(-3600.0)
    began = time.monotonic()

    # Then
    cluster.wait_moved(B)
    took = time.monotonic() - began
    assert took < 2 * LEASE + 2
    cluster.workers[B] = cluster.worker(B)
    cluster.workers[B].start()
    cluster.clock.set(0.0)
    cluster.final_check()


@pytest.mark.heavy
def test_a_silent_node_with_a_long_lease_keeps_its_daemons_when_redis_loses_its_data(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariants 1 and 10: the monitor's lease is a quarter of the holder's, and the data does not say so."""
    # Given
    cluster = fault_cluster(settings=SETTINGS, source=MIXED)
    agent = cluster.agent(B)

    # When the agent of the node with the long lease is paused, and its hosts run on
    freeze(agent)
    cluster.server.client().flushall()

    # Then nothing of that node runs elsewhere before the lease has ended
    cluster.wait_moved(B)
    thaw(agent)
    cluster.final_check()


@pytest.mark.heavy
def test_scanners_and_clients_that_are_quicker_than_nodes_restart_no_daemon(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 5: after a loss of data, a client records what runs before its node does."""
    # Given
    cluster = fault_cluster(settings={**SETTINGS, "lease_ttl": 4.0})
    agents = [cluster.agent(node) for node in (A, B)]

    # When
    freeze(*agents)
    cluster.server.client().flushall()
    for name in cluster.wanted:
        cluster.client.want(name, name.partition(".")[0], encode_arguments(name, (), {}))
    thaw(*agents)

    # Then none of them has been restarted when the monitor acts again
    cluster.client.want("watch.late", "watch", "[[],{}]")
    cluster.client.wait_running("watch.late", within=SOON)
    cluster.client.forget("watch.late")
    cluster.client.wait_running_all(cluster.wanted, because="they ran before", within=SOON)
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)


@pytest.mark.heavy
def test_a_new_agent_trusts_no_snapshot_without_a_confirmed_server(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariants 1 and 9: the data is old, the holder is silent, and the monitor's agent is new."""
    # Given a new agent that has not reached Redis yet, and a node that holds everything and falls silent
    cluster = fault_cluster(settings={**SETTINGS, "lease_ttl": 8.0}, broker="apart")
    cluster.workers[B].stop()
    cluster.wait_moved(B)
    cluster.proxies[B].refuse()
    cluster.workers[B].start()
    cluster.workers[B].wait_ready()
    freeze(cluster.agent(A))

    # When Redis restarts with a snapshot from before the first confirmation, in which no daemon is on any node
    with cluster.server.client() as redis:
        keys = Keys(cluster.project.namespace)
        redis.hdel(keys.cluster, "server")
        redis.delete(keys.book, keys.leases, keys.lease_lengths, keys.nodes, keys.monitor, keys.held(NodeName(A)))
    cluster.server.restart(keep_data=True)
    cluster.proxies[B].heal()

    # Then the new agent leads, and starts nothing before the lease of the silent node has ended
    wait_until(lambda: cluster.holds(B), within=SOON, because="the lease of the silent node ends")
    thaw(cluster.agent(A))
    cluster.final_check()
