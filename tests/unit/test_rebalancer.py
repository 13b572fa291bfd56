"""When the monitor moves daemons for the sake of balance, and when it sleeps."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.records import BookRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.monitor import rebalancer as module
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.settings import Settings
from tests.unit.test_placement import node

A, B = NodeName("a"), NodeName("b")
TAIL = LauncherName("tail")
#: Past every wait of the balancer's.
LONG = 100.0


class Scene:
    """A monitor's view of two nodes, one of which is empty, and its balancer on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, other: Any = None, count: int = 10) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        names = [DaemonName(f"tail.{number}") for number in range(count)]
        self.specs = {name: self.spec() for name in names}
        self.book = {name: self.row(A, "1") for name in names}
        copy: Any = SimpleNamespace(
            specs=self.specs, book=self.book, nodes={A: node(), B: other or node()}, corrupt=set()
        )
        settings = Settings(redis_url="")
        self.planner = Planner(
            copy, load_factor=settings.load_factor, vnodes=settings.vnodes, options=lambda _: LauncherOptions()
        )
        self.planner.nodes_changed()
        self.looks = 0
        self.balancer = Rebalancer(settings, copy, self.planner, self._looked)
        self.now += LONG

    def _looked(self) -> None:
        self.looks += 1

    @staticmethod
    def spec(version: str = "1", **fields: Any) -> SpecRow:
        """A wish."""
        return SpecRow(launcher=TAIL, arguments="[[],{}]", desired=Desired.RUNNING, version=version, **fields)

    @staticmethod
    def row(home: NodeName | None, token: str, status: DaemonStatus = DaemonStatus.RUNNING) -> BookRow:
        """An entry."""
        return BookRow(status=status, token=token, launcher=TAIL, node=home, incarnation=Incarnation("i"), version="1")

    def wave(self) -> list[DaemonName]:
        """What is recalled now."""
        return [move.name for move in self.balancer.next_wave()]

    @property
    def sleeps(self) -> float:
        """Seconds until the monitor looks again by itself."""
        return self.balancer.next_look - self.now


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Ten daemons on one of two nodes."""
    return Scene(monkeypatch)


def test_a_monitor_whose_moves_were_paused_sleeps_while_one_is_on_its_way(scene: Scene) -> None:
    """One that takes long to stop must not keep it looking without a pause."""
    (name,) = scene.wave()
    scene.book[name] = scene.row(A, "1", DaemonStatus.STOPPING)
    scene.balancer.paused = True
    scene.now += LONG

    assert scene.wave() == []
    assert scene.sleeps > 1


def test_a_move_whose_recall_was_lost_does_not_hold_up_the_others_for_ever(scene: Scene) -> None:
    """Redis did not answer just then; the limit is one at a time, and this one never arrives."""
    (name,) = scene.wave()
    assert scene.wave() == []

    scene.now += LONG

    assert scene.wave() not in ([], [name])
    assert name not in scene.planner.moving


def test_nothing_to_move_is_found_out_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that can take none of the daemons stays empty: to find that out costs by the daemon."""
    scene = Scene(monkeypatch, other=node(launchers="poll"))
    assert scene.wave() == []

    scene.now += LONG
    assert (scene.wave(), scene.looks, scene.sleeps) == ([], 1, math.inf)

    scene.balancer.daemons_changed()
    assert (scene.wave(), scene.looks) == ([], 2)


def test_who_moves_a_daemon_that_is_being_rebalanced_has_the_last_word(scene: Scene) -> None:
    (name,) = scene.wave()
    scene.book[name] = scene.row(None, "1", DaemonStatus.PENDING)
    scene.specs[name] = scene.spec("2", target=A)

    assert scene.planner.plan([name]).assign == {A: [(name, "moved here")]}
