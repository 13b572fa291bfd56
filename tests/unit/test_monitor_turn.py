"""Turns of the whole monitor against the real scripts: in-memory Redis, virtual time, no broker, no process."""

import pytest

from celery_daemons.errors import LeaseLost, StoreUnavailable
from celery_daemons.store import specs
from tests.unit.monitor_harness import LEASE, TAIL, A, B, ClusterHarness, X, Y, turn
from tests.unit.protocol.clock import virtual_time


def test_a_wanted_daemon_is_assigned_and_its_node_notified(cluster: ClusterHarness) -> None:
    turn(cluster.elect(A))

    (task,) = cluster.dispatcher.tasks
    assert task.node == cluster.home()
    assert [item.name for item in task.assigned] == [X]


def test_a_second_turn_changes_nothing(cluster: ClusterHarness) -> None:
    monitor = cluster.elect(A)
    turn(monitor)
    turn(monitor)

    assert len(cluster.dispatcher.tasks) == 1


def test_a_new_cluster_is_given_one_lease_before_the_first_assignment() -> None:
    with virtual_time() as clock:
        cluster = ClusterHarness(clock)
        monitor = cluster.elect(A)

        turn(monitor)
        assert cluster.home() is None

        cluster.advance(LEASE)
        turn(monitor)
        assert cluster.home() is not None


def test_a_daemon_of_a_lost_node_is_assigned_to_another_node(cluster: ClusterHarness) -> None:
    # Given
    monitor = cluster.elect(A)
    turn(monitor)
    lost = cluster.home()
    assert lost is not None

    # When
    cluster.alive.remove(lost)
    cluster.advance(LEASE + 1)
    turn(monitor)
    turn(monitor)

    # Then
    assert cluster.home() == ({A, B} - {lost}).pop()


def test_no_daemon_is_assigned_for_one_lease_after_redis_did_not_answer(cluster: ClusterHarness) -> None:
    monitor = cluster.elect(A)
    monitor.store_failed()

    turn(monitor)
    assert cluster.home() is None

    cluster.advance(LEASE)
    turn(monitor)
    assert cluster.home() is not None


def test_a_changed_server_is_confirmed_one_lease_later(cluster: ClusterHarness) -> None:
    """Attacks invariant 5: a promoted replica lacks the last writes, and nodes must register and report first."""
    # Given
    monitor = cluster.elect(A)
    turn(monitor)
    assert cluster.confirmed_server() == "first"

    # When
    cluster.monitor_store.run_id = "second"
    with pytest.raises(StoreUnavailable):
        turn(monitor)
    monitor.store_failed()

    # Then
    turn(monitor)
    assert cluster.confirmed_server() == "first"
    cluster.advance(LEASE)
    turn(monitor)
    assert cluster.confirmed_server() == "second"


def test_a_deposed_monitor_changes_nothing(cluster: ClusterHarness) -> None:
    """Attacks invariant 3: the deposed monitor has read everything and is about to assign."""
    # Given
    deposed = cluster.elect(A)
    cluster.renewed = None
    cluster.advance(LEASE + 1)
    cluster.elect(B)

    # When
    with pytest.raises(LeaseLost):
        turn(deposed)

    # Then
    assert cluster.home() is None
    assert cluster.dispatcher.tasks == []


def test_a_server_with_another_history_is_waited_for_and_confirmed_again(cluster: ClusterHarness) -> None:
    """Attacks invariant 9: the server has its run id and all connections, and was a replica meanwhile."""
    # Given
    cluster.monitor_store.history = "1"
    monitor = cluster.elect(A)
    turn(monitor)
    assert cluster.confirmed_server() == "first:1"

    # When
    cluster.monitor_store.history = "2"
    cluster.advance(2 * LEASE)
    cluster.store.run(specs.record(cluster.keys, [(Y, TAIL, "[[],{}]")], mode="spawn"))
    turn(monitor)
    turn(monitor)

    # Then nothing is assigned, and nothing confirmed, for one lease
    assert cluster.home(Y) is None
    assert cluster.confirmed_server() == "first:1"
    cluster.advance(LEASE)
    turn(monitor)
    assert cluster.confirmed_server() == "first:2"
    assert cluster.home(Y) is not None


def test_an_assignment_that_the_server_refuses_is_planned_again_after_a_check(cluster: ClusterHarness) -> None:
    """Attacks invariants 1 and 2: the server has another history, which no check has found yet."""
    monitor = cluster.elect(A)
    cluster.monitor_store.refuses_assignments = True

    assert monitor.turn() <= 0
    assert cluster.home() is None

    cluster.monitor_store.refuses_assignments = False
    turn(monitor)
    assert cluster.home() is not None


def test_a_monitor_whose_confirmation_is_refused_sweeps_nothing(cluster: ClusterHarness) -> None:
    """Attacks invariant 9: the leases that it would sweep are those of earlier data."""
    # Given a lost node, and a server that is replaced while the monitor checks it
    monitor = cluster.elect(A)
    cluster.alive.remove(B)
    cluster.advance(2 * LEASE)
    cluster.monitor_store.confirms = False

    # When
    turn(monitor)
    assert cluster.registered() == {A, B}

    # Then the node is swept by the check that confirms the server
    cluster.monitor_store.confirms = True
    cluster.advance(LEASE)
    turn(monitor)
    assert cluster.registered() == {A}


def test_a_monitor_that_is_deposed_while_it_waits_confirms_nothing(cluster: ClusterHarness) -> None:
    """Attacks invariant 3: it ignored the refusal, and went on."""
    monitor = cluster.elect(A)
    cluster.store.client.delete(cluster.keys.monitor)

    with pytest.raises(LeaseLost):
        turn(monitor)
    assert cluster.confirmed_server() == ""


def test_a_batch_for_a_node_that_the_replica_no_longer_has_is_planned_again(cluster: ClusterHarness) -> None:
    """Attacks invariant 2: the batch was dropped, and its daemons waited until something else changed."""
    # Given a plan for a node that an earlier refusal of the same plan has removed from the replica
    monitor = cluster.elect(A)
    monitor.turn()
    replica, executor = monitor._replica, monitor._executor
    cluster.store.run(specs.record(cluster.keys, [(Y, TAIL, "[[],{}]")], mode="spawn"))
    monitor.follow(block_ms=0)
    plan = monitor._reconciler.next_plan()
    (node,) = plan.assign
    row = replica.nodes.pop(node)

    # When
    assert executor.carry_out(plan)
    assert cluster.home(Y) is None

    # Then
    replica.nodes[node] = row
    turn(monitor)
    assert cluster.home(Y) is not None
