"""What the monitor concludes when Redis's clock is set, its data is lost or old, and leases have different lengths."""

from collections.abc import Iterator

import pytest

from celery_daemons.domain.names import Incarnation
from celery_daemons.domain.runs import Running
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.store import book, lease, queries, specs
from tests.unit.monitor_harness import LEASE, TAIL, A, B, ClusterHarness, X, turn
from tests.unit.protocol.clock import virtual_time


@pytest.fixture
def cluster() -> Iterator[ClusterHarness]:
    """Two nodes in a cluster that is older than a lease, and one wanted daemon."""
    with virtual_time() as clock:
        cluster = ClusterHarness(clock)
        cluster.advance(2 * LEASE)
        yield cluster


def lose_data(cluster: ClusterHarness) -> None:
    """Let Redis lose all its data, and a node without daemons register again, so that there is a cluster."""
    cluster.store.client.flushall()


def reassert(cluster: ClusterHarness, node: str, token: int = 0) -> None:
    """Let a node register again, with the daemon if it runs it under ``token``."""
    name = A if node == A else B
    running = Running(
        name=X,
        token=token,  # type: ignore[arg-type] - a number is a token
        launcher=TAIL,
        arguments="[[],{}]",
        version="7",
        status=DaemonStatus.RUNNING,
        pid=1,
        restarts=0,
    )
    call = book.reassert(
        cluster.keys,
        name,
        cluster.record(name),
        [running] if token else [],
        ttl_ms=int(cluster.leases[name] * 1000),
        server=cluster.server,
        longest_ms=cluster.witness.longest_lease_ms,
    )
    assert cluster.store.run(call) is not None
    cluster.beat(name)


# Steps of Redis's clock


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
    """Attacks invariant 2: a clock that is set costs at most one lease."""
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


# Leases of different lengths


def test_a_loss_of_data_is_waited_out_for_the_longest_lease_that_was_registered(cluster: ClusterHarness) -> None:
    """Attacks invariants 1 and 10: the holder's lease is ten times the monitor's."""
    # Given
    cluster.leases[B] = 10 * LEASE
    cluster.beat(B)

    # When Redis loses its data, B is silent, and another monitor of A is elected
    lose_data(cluster)
    cluster.alive.remove(B)
    reassert(cluster, A)
    cluster.store.run(specs.record(cluster.keys, [(X, TAIL, "[[],{}]")], mode="spawn"))
    monitor = cluster.elect(A)

    # Then
    for _ in range(int(10 * LEASE) - 1):
        turn(monitor)
        assert cluster.home() is None
        cluster.advance(1)
    cluster.advance(1.1)
    turn(monitor)
    turn(monitor)
    assert cluster.home() == A


def test_a_new_agent_learns_of_a_longer_lease_from_an_agent_that_registers_again(cluster: ClusterHarness) -> None:
    """Attacks invariants 1 and 10: the new monitor's own agent has never seen the longer lease."""
    # Given
    cluster.leases[B] = 10 * LEASE
    cluster.beat(B)
    lose_data(cluster)
    newcomer = cluster.new_witness()
    cluster.alive.remove(B)

    # When
    reassert(cluster, A)
    cluster.store.run(specs.record(cluster.keys, [(X, TAIL, "[[],{}]")], mode="spawn"))
    monitor = cluster.elect(A, witness=newcomer)
    for _ in range(int(10 * LEASE) - 1):
        turn(monitor)
        assert cluster.home() is None
        cluster.advance(1)

    # Then the longer lease is forgotten with the confirmation
    cluster.advance(1.1)
    turn(monitor)
    turn(monitor)
    assert cluster.home() == A
    assert cluster.store.run(queries.overview(cluster.keys)).lost_lease_ms == 0


# Old data


def test_data_without_a_confirmed_server_is_not_trusted_although_it_is_old(cluster: ClusterHarness) -> None:
    """Attacks invariants 1 and 9: a snapshot from before the first confirmation is restored, and a worker is new."""
    # Given
    assert cluster.confirmed_server() == ""
    cluster.monitor_store.run_id = "restored"
    cluster.monitor_store.pin.accept_new_server()
    newcomer = cluster.new_witness()
    answer = cluster.store.run(lease.beat(cluster.keys, A, Incarnation("a1"), ttl_ms=int(LEASE * 1000)))
    cluster.observe(newcomer, answer)

    # When
    monitor = cluster.elect(A, witness=newcomer)
    turn(monitor)

    # Then
    assert cluster.home() is None
    assert cluster.confirmed_server() == ""
    cluster.advance(LEASE)
    turn(monitor)
    assert cluster.home() is not None
    assert cluster.confirmed_server() == "restored"


def test_a_server_is_confirmed_again_after_its_data_was_on_another_server(cluster: ClusterHarness) -> None:
    """Attacks invariant 5: a fail-over there and back, and the other server was never confirmed."""
    # Given
    turn(cluster.elect(A))
    assert cluster.confirmed_server() == "first"

    # When a node registers on the second server, whose data the first one then receives
    cluster.monitor_store.run_id = "second"
    reassert(cluster, A)

    # Then
    assert cluster.confirmed_server() == ""


def test_a_spec_that_was_recorded_again_does_not_restart_a_daemon_that_runs(cluster: ClusterHarness) -> None:
    """Attacks invariant 5: after a loss of data, a client spawns what a node still runs."""
    # Given
    lose_data(cluster)
    cluster.join(B)
    cluster.store.run(specs.record(cluster.keys, [(X, TAIL, "[[],{}]")], mode="spawn"))

    # When
    reassert(cluster, A, token=5)

    # Then
    ((spec, row),) = queries.rows(cluster.store, [X])
    assert spec is not None
    assert row is not None
    assert spec.version == row.version == "7"


def test_a_spec_with_other_arguments_restarts_a_daemon_that_runs(cluster: ClusterHarness) -> None:
    # Given
    lose_data(cluster)
    cluster.join(B)
    cluster.store.run(specs.record(cluster.keys, [(X, TAIL, "[[1],{}]")], mode="spawn"))

    # When
    reassert(cluster, A, token=5)

    # Then
    ((spec, row),) = queries.rows(cluster.store, [X])
    assert spec is not None
    assert row is not None
    assert spec.version != row.version
