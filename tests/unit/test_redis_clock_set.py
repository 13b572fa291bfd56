"""What the monitor concludes when Redis's clock is set."""

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation
from celery_daemons.store import lease, queries, specs
from tests.unit.monitor_harness import LEASE, TAIL, A, B, ClusterHarness, turn
from tests.unit.protocol.clock import virtual_time

Y = DaemonName("y")


@pytest.mark.parametrize("step", [LEASE * 0.7, LEASE, 3600.0])
def test_no_node_is_lost_when_redis_clock_is_set_forward(cluster: ClusterHarness, step: float) -> None:
    """Attacks invariants 1 and 4: by Redis's clock, every lease has ended."""
    # Given
    monitor = cluster.elect(A)
    turn(monitor)

    # When the clock is set just before the next heartbeats
    cluster.set_server_clock(step)
    turn(monitor)
    turn(monitor)

    # Then
    assert set(queries.node_rows(cluster.store)) == {A, B}


@pytest.mark.parametrize("step", [1.0, 3600.0, -2.0, -3600.0])
def test_a_node_that_dies_after_a_step_of_redis_clock_is_lost_within_two_leases(
    cluster: ClusterHarness, step: float
) -> None:
    """Attacks invariant 2: a step of the clock delays the replacement by at most one lease."""
    # Given; a step forward by more than a lease also ends that of the monitor
    turn(cluster.elect(A))
    cluster.set_server_clock(step)
    cluster.renewed = None
    cluster.beat(A)
    cluster.beat(B)
    cluster.store.client.delete(cluster.keys.monitor)
    monitor = cluster.elect(A)
    turn(monitor)

    # When
    cluster.alive.remove(B)
    for _ in range(6):
        cluster.advance(1)
        turn(monitor)

    # Then
    assert set(queries.node_rows(cluster.store)) == {A}


def test_a_node_that_died_just_before_redis_clock_was_set_back_is_lost_after_its_lease(
    cluster: ClusterHarness,
) -> None:
    # Given
    monitor = cluster.elect(A)
    turn(monitor)
    cluster.alive.remove(B)

    # When
    cluster.set_server_clock(-3600)
    for _ in range(4):
        cluster.advance(1)
        turn(monitor)

    # Then
    assert set(queries.node_rows(cluster.store)) == {A}


def test_a_daemon_of_a_node_without_a_record_keeps_its_node_when_redis_clock_is_set_forward(
    cluster: ClusterHarness,
) -> None:
    """Attacks invariants 1 and 4: its node is gone for the planner, and its lease has ended by Redis's clock."""
    # Given
    monitor = cluster.elect(A)
    turn(monitor)
    home = cluster.home()
    assert home is not None

    cluster.alive.remove(home)
    cluster.advance(LEASE / 3)
    turn(monitor)

    # When
    cluster.store.client.hdel(cluster.keys.nodes, home)
    cluster.set_server_clock(LEASE * 0.8)
    cluster.join({A: B, B: A}[home])  # a change that makes the monitor read the nodes again
    turn(monitor)
    turn(monitor)

    # Then
    assert cluster.home() == home


def test_a_new_monitor_knows_of_a_step_that_only_its_agent_has_seen(cluster: ClusterHarness) -> None:
    """Attacks invariant 4: a monitor that was elected after the step has never seen the earlier time."""
    # Given a step that A's agent sees by its heartbeat, while B is silent
    cluster.alive.remove(B)
    cluster.advance(1)
    cluster.set_server_clock(LEASE)
    cluster.beat(A)

    # When
    turn(cluster.elect(A))

    # Then
    assert set(queries.node_rows(cluster.store)) == {A, B}


def test_a_new_monitor_of_a_new_agent_waits_one_lease_before_it_takes_a_node_for_lost(
    cluster: ClusterHarness,
) -> None:
    """Attacks invariant 9: the agent has joined after the step, and cannot know of it."""
    # Given
    cluster.alive.remove(B)
    cluster.set_server_clock(LEASE)
    newcomer = cluster.new_witness()
    ttl_ms = int(LEASE * 1000)
    answer = cluster.store.run(lease.beat(cluster.keys, A, Incarnation("a1"), ttl_ms=ttl_ms))
    cluster.observe(newcomer, answer)

    # When
    monitor = cluster.elect(A, witness=newcomer)
    turn(monitor)

    # Then
    assert set(queries.node_rows(cluster.store)) == {A, B}
    cluster.advance(LEASE)
    turn(monitor)
    assert set(queries.node_rows(cluster.store)) == {A}


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_young_data_is_one_lease_old_after_one_lease_however_redis_clock_is_set(step: float) -> None:
    """Attacks invariant 4: by Redis's clock, the data is from the future, or an hour old."""
    with virtual_time() as clock:
        # Given
        cluster = ClusterHarness(clock)
        cluster.beat(A)
        turn(cluster.elect(A))

        # When
        cluster.set_server_clock(step)
        cluster.beat(A)
        cluster.beat(B)
        # A step forward also ends the lease of the monitor.
        cluster.store.client.delete(cluster.keys.monitor)
        monitor = cluster.elect(A)
        turn(monitor)

        # Then
        assert cluster.home() is None
        for _ in range(4):
            cluster.advance(1)
            turn(monitor)
        assert cluster.home() is not None


def test_a_new_monitor_acts_at_once_on_confirmed_data_although_redis_clock_was_set_back(
    cluster: ClusterHarness,
) -> None:
    """Attacks invariant 4: by Redis's clock, the data is from the future, for an hour."""
    # Given
    turn(cluster.elect(A))
    cluster.set_server_clock(-3600)
    cluster.advance(2 * LEASE)
    cluster.store.run(specs.record(cluster.keys, [(Y, TAIL, "[[],{}]")], mode="spawn"))

    # When
    cluster.store.client.delete(cluster.keys.monitor)
    turn(cluster.elect(A))

    # Then
    ((_, row),) = queries.rows(cluster.store, [Y])
    assert row is not None
    assert row.node is not None


def test_a_leader_that_died_just_before_redis_clock_was_set_back_is_replaced_at_once(
    cluster: ClusterHarness,
) -> None:
    """Attacks invariant 2: the key of the monitor's lease would expire an hour late."""
    # Given
    cluster.elect(A)
    cluster.renewed = None

    # When
    cluster.set_server_clock(-3600)

    # Then
    assert cluster.campaign(B)
