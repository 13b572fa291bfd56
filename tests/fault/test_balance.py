"""Running daemons are moved: to balance nodes, on request, and while nodes restart one after the other."""

import time

import pytest

from celery_daemons.errors import DaemonsError
from tests.fault.conftest import NewFaultCluster
from tests.fault.daemon_kinds import names_for
from tests.fault.fault_cluster import FaultCluster
from tests.fault.signals import SOON
from tests.support.waiting import wait_until

A, B, C = "w1@test", "w2@test", "w3@test"
THREE = ("w1", "w2", "w3")
#: Rebalancing starts soon after the nodes are quiet; of 24 daemons, two may move at the same time.
LIVELY = {"rebalance": "auto", "settle_delay": 2.0, "rebalance_limit": 0.1}
#: Eight for each node.
MANY = names_for((A, B, C), {"watch": 6, "alone": 1, "strand": 1})


def balanced(cluster: FaultCluster) -> bool:
    """Return whether every node holds at least half of its share."""
    return all(len(cluster.holds(node)) >= len(cluster.wanted) / len(cluster.proxies) / 2 for node in cluster.proxies)


def moves(cluster: FaultCluster, since: str) -> list[list[str]]:
    """Return the waves of rebalancing moves, each with its names."""
    recalls = cluster.events("recall", since)
    return [names for one in recalls if (names := [name for name, _, why in one.items if why.startswith("to ")])]


def in_flight(cluster: FaultCluster, since: str) -> int:
    """Return the highest number of daemons that were recalled and not yet reported as running again."""
    away: set[str] = set()
    most = 0
    recalls = {one.id for one in cluster.events("recall", since)}
    for entry in cluster.client.events(last=2000):
        if entry.id in recalls:
            away |= {name for name, _, _ in entry.items}
        elif entry.event == "report":
            away -= {name for name, _, status in entry.items if status == "running"}
        most = max(most, len(away))
    return most


@pytest.mark.heavy
def test_a_returning_node_is_filled_a_few_daemons_at_a_time(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 1: daemons must move to the returning node, but only a few at the same time."""
    # Given a node that is empty
    cluster = fault_cluster(nodes=THREE, settings=LIVELY, wanted=MANY)
    cluster.move_all_from(C)
    start = cluster.journal_end()
    before = {node: cluster.holds(node) for node in (A, B)}

    # When nodes have come to rest
    wait_until(lambda: len(cluster.holds(C)) >= 7, within=SOON, because="it holds less than half of its share")

    # Then the node has nine tenths of its share, received two at a time, and nothing else was moved
    waves = moves(cluster, start)
    assert sum(map(len, waves)) == len(cluster.holds(C)) == 7
    assert cluster.holds(A) < before[A]
    assert cluster.holds(B) < before[B]
    assert in_flight(cluster, start) <= 2
    cluster.final_check()


@pytest.mark.timing
def test_a_flapping_node_causes_no_moves(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 2: a node that comes and goes might move daemons back and forth all the time."""
    # Given
    cluster = fault_cluster(nodes=THREE, settings=LIVELY, wanted=MANY)
    cluster.move_all_from(C)
    start = cluster.journal_end()

    # When the node leaves and rejoins, each time before the quiet period ends
    for _ in range(3):
        assert cluster.workers[C].stop() == 0
        cluster.workers[C].start()
        cluster.client.wait_up(A, B, C, within=SOON)

    # Then nothing was moved for it until it stays
    assert moves(cluster, start) == []
    wait_until(lambda: balanced(cluster), within=SOON, because="it stays")
    cluster.final_check()


def test_paused_rebalancing_stays_paused_under_a_new_monitor_until_resumed(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 3: the pause must be stored in Redis, not known only to the monitor that received it."""
    # Given
    cluster = fault_cluster(nodes=THREE, settings=LIVELY, wanted=MANY)
    cluster.client.pause_rebalance()
    cluster.move_all_from(C)
    start = cluster.journal_end()

    # When another monitor leads
    node, leader = cluster.wait_leader()
    cluster.monitor(node).kill()
    wait_until(
        lambda: (now := cluster.client.leader()) and now.epoch > leader.epoch, within=SOON, because="it was killed"
    )
    time.sleep(LIVELY["settle_delay"] + 1.5)

    # Then nothing moves
    assert moves(cluster, start) == []
    assert cluster.holds(C) == set()

    # When it may
    cluster.client.pause_rebalance(paused=False)

    # Then it does
    wait_until(lambda: balanced(cluster), within=SOON, because="it goes on")
    cluster.final_check()


def test_the_successor_of_a_monitor_killed_during_a_rebalance_completes_the_rebalance(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariants 1 and 2: what the monitor has in memory is lost during a wave of moves."""
    # Given
    cluster = fault_cluster(nodes=THREE, settings=LIVELY, wanted=MANY)
    cluster.move_all_from(C)
    start = cluster.journal_end()

    # When
    wait_until(lambda: moves(cluster, start), within=SOON, because="the first wave has started", interval=0.002)
    node, _ = cluster.wait_leader()
    cluster.monitor(node).kill()

    # Then
    wait_until(lambda: balanced(cluster), within=SOON, because="the next monitor sees the same imbalance")
    cluster.final_check()


def test_a_daemon_moves_to_the_requested_node_and_stays_there(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 1: a move ends one run and starts another under the same name."""
    # Given
    cluster = fault_cluster(nodes=THREE, wanted=MANY)
    elsewhere = [name for name in cluster.wanted if cluster.before[name].node != B]
    names = [next(name for name in elsewhere if name.startswith(kind)) for kind in ("watch", "alone", "strand")]

    for name in names:
        # When
        address = cluster.client.move(name, to=B, wait=SOON)

        # Then
        assert address is not None
        assert (address.node, address.token > cluster.before[name].token) == (B, True)
        assert cluster.client.why_there(name) == "moved here"
        # Again is nothing
        assert cluster.client.move(name, to=B, wait=SOON) == address
    # Somewhere else is anywhere but here
    address = cluster.client.move(names[0], wait=SOON)
    assert address is not None
    assert address.node != B
    with pytest.raises(DaemonsError, match=r"'w9@test' is not a node that is up.*; suitable nodes: w"):
        cluster.client.move(names[0], to="w9@test")
    cluster.assert_not_restarted(set(cluster.wanted) - set(names))
    cluster.final_check()


def test_a_draining_node_gives_up_leadership_before_its_daemons_move(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 2: a draining node that keeps leading would take the monitor of the cluster with it."""
    # Given
    cluster = fault_cluster(nodes=THREE, wanted=MANY)
    node, leader = cluster.wait_leader()

    # When
    cluster.client.drain(node, wait=SOON)

    # Then
    led_by, now = cluster.wait_leader()
    assert led_by != node
    assert now.epoch > leader.epoch
    assert "its node drains" in [one.cause for one in cluster.events("resign")]
    cluster.client.uncordon(node)
    cluster.final_check()


@pytest.mark.heavy
def test_a_rolling_restart_moves_each_daemon_about_once_and_leaves_the_cluster_balanced(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariants 1 and 2: each worker restart moves daemons, and no daemon should move several times."""
    # Given
    cluster = fault_cluster(nodes=THREE, settings=LIVELY, wanted=MANY)
    begun = {name: len(runs) for name, runs in cluster.recorder.runs().items()}

    # When each worker is ended and started again, one after the other
    for node, worker in cluster.workers.items():
        assert worker.stop() == 0
        worker.start()
        cluster.client.wait_up(*cluster.proxies, within=SOON)
        assert node not in {one.node for one in cluster.events("lost")}

    # Then
    wait_until(lambda: balanced(cluster), within=SOON, because="the last one is filled")
    cluster.final_check()
    more = [len(runs) - begun[name] for name, runs in cluster.recorder.runs().items()]
    assert len(more) == len(MANY)
    # Three nodes are few: of each, a third of the others' daemons has to go as well.
    assert sum(more) / len(MANY) <= 2.0
