"""Queries: look-ups, nodes, listings and the overview."""

from collections.abc import Sequence

import pytest

from celery_daemons.client import locator
from celery_daemons.client.cluster_io import ClusterIO
from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.records import Address, BookRow, NodeRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.store import book, lease, queries
from celery_daemons.store.clock import lease_clock
from tests.store.driver import I1, I2, N1, N2, TAIL, TTL_MS, StoreDriver, names, row

X = DaemonName("x")


def locate(cluster: StoreDriver, name: str = "x") -> Address | None:
    """Return the address of a daemon, as a client reads it."""
    return cluster.lookups.locate(name)


def test_a_running_daemon_is_found_with_its_complete_address(cluster: StoreDriver) -> None:
    before = cluster.now_ms() / 1000
    _, tokens = cluster.started("x")

    result = locate(cluster)

    assert result is not None
    assert (result.name, result.launcher, result.node, result.incarnation) == ("x", TAIL, N1, I1)
    assert result.token == tokens["x"]
    assert (result.status, result.queue, result.host, result.pid) == (DaemonStatus.RUNNING, "q1", "machine", 11)
    assert before <= result.started_at <= cluster.now_ms() / 1000


def test_an_assigned_daemon_has_an_address_but_no_process_yet(cluster: StoreDriver) -> None:
    cluster.join()
    cluster.want("x")
    cluster.assign(cluster.lead(), "x")

    result = locate(cluster)

    assert result is not None
    assert (result.status, result.pid, result.started_at) == (DaemonStatus.ASSIGNED, 0, 0.0)


def test_a_daemon_of_a_node_whose_lease_ended_is_not_found(cluster: StoreDriver) -> None:
    """Ray #20611: a look-up returns an actor that has died."""
    cluster.started("x")
    cluster.end_lease()

    assert locate(cluster) is None


def test_a_daemon_of_an_earlier_incarnation_is_not_found(cluster: StoreDriver) -> None:
    cluster.started("x")
    cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, previous=I1))

    assert locate(cluster) is None


def test_unknown_pending_and_parked_daemons_have_no_address(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    cluster.want("wanted", "parked")
    cluster.run(book.park(cluster.keys, epoch, [(DaemonName("parked"), "no node is up")]))

    for name in ("unknown", "wanted", "parked"):
        assert locate(cluster, name) is None


def test_many_daemons_are_found_in_one_call(cluster: StoreDriver) -> None:
    wanted = [f"d{number}" for number in range(1000)]
    cluster.started(*wanted[:500])

    entries, nodes = queries.entries_and_nodes(cluster.store, names(wanted))

    assert [entry.node if entry else None for entry in entries] == [N1] * 500 + [None] * 500
    assert set(nodes) == {N1}
    record, left_ms = nodes[N1]
    assert record.host == "machine"
    assert 0 < left_ms <= TTL_MS


def test_locating_no_names_returns_nothing(cluster: StoreDriver) -> None:
    assert cluster.lookups.locate_many([]) == {}


def test_many_daemons_are_located_in_pages_and_only_under_running_leases(cluster: StoreDriver) -> None:
    wanted = [f"d{number}" for number in range(2500)]
    epoch = cluster.lead()
    cluster.join()
    cluster.join(N2)
    for node, some in ((N1, wanted[:1000]), (N2, wanted[1000:1500]), (N1, wanted[1500:2400])):
        cluster.want(*some)
        incarnation = cluster.node(node)["incarnation"]
        cluster.run(book.assign(cluster.keys, epoch, node, incarnation, [(name, "test") for name in names(some)]))
    cluster.end_lease(N2)

    result = cluster.lookups.locate_many(wanted)

    assert list(result) == wanted[:1000] + wanted[1500:2400]
    assert {address.node for address in result.values()} == {N1}


def test_daemons_are_located_on_a_node_that_joined_after_the_first_page(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("old")
    ask, asked = queries.entries_and_nodes, list[int]()

    async def join_after(io: ClusterIO, some: Sequence[DaemonName]) -> object:
        answer = await ask(io, some)
        if not asked:
            cluster.join(N2)
            cluster.want("new")
            cluster.assign(epoch, "new", node=N2)
        asked.append(len(some))
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "entries_and_nodes", join_after)
        result = cluster.lookups.locate_many([*(f"d{number}" for number in range(1000)), "new"])

    assert result["new"].node == N2
    assert asked == [1000, 1]


def test_nodes_are_listed_with_lease_and_number_of_daemons(cluster: StoreDriver) -> None:
    cluster.started("x", "y")
    cluster.join(N2, labels="", launchers="")
    cluster.end_lease(N2)

    first, second = cluster.lookups.nodes()

    assert (first.name, first.incarnation, first.status, first.daemons) == (N1, I1, NodeStatus.UP, 2)
    assert (first.labels, first.launchers) == (("eu", "gpu"), ("poll", "tail"))
    assert 0 < first.lease_ms <= TTL_MS
    assert (second.name, second.status, second.daemons, second.lease_ms) == (N2, NodeStatus.LOST, 0, 0)
    assert (second.labels, second.launchers) == ((), ())


def test_a_cluster_without_nodes_lists_none(cluster: StoreDriver) -> None:
    assert cluster.lookups.nodes() == []
    assert queries.leader(cluster.store) is None
    assert list(cluster.lookups.list()) == []


def test_every_daemon_with_a_spec_is_listed_once(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("runs", "stopping")
    cluster.recall(epoch, "stopping")
    cluster.want("wanted", "parked", "stopped", "again")
    cluster.run(book.park(cluster.keys, epoch, [(DaemonName("parked"), "no node is up")]))
    cluster.desire("stopped", "stop")

    result = {record.name: record for record in cluster.lookups.list()}

    assert {name: record.status for name, record in result.items()} == {
        "runs": DaemonStatus.RUNNING,
        "stopping": DaemonStatus.STOPPING,
        "wanted": DaemonStatus.PENDING,
        "parked": DaemonStatus.UNPLACEABLE,
        "stopped": DaemonStatus.STOPPED,
        "again": DaemonStatus.PENDING,
    }
    runs = result[DaemonName("runs")]
    assert (runs.node, runs.token, runs.pid, runs.desired) == (N1, tokens["runs"], 11, Desired.RUNNING)
    parked = result[DaemonName("parked")]
    assert (parked.node, parked.token, parked.pid, parked.started_at) == (None, None, None, None)
    assert parked.error == "no node is up"


def test_a_stopped_daemon_that_is_started_again_is_pending_and_not_stopped(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.desire("x", "stop")
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])
    assert [record.status for record in cluster.lookups.list()] == [DaemonStatus.STOPPED]

    cluster.desire("x", "start")

    assert [record.status for record in cluster.lookups.list()] == [DaemonStatus.PENDING]


def test_a_daemon_whose_node_is_lost_is_pending(cluster: StoreDriver) -> None:
    cluster.started("x")
    cluster.end_lease()

    (record,) = cluster.lookups.list()

    assert (record.status, record.node, record.token) == (DaemonStatus.PENDING, None, None)


def test_listing_pages_through_more_than_one_batch(cluster: StoreDriver) -> None:
    wanted = [f"d{number}" for number in range(2500)]
    for start in range(0, 2500, 1000):
        cluster.want(*wanted[start : start + 1000])

    assert sorted(record.name for record in cluster.lookups.list()) == sorted(wanted)


def test_the_overview_has_counts_and_leases(cluster: StoreDriver) -> None:
    joined = cluster.join(N1)
    cluster.join(N2)
    epoch = cluster.lead()
    cluster.want("x", "y")
    cluster.assign(epoch, "x")
    cluster.end_lease(N2)

    overview = cluster.run(queries.overview(cluster.keys))

    assert (overview.specs, overview.entries, overview.created_ms) == (2, 1, joined.created_ms)
    assert overview.age_ms is not None
    assert 0 <= overview.age_ms < TTL_MS
    assert set(overview.leases) == {N1, N2}
    assert overview.leases[N2] < 0 < overview.leases[N1] <= TTL_MS


def test_the_overview_of_an_empty_namespace_has_no_age(cluster: StoreDriver) -> None:
    overview = cluster.run(queries.overview(cluster.keys))

    assert (overview.created_ms, overview.age_ms, overview.leases) == ("", None, {})


def test_an_address_needs_a_node_of_the_same_incarnation() -> None:
    entry = BookRow(status=DaemonStatus.RUNNING, token=Token(7), launcher=TAIL, node=N1, incarnation=I1)
    free = BookRow(status=DaemonStatus.PENDING, token=Token(7), launcher=TAIL)
    here: NodeRow = row(I1)

    assert queries.address(X, entry, here) is not None
    assert queries.address(X, entry, row(I2)) is None
    assert queries.address(X, entry, None) is None
    assert queries.address(X, None, here) is None
    assert queries.address(X, free, here) is None


def test_a_lease_that_is_renewed_during_a_long_look_up_is_read_again(
    cluster: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up takes longer than the lease known at its start, but the lease is renewed meanwhile."""
    cluster.started("x", "y")
    late, entries = 0.0, queries.entries

    async def slowly(io: ClusterIO, wanted: Sequence[DaemonName]) -> list[BookRow | None]:
        nonlocal late
        late = TTL_MS / 1000
        return await entries(io, wanted)

    monkeypatch.setattr(locator, "BATCH", 1)
    monkeypatch.setattr(locator, "lease_clock", lambda: lease_clock() + late)
    monkeypatch.setattr(queries, "entries", slowly)

    assert cluster.lookups.locate_many(["x", "y"]).keys() == {"x", "y"}
