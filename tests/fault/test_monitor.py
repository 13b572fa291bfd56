"""A monitor that dies, freezes, hangs or is cut off is replaced, and no daemon hears of it."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.fault.conftest import NewFaultCluster
from tests.fault.daemon_kinds import SOURCE
from tests.fault.fault_cluster import FaultCluster
from tests.fault.signals import SOON, freeze, thaw, wait_dead
from tests.support.processes import alive
from tests.support.waiting import wait_until

#: A scanner that misbehaves while a flag is up, and a defect in the monitor's loop; the first that sees the flag of a
#: lasting one takes it down, so that its successor fares better.
UNSOUND = (
    SOURCE
    + """
import ctypes
from celery_daemons.monitor.loop import Monitor


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


act = Monitor._act


def act_or_fail(self):
    if taken("fail") or flag("fail-always").exists():
        raise RuntimeError("a defect")
    act(self)


Monitor._act = act_or_fail
"""
)
SETTINGS = {"lease_ttl": 2.0, "heartbeat_interval": 0.4, "scan_timeout": 1.0}
LEASE = 2.0
#: A pause that a node takes only after several failures: the first is two heartbeats at most.
PATIENCE = 1.6


def wait_led(cluster: FaultCluster, *, after: int) -> str:
    """Wait until there is a monitor of a newer epoch, while every look-up is answered; the node that leads."""

    def led() -> str | None:
        found = cluster.client.locate_many(cluster.wanted)
        assert sorted(found) == cluster.wanted, "a look-up was not answered"
        leader = cluster.client.leader()
        return str(leader.node) if leader is not None and leader.epoch > after else None

    return wait_until(led, within=SOON, because="the lease of the monitor is free")


def still_manages(cluster: FaultCluster) -> None:
    """Assert that whoever leads now starts what is wanted, and ends what is not."""
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


@pytest.mark.parametrize("befall", [killed, frozen, seized])
def test_a_monitor_that_is_gone_or_does_not_turn_is_replaced_and_no_daemon_notices(
    fault_cluster: NewFaultCluster, befall: Callable[[FaultCluster, str], None]
) -> None:
    """Attacks: its lease is renewed although it does nothing; or daemons depend on it (no token is touched)."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    node, leader = cluster.wait_leader()
    monitor = cluster.monitor(node)

    # When
    befall(cluster, node)

    # Then
    wait_led(cluster, after=leader.epoch)
    assert not alive(monitor)
    still_manages(cluster)
    cluster.assert_not_restarted(cluster.wanted)
    cluster.final_check()


def test_a_defect_in_the_loop_of_the_monitor_ends_it_and_its_successor_does_the_work(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks: a monitor that lives on without its loop keeps others from leading."""
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
        lambda: cluster.client.restarted({first: cluster.before[first]}), within=SOON, because="the wish is still there"
    )
    cluster.assert_not_restarted(others)
    assert "its loop failed" in cluster.workers[node].output
    cluster.final_check()


def test_a_scanner_that_never_returns_holds_up_nothing_but_itself(fault_cluster: NewFaultCluster) -> None:
    """Attacks: user code that blocks in the monitor stops it from turning (what is wanted runs)."""
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


def test_a_monitor_frozen_with_its_agent_changes_nothing_when_it_thaws(fault_cluster: NewFaultCluster) -> None:
    """Attacks: a deposed monitor carries out the plan that it was frozen in (a deposed monitor changes nothing)."""
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
    """Attacks: in a rolling deploy every step would wait for the lease of the monitor."""
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


def test_the_machine_of_the_monitor_is_lost_and_another_one_leads_within_a_lease_or_so(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks: who sweeps the machine of the one that sweeps (no daemon elsewhere is touched)."""
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


def test_a_monitor_that_fails_in_every_life_is_tried_ever_more_slowly(fault_cluster: NewFaultCluster) -> None:
    """Attacks: elections without end, one after the other, that fill the journal (no token is touched)."""
    # Given
    cluster = fault_cluster(source=UNSOUND, settings=SETTINGS)
    start = cluster.journal_end()

    # When
    cluster.flag("fail-always")

    # Then
    def patient() -> bool:
        for node in cluster.proxies:
            elected = [one.at_ms for one in cluster.events("lead", start) if one.node == node]
            if any(later - earlier > PATIENCE * 1000 for earlier, later in pairwise(elected)):
                return True
        return False

    wait_until(patient, within=SOON, because="each failure doubles the pause before the next candidacy")
    cluster.flag("fail-always", up=False)
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
