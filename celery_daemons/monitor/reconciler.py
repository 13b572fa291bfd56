"""Decide what the monitor does next: changes of the cluster come in, plans go out."""

import math
from collections.abc import Iterable

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.planner import Plan, Planner
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.monitor.rebalancer import Rebalancer


class Reconciler:
    """Track which daemons may need action, and plan for those daemons.

    Pure: no Redis, no broker, and no clock but that of the hold-off. Plans are level-triggered: they follow from the
    snapshot, so that nothing depends on any one change being seen.
    """

    def __init__(self, *, planner: Planner, rebalancer: Rebalancer, hold_off: HoldOff) -> None:
        self._planner = planner
        self._rebalancer = rebalancer
        self._hold_off = hold_off
        #: Daemons that may need action.
        self._dirty: set[DaemonName] = set()
        #: Nodes have come or gone since the planner last checked every daemon.
        self._nodes_changed = False

    def snapshot_loaded(self) -> None:
        """Check every daemon: the snapshot was read from scratch."""
        self._nodes_changed = False
        self._planner.nodes_changed()
        self._rebalancer.nodes_changed()
        self._dirty = self._planner.needing_action()

    def nodes_changed(self) -> None:
        """Check every daemon with the next plan: nodes have come or gone, or records of nodes have changed."""
        self._nodes_changed = True
        self._rebalancer.nodes_changed()

    def daemons_changed(self, names: Iterable[DaemonName]) -> None:
        """Check these daemons with the next plan: specs or entries have changed."""
        changed = set(names)
        if not changed:
            return
        if not self._nodes_changed:  # else the next plan begins with a count of all daemons
            for name in changed:
                self._planner.recount(name)
        self._dirty |= changed
        self._rebalancer.daemons_changed()

    def assignment_refused(self, names: Iterable[DaemonName]) -> None:
        """Plan these daemons again: the node of the assignment is no longer up."""
        self._dirty.update(names)
        self.nodes_changed()

    def recall_refused(self, name: DaemonName) -> None:
        """End a move: the daemon has left the source already, or is stopping."""
        self._rebalancer.move_ended(name)

    def next_plan(self) -> Plan:
        """Return what to do about daemons that may need action; nothing while the monitor holds off."""
        if not self._hold_off.may_act:
            return Plan()
        if self._nodes_changed:
            # Once for any number of nodes: after a fail-over of Redis every node registers again.
            self._nodes_changed = False
            self._planner.nodes_changed()
            self._dirty |= self._planner.needing_action()
        if not self._dirty:
            return Plan()
        dirty, self._dirty = self._dirty, set()
        return self._planner.plan(dirty, moving=self._rebalancer.moving)

    def next_wave(self) -> Plan:
        """Return the recalls of the next wave of rebalancing; nothing while any daemon may need action."""
        plan = Plan()
        if self._has_work or not self._hold_off.may_act:
            return plan
        for move in self._rebalancer.next_wave():
            plan.recall.setdefault(move.source, []).append((move.name, f"to {move.target}: {move.why}"))
        return plan

    @property
    def next_action_at(self) -> float:
        """Return when there may be something to do if nothing happens before, on the clock."""
        if self._has_work:
            return self._hold_off.no_action_before
        return self._rebalancer.next_wave_at if self._hold_off.may_act else math.inf

    @property
    def _has_work(self) -> bool:
        return bool(self._dirty) or self._nodes_changed
