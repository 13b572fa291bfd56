"""What the monitor concludes when Redis's data is lost or old, and leases have different lengths."""

import pytest

from celery_daemons.domain.names import Incarnation
from celery_daemons.domain.runs import Running
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.monitor.scan import Scans
from celery_daemons.store import book, lease, queries, specs
from tests.unit.monitor_harness import LEASE, TAIL, A, B, ClusterHarness, X, turn
from tests.unit.protocol.clock import virtual_time


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
        longest_ms=int(cluster.witness.longest_lease * 1000),
    )
    assert cluster.store.run(call) is not None
    cluster.beat(name)


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


def versions_after_a_spawn(cluster: ClusterHarness, arguments: str) -> tuple[str, str]:
    """Spawn the daemon after a loss of data, before its node reports it; return the versions of spec and entry."""
    lose_data(cluster)
    cluster.join(B)
    cluster.store.run(specs.record(cluster.keys, [(X, TAIL, arguments)], mode="spawn"))
    reassert(cluster, A, token=5)
    ((spec, row),) = queries.rows(cluster.store, [X])
    assert spec is not None
    assert row is not None
    return spec.version, row.version


def test_a_spec_that_was_recorded_again_does_not_restart_a_daemon_that_runs(cluster: ClusterHarness) -> None:
    """Attacks invariant 5: after a loss of data, a client spawns what a node still runs."""
    assert versions_after_a_spawn(cluster, "[[],{}]") == ("7", "7")


def test_a_spec_with_other_arguments_restarts_a_daemon_that_runs(cluster: ClusterHarness) -> None:
    spec_version, entry_version = versions_after_a_spawn(cluster, "[[1],{}]")

    assert spec_version != entry_version


def test_no_scanner_runs_before_the_monitor_may_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks invariant 5: what a scanner lists may run on a node that has not registered again."""
    scans: list[str] = []
    monkeypatch.setattr(Scans, "run_due", lambda _: scans.append("run"))
    with virtual_time() as clock:
        # Given
        cluster = ClusterHarness(clock)
        monitor = cluster.elect(A)

        # When
        turn(monitor)

        # Then
        assert scans == []
        cluster.advance(LEASE)
        turn(monitor)
        assert scans == ["run"]
