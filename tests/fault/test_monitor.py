"""A monitor that dies, freezes, hangs or is cut off is replaced, and no daemon is affected."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.fault.conftest import NewFaultCluster
from tests.fault.daemon_kinds import SOURCE
from tests.fault.fault_cluster import FaultCluster
from tests.fault.signals import SOON, freeze, thaw, wait_dead
from tests.support.processes import alive
from tests.support.waiting import wait_until

#: A scanner that misbehaves while a flag is up, and a reconciler with a defect in place of the monitor's own. The first
#: process that sees a flag of a single failure takes the flag down, so that its successor does not fail.
UNSOUND = (
    SOURCE
    + """
import ctypes
from celery_daemons.monitor import main
from celery_daemons.monitor.reconciler import Reconciler


def flag(name):
    return Path(FOLDER) / name


def taken(name):
    if flag(name).exists():
        flag(name).unlink()
        return True
    return False


@daemons.launcher("scanned")
async def scanned(ctx):
    await watch.factory(ctx)


@scanned.recovery_scanner
def all_scanned():
    if taken("seize"):
        ctypes.PyDLL(None).sleep(60)
    while flag("block").exists():
        time.sleep(0.02)
    return listed(scanned)


class DefectiveReconciler(Reconciler):
    def next_plan(self):
        if taken("fail") or flag("fail-always").exists():
            raise RuntimeError("a defect")
        return super().next_plan()


main.Reconciler = DefectiveReconciler
"""
)
SETTINGS = {"lease_ttl": 2.0, "heartbeat_interval": 0.4, "scan_timeout": 1.0}
LEASE = 2.0
#: Seconds that a node pauses before a candidacy only after several failures: the first pause is two heartbeats at most.
LONG_PAUSE = 1.6


def wait_led(cluster: FaultCluster, *, after: int) -> str:
    """Wait for a monitor of a newer epoch while every look-up is answered. Return the node that leads."""

    def led() -> str | None:
        found = cluster.client.locate_many(cluster.wanted)
        assert sorted(found) == cluster.wanted, "a look-up was not answered"
        leader = cluster.client.leader()
        return str(leader.node) if leader is not None and leader.epoch > after else None

    return wait_until(led, within=SOON, because="the lease of the monitor is free")


def still_manages(cluster: FaultCluster) -> None:
    """Assert that the current monitor starts a daemon that is wanted, and stops it once it is forgotten."""
    cluster.client.want("watch.later", "watch", "[[],{}]")
    cluster.client.wait_running("watch.later", within=SOON)
    cluster.client.forget("watch.later")
    wait_until(lambda: cluster.client.locate("watch.later") is None, within=SOON, because="it was forgotten")


def killed(cluster: FaultCluster, node: str) -> None:
    cluster.monitor(node).kill()


def frozen(cluster: FaultCluster, node: str) -> None:
    cluster.monitor(node).suspend()


def seized(cluster: FaultCluster, node: str) -> None:
    cluster.flag("seize")
    cluster.client.rescan("scanned")


@pytest.mark.parametrize("fail", [killed, frozen, seized])
def test_a_monitor_that_is_gone_or_stalls_is_replaced_and_no_daemon_notices(
    fault_cluster: NewFaultCluster, fail: Callable[[FaultCluster, str], None]
) -> None:
    """Attacks: the lease of an idle monitor is renewed; daemons depend on a monitor (no token may change)."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    node, leader = cluster.wait_leader()
    monitor = cluster.monitor(node)

    # When
    fail(cluster, node)

    # Then
    wait_led(cluster, after=leader.epoch)
    assert not alive(monitor)
    still_manages(cluster)
    cluster.assert_not_restarted(cluster.wanted)
    cluster.final_check()


def test_a_monitor_with_a_defect_in_its_loop_exits_and_its_successor_does_the_work(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks: a monitor that survives its own loop keeps other nodes from leading."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    node, leader = cluster.wait_leader()
    monitor = cluster.monitor(node)
    first, *others = cluster.wanted

    # When
    cluster.flag("fail")
    cluster.client.restart(first)

    # Then
    wait_led(cluster, after=leader.epoch)
    assert not alive(monitor)
    wait_until(
        lambda: cluster.client.restarted({first: cluster.before[first]}),
        within=SOON,
        because="its spec still asks for a restart",
    )
    cluster.assert_not_restarted(others)
    assert f"monitor {node}: loop failed" in cluster.workers[node].output
    cluster.final_check()


def test_a_scanner_that_never_returns_delays_only_its_own_scans(fault_cluster: NewFaultCluster) -> None:
    """Attacks: user code that blocks in the monitor stalls the loop (invariant 2: wanted daemons run)."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    _, leader = cluster.wait_leader()

    # When
    start = cluster.journal_end()
    cluster.flag("block")
    cluster.client.rescan("scanned")
    cluster.wait_event("scan-failed", since=start)

    # Then
    still_manages(cluster)
    cluster.assert_not_restarted(cluster.wanted)
    assert cluster.client.leader() == leader
    cluster.flag("block", up=False)
    cluster.final_check()


def test_a_monitor_frozen_with_its_agent_changes_nothing_when_it_continues(fault_cluster: NewFaultCluster) -> None:
    """Attacks: a deposed monitor carries out the plan in which it was frozen (invariant 3)."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    node, leader = cluster.wait_leader()
    agent, monitor = cluster.agent(node), cluster.monitor(node)

    # When
    freeze(agent, monitor)
    cluster.wait_moved(node)
    thaw(monitor)

    # Then
    wait_dead([monitor], because="its alarm is pending")
    assert cluster.wait_leader()[1].epoch > leader.epoch
    cluster.assert_not_restarted(cluster.names_not_on(node))
    thaw(agent)
    cluster.final_check()


def test_a_monitor_whose_worker_shuts_down_hands_over_at_once(fault_cluster: NewFaultCluster) -> None:
    """Attacks: every step of a rolling deploy waits for the end of the monitor's lease."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    node, leader = cluster.wait_leader()
    start = cluster.journal_end()

    # When
    assert cluster.workers[node].stop() == 0

    # Then
    cluster.wait_moved(node)
    cluster.assert_not_restarted(cluster.names_not_on(node))
    (resigned,), (led,) = cluster.events("resign", start), cluster.events("lead", start)
    assert resigned.epoch == leader.epoch
    assert led.at_ms - resigned.at_ms < LEASE * 1000
    cluster.workers[node].start()
    cluster.final_check()


def test_another_node_leads_soon_after_the_machine_of_the_monitor_is_lost(fault_cluster: NewFaultCluster) -> None:
    """Attacks: nobody sweeps the machine on which the monitor ran (no daemon elsewhere may be restarted)."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    node, leader = cluster.wait_leader()
    elsewhere = cluster.names_not_on(node)

    # When
    cluster.workers[node].kill_tree()

    # Then
    def led() -> bool:
        assert sorted(cluster.client.locate_many(elsewhere)) == sorted(elsewhere), "a look-up was not answered"
        now = cluster.client.leader()
        return now is not None and now.epoch > leader.epoch

    wait_until(led, within=SOON, because="the lease of the monitor ends")
    cluster.wait_moved(node)
    cluster.assert_not_restarted(elsewhere)
    cluster.workers[node].start()
    cluster.final_check()


def test_a_monitor_that_always_fails_is_elected_at_growing_intervals(fault_cluster: NewFaultCluster) -> None:
    """Attacks: a fast series of elections fills the journal (no token may change)."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    start = cluster.journal_end()

    # When
    cluster.flag("fail-always")

    # Then
    def paused() -> bool:
        for node in cluster.proxies:
            elected = [entry.at_ms for entry in cluster.events("lead", start) if entry.node == node]
            if any(later - earlier > LONG_PAUSE * 1000 for earlier, later in pairwise(elected)):
                return True
        return False

    wait_until(paused, within=SOON, because="each failure doubles the pause before the next candidacy")
    cluster.flag("fail-always", up=False)
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
