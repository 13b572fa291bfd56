"""What the monitor plans for changes of the cluster: pure, on a snapshot and a clock of the test's own."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.records import BookRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.monitor.quiet_period import QuietPeriod
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.monitor.reconciler import Reconciler
from celery_daemons.settings import Settings
from tests.unit.test_placement import node

A, B = NodeName("a"), NodeName("b")
TAIL = LauncherName("tail")
LEASE = 5.0
#: Longer than every quiet period.
LONG = 100.0


def running(home: NodeName, token: int = 1) -> BookRow:
    """Return the entry of a daemon that runs on a node."""
    return BookRow(
        status=DaemonStatus.RUNNING,
        token=Token(token),
        launcher=TAIL,
        node=home,
        incarnation=Incarnation("i"),
        version="1",
    )


class ReconcilerHarness:
    """A reconciler over a snapshot of one node, on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.specs: dict[DaemonName, SpecRow] = {}
        self.book: dict[DaemonName, BookRow] = {}
        self.nodes = {A: node()}
        snapshot: Any = SimpleNamespace(specs=self.specs, book=self.book, nodes=self.nodes, corrupt=set())
        settings = Settings(redis_url="", lease_ttl=LEASE)
        planner = Planner(
            snapshot, load_factor=settings.load_factor, vnodes=settings.vnodes, options=lambda _: LauncherOptions()
        )
        self.hold_off = HoldOff(LEASE, self.clock)
        self.rebalancer = Rebalancer(
            settings=settings,
            snapshot=snapshot,
            planner=planner,
            quiet_period=QuietPeriod(settings.settle_delay, self.clock),
            clock=self.clock,
        )
        self.reconciler = Reconciler(planner=planner, rebalancer=self.rebalancer, hold_off=self.hold_off)
        self.reconciler.snapshot_loaded()

    def clock(self) -> float:
        """Return the time that the test has set."""
        return self.now

    def want(self, *names: str) -> list[DaemonName]:
        """Add specs to the snapshot, and report the change."""
        wanted = [DaemonName(name) for name in names]
        for name in wanted:
            self.specs[name] = SpecRow(launcher=TAIL, arguments="[[],{}]", desired=Desired.RUNNING, version="1")
        self.reconciler.daemons_changed(wanted)
        return wanted


@pytest.fixture
def harness() -> ReconcilerHarness:
    return ReconcilerHarness()


def test_a_wanted_daemon_is_assigned_once(harness: ReconcilerHarness) -> None:
    (name,) = harness.want("x")

    assert [item for item, _ in harness.reconciler.next_plan().assign[A]] == [name]
    assert not harness.reconciler.next_plan()


def test_a_plan_waits_until_the_hold_off_ends(harness: ReconcilerHarness) -> None:
    harness.hold_off.on_outage()
    harness.want("x")

    assert not harness.reconciler.next_plan()
    assert harness.reconciler.next_action_at == harness.now + LEASE
    harness.now += LEASE
    assert harness.reconciler.next_plan().assign


def test_a_daemon_whose_assignment_was_refused_is_planned_again(harness: ReconcilerHarness) -> None:
    (name,) = harness.want("x")
    harness.reconciler.next_plan()

    del harness.nodes[A]
    harness.nodes[B] = node()
    harness.reconciler.assignment_refused([name])

    assert [item for item, _ in harness.reconciler.next_plan().assign[B]] == [name]


def test_daemons_on_a_node_that_disappeared_are_swept_though_none_of_them_changed(harness: ReconcilerHarness) -> None:
    (name,) = harness.want("x")
    harness.book[name] = running(A)
    harness.reconciler.daemons_changed([name])
    assert not harness.reconciler.next_plan()

    del harness.nodes[A]
    harness.reconciler.nodes_changed()

    assert harness.reconciler.next_plan().sweep == {A}


def test_rebalancing_waits_while_a_daemon_needs_action(harness: ReconcilerHarness) -> None:
    # Given ten daemons on one of two nodes, and a quiet period that is over
    names = harness.want(*(f"tail.{number}" for number in range(10)))
    harness.book.update({name: running(A) for name in names})
    harness.nodes[B] = node()
    harness.reconciler.snapshot_loaded()
    harness.now += LONG

    # When a change is still to be planned, then no wave begins
    harness.reconciler.daemons_changed(names[:1])
    assert not harness.reconciler.next_wave()

    # When it is planned, then one does
    harness.reconciler.next_plan()
    ((source, ((moved, _),)),) = harness.reconciler.next_wave().recall.items()
    assert source == A
    assert set(harness.rebalancer.moving) == {moved}


def test_a_move_whose_recall_was_refused_is_over(harness: ReconcilerHarness) -> None:
    names = harness.want(*(f"tail.{number}" for number in range(10)))
    harness.book.update({name: running(A) for name in names})
    harness.nodes[B] = node()
    harness.reconciler.snapshot_loaded()
    harness.now += LONG
    (moved,) = (name for items in harness.reconciler.next_wave().recall.values() for name, _ in items)

    harness.reconciler.recall_refused(moved)

    assert not harness.rebalancer.moving


def test_an_idle_cluster_asks_for_no_action(harness: ReconcilerHarness) -> None:
    harness.now += LONG
    harness.reconciler.next_wave()

    assert harness.reconciler.next_action_at == math.inf


def test_what_runs_on_a_node_that_cannot_start_processes_stays_there() -> None:
    """A healthy run is not ended for a problem that does not concern it."""
    # Given a daemon on one of two nodes
    harness = ReconcilerHarness()
    (name,) = harness.want("x")
    harness.book[name] = running(A)
    harness.nodes[B] = node()
    harness.reconciler.snapshot_loaded()

    # When that node can no longer start processes
    harness.nodes[A] = replace(node(), problem="no process can be forked")
    harness.reconciler.nodes_changed()

    # Then the daemon stays, and what is new goes to the other
    assert not harness.reconciler.next_plan()
    harness.want("y", "z")
    assert set(harness.reconciler.next_plan().assign) == {B}
