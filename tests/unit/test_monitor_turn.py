"""Turns of the whole monitor against the real scripts: in-memory Redis, virtual time, no broker, no process."""

from collections.abc import Iterator

import pytest

from celery_daemons.errors import LeaseLost, StoreUnavailable
from tests.unit.monitor_harness import LEASE, A, B, ClusterHarness, X, turn
from tests.unit.protocol.clock import virtual_time


@pytest.fixture
def cluster() -> Iterator[ClusterHarness]:
    """Two nodes in a cluster that is older than a lease, and one wanted daemon."""
    with virtual_time() as clock:
        cluster = ClusterHarness(clock)
        cluster.advance(2 * LEASE)
        yield cluster


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
