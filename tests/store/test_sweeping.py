"""Sweeping: freeing the daemons of a node whose lease has ended."""

import pytest

from celery_daemons.errors import DaemonsError
from celery_daemons.store import assignments, book, lease
from tests.store.driver import I1, I2, N1, N2, TTL_MS, StoreDriver, row
from tests.support.clients import TestClient as Client


def test_sweeping_a_node_frees_its_daemons_and_removes_its_keys(cluster: StoreDriver) -> None:
    """Celery #1758, #6089: what dead workers leave behind."""
    epoch, tokens = cluster.started("x", "y")
    cluster.end_lease()

    swept = cluster.sweep(epoch)

    assert sorted(swept.names) == ["x", "y"]
    assert (swept.left, swept.alive) == (0, False)
    assert cluster.node() is None
    assert cluster.lease_ms() is None
    assert not any(N1 in key for key in cluster.contents())
    for name in ("x", "y"):
        assert cluster.entry(name)["status"] == "pending"
        assert cluster.entry(name)["token"] == str(tokens[name])
        assert "node" not in cluster.entry(name)
    lost, freed = cluster.events()[-2:]
    assert (lost.event, lost.node, lost.epoch) == ("lost", N1, epoch)
    assert (freed.event, sorted(freed.items)) == ("sweep", [("x", str(tokens["x"]), ""), ("y", str(tokens["y"]), "")])


def test_a_node_whose_lease_runs_is_not_swept(cluster: StoreDriver) -> None:
    """Attacks invariant 1: a monitor that reads an old list of nodes."""
    epoch, _ = cluster.started("x")
    before = cluster.contents()

    swept = cluster.sweep(epoch)

    assert swept.alive
    assert swept.names == ()
    assert cluster.contents() == before


def test_a_node_that_beats_at_the_last_moment_is_not_swept(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("x")
    cluster.end_lease()
    cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS))

    assert cluster.sweep(epoch).alive
    assert cluster.entry("x")["status"] == "running"


def test_sweeping_again_changes_nothing(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("x")
    cluster.end_lease()
    cluster.sweep(epoch)
    before = cluster.contents()

    assert cluster.sweep(epoch) == book.Swept((), 0)
    assert cluster.sweep(epoch, N2) == book.Swept((), 0)
    assert cluster.contents() == before


def test_a_large_node_is_swept_a_batch_at_a_time(cluster: StoreDriver) -> None:
    wanted = [f"d{number}" for number in range(25)]
    epoch, _ = cluster.started(*wanted)
    cluster.end_lease()

    freed: list[str] = []
    left: list[int] = []
    for _ in range(3):
        swept = cluster.sweep(epoch, limit=10)
        freed += swept.names
        left.append(swept.left)

    assert sorted(freed) == sorted(wanted)
    assert left == [15, 5, 0]
    assert [event.event for event in cluster.events()].count("lost") == 1


def test_waiting_for_a_drain_ends_when_the_nodes_lease_ends(cluster: StoreDriver) -> None:
    """Even without a monitor: a record names no node whose lease has ended."""
    cluster.started("x")
    cluster.end_lease()
    client = Client(cluster.store, vnodes=40)

    with pytest.raises(DaemonsError, match="still holds daemons after"):
        client.drain(N1, wait=0.1)


def test_the_next_incarnation_claims_daemons_that_were_not_swept(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x", "y")
    cluster.end_lease()
    (freed,) = cluster.sweep(epoch, limit=1).names
    (kept,) = {"x", "y"} - {freed}

    cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS))

    assert set(cluster.run(assignments.page(cluster.keys, N1)).rows) == {kept}
    assert not cluster.claim(kept, tokens[kept], incarnation=I2).refused
    assert cluster.claim(freed, tokens[freed], incarnation=I2).refused == "not on this node"


def test_a_swept_daemon_is_assigned_under_a_newer_token(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.join(N2)
    cluster.end_lease()
    cluster.sweep(epoch)

    dispatch = cluster.assign(epoch, "x", node=N2)

    assert isinstance(dispatch, book.Dispatch)
    assert dispatch.tokens[0] > tokens["x"]


@pytest.mark.parametrize(("change", "status"), [("stop", "stopped"), ("forget", None)])
def test_a_stopped_or_forgotten_daemon_is_not_pending_after_a_sweep(
    cluster: StoreDriver, change: str, status: str | None
) -> None:
    epoch, _ = cluster.started("x")
    if change == "stop":
        cluster.desire("x", "stop")
    else:
        cluster.forget("x")
    cluster.end_lease()

    cluster.sweep(epoch)

    entry = cluster.entry("x")
    assert (entry and entry["status"]) == status


def test_a_sweep_does_not_free_a_daemon_that_is_on_another_node(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("x")
    cluster.join(N2)
    cluster.client.sadd(cluster.keys.held(N2), "x")
    cluster.end_lease(N2)

    assert cluster.sweep(epoch, N2).names == ()
    assert cluster.entry("x")["node"] == N1
    assert cluster.held(N2) == set()
