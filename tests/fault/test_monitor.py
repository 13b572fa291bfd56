"""A monitor that dies, freezes, hangs or is cut off is replaced, and no daemon hears of it."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.fault.cast import SOURCE
from tests.fault.conftest import OnStage
from tests.fault.signals import SOON, freeze, thaw, wait_dead
from tests.fault.stage import Stage
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


def wait_led(stage: Stage, *, after: int) -> str:
    """Wait until there is a monitor of a newer epoch, while every look-up is answered; the node that leads."""

    def led() -> str | None:
        found = stage.client.locate_many(stage.wanted)
        assert sorted(found) == stage.wanted, "a look-up was not answered"
        leader = stage.client.leader()
        return str(leader.node) if leader is not None and leader.epoch > after else None

    return wait_until(led, within=SOON, because="the lease of the monitor is free")


def still_manages(stage: Stage) -> None:
    """Assert that whoever leads now starts what is wanted, and ends what is not."""
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


@pytest.mark.parametrize("befall", [killed, frozen, seized])
def test_a_monitor_that_is_gone_or_does_not_turn_is_replaced_and_no_daemon_notices(
    on_stage: OnStage, befall: Callable[[Stage, str], None]
) -> None:
    """Attacks: its lease is renewed although it does nothing; or daemons depend on it (no token is touched)."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    node, leader = stage.leading()
    monitor = stage.monitor(node)

    # When
    befall(stage, node)

    # Then
    wait_led(stage, after=leader.epoch)
    assert not alive(monitor)
    still_manages(stage)
    stage.untouched(stage.wanted)
    stage.final_check()


def test_a_defect_in_the_loop_of_the_monitor_ends_it_and_its_successor_does_the_work(on_stage: OnStage) -> None:
    """Attacks: a monitor that lives on without its loop keeps others from leading."""
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
        lambda: stage.client.restarted({first: stage.before[first]}), within=SOON, because="the wish is still there"
    )
    stage.untouched(others)
    assert "its loop failed" in stage.workers[node].output
    stage.final_check()


def test_a_scanner_that_never_returns_holds_up_nothing_but_itself(on_stage: OnStage) -> None:
    """Attacks: user code that blocks in the monitor stops it from turning (what is wanted runs)."""
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


def test_a_monitor_frozen_with_its_agent_changes_nothing_when_it_thaws(on_stage: OnStage) -> None:
    """Attacks: a deposed monitor carries out the plan that it was frozen in (a deposed monitor changes nothing)."""
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
    """Attacks: in a rolling deploy every step would wait for the lease of the monitor."""
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


def test_the_machine_of_the_monitor_is_lost_and_another_one_leads_within_a_lease_or_so(on_stage: OnStage) -> None:
    """Attacks: who sweeps the machine of the one that sweeps (no daemon elsewhere is touched)."""
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


def test_a_monitor_that_fails_in_every_life_is_tried_ever_more_slowly(on_stage: OnStage) -> None:
    """Attacks: elections without end, one after the other, that fill the journal (no token is touched)."""
    # Given
    stage = on_stage(source=UNSOUND, settings=SETTINGS)
    start = stage.journal_end()

    # When
    stage.flag("fail-always")

    # Then
    def patient() -> bool:
        for node in stage.ways:
            elected = [one.at_ms for one in stage.events("lead", start) if one.node == node]
            if any(later - earlier > PATIENCE * 1000 for earlier, later in pairwise(elected)):
                return True
        return False

    wait_until(patient, within=SOON, because="each failure doubles the pause before the next candidacy")
    stage.flag("fail-always", up=False)
    stage.final_check()
    stage.untouched(stage.wanted)
