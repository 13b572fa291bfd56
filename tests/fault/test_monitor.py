"""A monitor that dies, freezes, hangs or is cut off is replaced, and no daemon is affected."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.fault.cast import SOURCE
from tests.fault.conftest import OnStage
from tests.fault.signals import SOON, freeze, thaw, wait_dead
from tests.fault.stage import Stage
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


def wait_led(stage: Stage, *, after: int) -> str:
    """Wait for a monitor of a newer epoch while every look-up is answered. Return the node that leads."""

    def led() -> str | None:
        found = stage.client.locate_many(stage.wanted)
        assert sorted(found) == stage.wanted, "a look-up was not answered"
        leader = stage.client.leader()
        return str(leader.node) if leader is not None and leader.epoch > after else None

    return wait_until(led, within=SOON, because="the lease of the monitor is free")


def still_manages(stage: Stage) -> None:
    """Assert that the current monitor starts a daemon that is wanted, and stops it once it is forgotten."""
    stage.client.want("watch.later", "watch", "[[],{}]")
    stage.client.wait_running("watch.later", within=SOON)
    stage.client.forget("watch.later")
    wait_until(lambda: stage.client.locate("watch.later") is None, within=SOON, because="it was forgotten")


def killed(stage: Stage, node: str) -> None:
    stage.monitor(node).kill()


def frozen(stage: Stage, node: str) -> None:
    stage.monitor(node).suspend()


def seized(stage: Stage, node: str) -> None:
    stage.flag("seize")
    stage.client.rescan("scanned")


@pytest.mark.parametrize("fail", [killed, frozen, seized])
def test_a_monitor_that_is_gone_or_stalls_is_replaced_and_no_daemon_notices(
    on_stage: OnStage, fail: Callable[[Stage, str], None]
) -> None:
    """Attacks: the lease of an idle monitor is renewed; daemons depend on a monitor (no token may change)."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    node, leader = stage.leading()
    monitor = stage.monitor(node)

    # When
    fail(stage, node)

    # Then
    wait_led(stage, after=leader.epoch)
    assert not alive(monitor)
    still_manages(stage)
    stage.untouched(stage.wanted)
    stage.final_check()


def test_a_monitor_with_a_defect_in_its_loop_exits_and_its_successor_does_the_work(on_stage: OnStage) -> None:
    """Attacks: a monitor that survives its own loop keeps other nodes from leading."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    node, leader = stage.leading()
    monitor = stage.monitor(node)
    first, *others = stage.wanted

    # When
    stage.flag("fail")
    stage.client.restart(first)

    # Then
    wait_led(stage, after=leader.epoch)
    assert not alive(monitor)
    wait_until(
        lambda: stage.client.restarted({first: stage.before[first]}),
        within=SOON,
        because="its spec still asks for a restart",
    )
    stage.untouched(others)
    assert f"monitor {node}: loop failed" in stage.workers[node].output
    stage.final_check()


def test_a_scanner_that_never_returns_delays_only_its_own_scans(on_stage: OnStage) -> None:
    """Attacks: user code that blocks in the monitor stalls the loop (invariant 2: wanted daemons run)."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    _, leader = stage.leading()

    # When
    start = stage.journal_end()
    stage.flag("block")
    stage.client.rescan("scanned")
    stage.wait_event("scan-failed", since=start)

    # Then
    still_manages(stage)
    stage.untouched(stage.wanted)
    assert stage.client.leader() == leader
    stage.flag("block", up=False)
    stage.final_check()


def test_a_monitor_frozen_with_its_agent_changes_nothing_when_it_continues(on_stage: OnStage) -> None:
    """Attacks: a deposed monitor carries out the plan in which it was frozen (invariant 3)."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    node, leader = stage.leading()
    agent, monitor = stage.agent(node), stage.monitor(node)

    # When
    freeze(agent, monitor)
    stage.wait_moved(node)
    thaw(monitor)

    # Then
    wait_dead([monitor], because="its alarm is pending")
    assert stage.leading()[1].epoch > leader.epoch
    stage.untouched(stage.off(node))
    thaw(agent)
    stage.final_check()


def test_a_monitor_whose_worker_shuts_down_hands_over_at_once(on_stage: OnStage) -> None:
    """Attacks: every step of a rolling deploy waits for the end of the monitor's lease."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    node, leader = stage.leading()
    start = stage.journal_end()

    # When
    assert stage.workers[node].stop() == 0

    # Then
    stage.wait_moved(node)
    stage.untouched(stage.off(node))
    (resigned,), (led,) = stage.events("resign", start), stage.events("lead", start)
    assert resigned.epoch == leader.epoch
    assert led.at_ms - resigned.at_ms < LEASE * 1000
    stage.workers[node].start()
    stage.final_check()


def test_another_node_leads_soon_after_the_machine_of_the_monitor_is_lost(on_stage: OnStage) -> None:
    """Attacks: nobody sweeps the machine on which the monitor ran (no daemon elsewhere may be restarted)."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    node, leader = stage.leading()
    elsewhere = stage.off(node)

    # When
    stage.workers[node].kill_tree()

    # Then
    def led() -> bool:
        assert sorted(stage.client.locate_many(elsewhere)) == sorted(elsewhere), "a look-up was not answered"
        now = stage.client.leader()
        return now is not None and now.epoch > leader.epoch

    wait_until(led, within=SOON, because="the lease of the monitor ends")
    stage.wait_moved(node)
    stage.untouched(elsewhere)
    stage.workers[node].start()
    stage.final_check()


def test_a_monitor_that_always_fails_is_elected_at_growing_intervals(on_stage: OnStage) -> None:
    """Attacks: a fast series of elections fills the journal (no token may change)."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    start = stage.journal_end()

    # When
    stage.flag("fail-always")

    # Then
    def paused() -> bool:
        for node in stage.ways:
            elected = [entry.at_ms for entry in stage.events("lead", start) if entry.node == node]
            if any(later - earlier > LONG_PAUSE * 1000 for earlier, later in pairwise(elected)):
                return True
        return False

    wait_until(paused, within=SOON, because="each failure doubles the pause before the next candidacy")
    stage.flag("fail-always", up=False)
    stage.final_check()
    stage.untouched(stage.wanted)
