"""When the monitor moves daemons to balance the nodes, and when it waits."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import BookRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.monitor.quiet_period import QuietPeriod
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.settings import Settings
from tests.unit.test_placement import node

A, B = NodeName("a"), NodeName("b")
TAIL = LauncherName("tail")
#: Longer than every wait of the rebalancer.
LONG = 100.0


class CountingPlanner(Planner):
    """A planner that counts how often moves were planned, each of which may visit every daemon."""

    plans = 0

    def moves(self, *, even: bool, moving: Mapping[DaemonName, Move]) -> list[Move]:
        self.plans += 1
        return super().moves(even=even, moving=moving)


class RebalancerHarness:
    """A snapshot of two nodes, one of which is empty, and a rebalancer on a clock that the test sets."""

    def __init__(self, *, other: Any = None, count: int = 10) -> None:
        self.now = 1000.0
        names = [DaemonName(f"tail.{number}") for number in range(count)]
        self.specs = {name: self.spec() for name in names}
        self.book = {name: self.row(A, 1) for name in names}
        snapshot = SimpleNamespace(
            specs=self.specs, book=self.book, nodes={A: node(), B: other or node()}, corrupt=set[DaemonName]()
        )
        settings = Settings(redis_url="")
        self.planner = CountingPlanner(
            snapshot, load_factor=settings.load_factor, vnodes=settings.vnodes, options=lambda _: LauncherOptions()
        )
        self.planner.nodes_changed()
        self.rebalancer = Rebalancer(
            settings=settings,
            snapshot=snapshot,
            planner=self.planner,
            quiet_period=QuietPeriod(settings.settle_delay, self.clock),
            clock=self.clock,
        )
        self.now += LONG

    def clock(self) -> float:
        """Return the time that the test has set."""
        return self.now

    @staticmethod
    def spec(version: str = "1", **fields: Any) -> SpecRow:
        """Return a spec."""
        return SpecRow(launcher=TAIL, arguments="[[],{}]", desired=Desired.RUNNING, version=version, **fields)

    @staticmethod
    def row(home: NodeName | None, token: int, status: DaemonStatus = DaemonStatus.RUNNING) -> BookRow:
        """Return an entry of the address book."""
        return BookRow(
            status=status, token=Token(token), launcher=TAIL, node=home, incarnation=Incarnation("i"), version="1"
        )

    def wave(self) -> list[DaemonName]:
        """Return the daemons to recall now."""
        return [move.name for move in self.rebalancer.next_wave()]

    @property
    def sleep(self) -> float:
        """Return the seconds until the rebalancer wants to be called again."""
        return self.rebalancer.next_wave_at - self.now


@pytest.fixture
def harness() -> RebalancerHarness:
    """Ten daemons on one of two nodes."""
    return RebalancerHarness()


def test_a_monitor_whose_moves_were_paused_sleeps_while_one_is_on_its_way(harness: RebalancerHarness) -> None:
    """Attacks: a daemon that takes long to stop lets the loop spin."""
    (name,) = harness.wave()
    harness.book[name] = harness.row(A, 1, DaemonStatus.STOPPING)
    harness.rebalancer.pause_changed(paused=True)
    harness.now += LONG

    assert harness.wave() == []
    assert harness.sleep > 1


def test_a_move_whose_recall_was_lost_does_not_block_the_others_forever(harness: RebalancerHarness) -> None:
    """Redis did not answer the recall; the limit is one move at a time, and this one never arrives."""
    (name,) = harness.wave()
    assert harness.wave() == []

    harness.now += LONG

    assert harness.wave() not in ([], [name])
    assert name not in harness.rebalancer.moving


def test_an_empty_plan_is_made_once_while_nothing_changes() -> None:
    """A node that can take none of the daemons stays empty, and finding that out visits every daemon."""
    harness = RebalancerHarness(other=node(launchers="poll"))
    assert harness.wave() == []

    harness.now += LONG
    assert (harness.wave(), harness.planner.plans, harness.sleep) == ([], 1, math.inf)

    harness.rebalancer.daemons_changed()
    assert (harness.wave(), harness.planner.plans) == ([], 2)


def test_an_operators_move_of_a_daemon_overrides_the_rebalancer(harness: RebalancerHarness) -> None:
    (name,) = harness.wave()
    harness.book[name] = harness.row(None, 1, DaemonStatus.PENDING)
    harness.specs[name] = harness.spec("2", target=A)

    plan = harness.planner.plan([name], moving=harness.rebalancer.moving)

    assert plan.assign == {A: [(name, "moved here")]}


def test_a_released_daemon_is_placed_where_its_move_leads(harness: RebalancerHarness) -> None:
    (name,) = harness.wave()
    harness.book[name] = harness.row(None, 1, DaemonStatus.PENDING)

    ((target, ((planned, why),)),) = harness.planner.plan([name], moving=harness.rebalancer.moving).assign.items()

    assert (target, planned) == (B, name)
    assert why.startswith("rebalanced: ")
