"""Count what happens in the cluster, and report the numbers to the agent, which serves them as metrics."""

import heapq
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from celery_daemons.domain import reconcile
from celery_daemons.domain.census import Census, Counted
from celery_daemons.domain.histogram import Histogram
from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.planner import Snapshot
from celery_daemons.domain.states import DaemonStatus, NodeStatus
from celery_daemons.store.queries import Overview
from celery_daemons.store.replica import Changes
from celery_daemons.wire.messages import (
    MOVE_REASONS,
    PLACEMENT_BOUNDS,
    PLACEMENT_REASONS,
    ClusterNumbers,
    ClusterTotals,
    ScanNumbers,
)

#: Seconds between two reports while numbers change, and while they do not.
_INTERVAL: Final = 1.0
_QUIET_INTERVAL: Final = 5.0
#: The most daemons that are named because they need attention.
_MOST_NAMED: Final = 100
#: What a recall means for the daemon, by its cause; other recalls end it.
_BY_CAUSE: Final = {
    reconcile.MOVED: "moved",
    reconcile.FAILED_HERE: "moved",
    reconcile.LEFT: "left",
    reconcile.REPLACED: "replaced",
}
#: Reasons for which an assignment is no move to another node.
_NO_MOVES: Final = frozenset(PLACEMENT_REASONS) - frozenset(MOVE_REASONS)


class ClusterTally:
    """Counts for metrics. Without ``enabled``, every method returns at once."""

    def __init__(
        self,
        *,
        enabled: bool,
        snapshot: Snapshot,
        report: Callable[[ClusterNumbers], None],
        clock: Callable[[], float],
    ) -> None:
        self._enabled = enabled
        self._snapshot = snapshot
        self._report = report
        self._clock = clock
        self._census = Census()
        self._leases: dict[NodeName, float] = {}
        self._paused = False
        self._totals = ClusterTotals()
        self._placement = {reason: Histogram(PLACEMENT_BOUNDS) for reason in PLACEMENT_REASONS}
        #: Daemons without a node that should run: since when, and why.
        self._unplaced: dict[DaemonName, tuple[float, str]] = {}
        self._recalled: dict[DaemonName, str] = {}
        #: Replaced as a whole by the threads of scans.
        self._scans: dict[LauncherName, ScanNumbers] = {}
        self._reconcile_seconds = 0.0
        self._reconciled_at = 0.0
        self._changed = False
        self._reported_at = 0.0

    # What happens

    def snapshot_loaded(self) -> None:
        """Count every daemon again."""
        if not self._enabled:
            return
        self._census.clear()
        for name in self._snapshot.specs.keys() | self._snapshot.book.keys():
            self._census.recount(name, self._snapshot.specs.get(name), self._snapshot.book.get(name))
        # When these lost their nodes is not known.
        self._unplaced.clear()
        self._recalled.clear()
        self._changed = True

    def followed(self, changes: Changes) -> None:
        """Count the daemons that changed."""
        if not self._enabled or changes.everything:
            return
        now = self._clock()
        swept = {item[0] for entry in changes.entries if entry.event == "sweep" for item in entry.items}
        for name in changes.names:
            before, counted = self._census.recount(name, self._snapshot.specs.get(name), self._snapshot.book.get(name))
            self._track(name, before, counted, swept=name in swept, now=now)
        self._changed = self._changed or bool(changes.names) or changes.nodes

    def recalled(self, name: DaemonName, why: str) -> None:
        """Note why a daemon is recalled: ``to …`` for a wave of rebalancing, else a cause of the planner."""
        reason = "rebalance" if why.startswith("to ") else _BY_CAUSE.get(why)
        if self._enabled and reason is not None:
            self._recalled[name] = reason

    def node_lost(self) -> None:
        """Count a node whose lease has ended."""
        self._totals.nodes_lost += 1
        self._changed = True

    def mass_failure(self) -> None:
        """Count a failure of most nodes at once."""
        self._totals.mass_failures += 1
        self._changed = True

    def leases_checked(self, overview: Overview) -> None:
        """Note what Redis has about nodes."""
        self._leases = {node: left / 1000 for node, left in overview.leases.items()}
        self._paused = overview.paused

    def scanned(self, launcher: LauncherName, *, seconds: float, listed: int, failed: bool) -> None:
        """Note the end of a scan. Called in the scan's thread."""
        last = self._scans.get(launcher)
        succeeded_at = (last.succeeded_at if last else 0.0) if failed else time.time()
        self._scans[launcher] = ScanNumbers(seconds=seconds, listed=listed, succeeded_at=succeeded_at)

    def turn_ended(self, began_at: float) -> None:
        """Note that the loop has reconciled, and report if a report is due."""
        now = self._clock()
        self._reconcile_seconds, self._reconciled_at = now - began_at, time.time()
        if self._enabled and now - self._reported_at >= (_INTERVAL if self._changed else _QUIET_INTERVAL):
            self._reported_at, self._changed = now, False
            self._report(self.numbers())

    def numbers(self) -> ClusterNumbers:
        """Return the present numbers."""
        census, nodes = self._census, self._snapshot.nodes
        statuses = Counter(
            str(NodeStatus.LOST) if self._leases.get(name, 1.0) <= 0 else str(row.status) for name, row in nodes.items()
        )
        return ClusterNumbers(
            statuses=[(*key, number) for key, number in census.statuses.items()],
            desired=dict(census.desired),
            nodes={str(status): statuses[str(status)] for status in NodeStatus},
            node_daemons={name: census.by_node[name] for name in nodes},
            lease_seconds={name: max(0.0, self._leases[name]) for name in nodes if name in self._leases},
            unhealthy=[(name, census.unhealthy[name]) for name in heapq.nsmallest(_MOST_NAMED, census.unhealthy)],
            rebalance_paused=self._paused,
            totals=self._totals,
            placement={reason: (found.counts, found.total) for reason, found in self._placement.items()},
            reconcile_seconds=self._reconcile_seconds,
            reconciled_at=self._reconciled_at,
            scans=dict(self._scans),
        )

    def _track(
        self, name: DaemonName, before: Counted | None, counted: Counted | None, *, swept: bool, now: float
    ) -> None:
        """Follow a daemon from the loss of its node, or its first appearance, to its next run."""
        if counted is None or not counted.wanted:
            self._unplaced.pop(name, None)
            self._recalled.pop(name, None)
            return
        left = before is not None and before.node is not None and before.node != counted.node
        if left or before is None or not before.wanted:
            recalled = self._recalled.pop(name, "left")
            self._unplaced.setdefault(name, (now, "new" if not left else "lost" if swept else recalled))
        if counted.node is None or name not in self._unplaced:
            return
        since, reason = self._unplaced[name]
        if (before is None or before.node != counted.node) and reason not in _NO_MOVES:
            self._totals.moves[reason] += 1
        if counted.status is DaemonStatus.RUNNING:
            del self._unplaced[name]
            self._placement[reason].observe(now - since)
