"""The monitor's loop: read what changed, decide, carry out, and wait for the next change."""

import logging
import time
from collections.abc import Callable
from typing import Final

from celery_daemons.errors import StoreUnavailable
from celery_daemons.monitor.cluster_tally import ClusterTally
from celery_daemons.monitor.counts_check import CountsCheck
from celery_daemons.monitor.departed import DepartedNodes
from celery_daemons.monitor.executor import PlanExecutor
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.monitor.leases import LeaseWatcher
from celery_daemons.monitor.missing_scanners import MissingScanners
from celery_daemons.monitor.quiet_period import QuietPeriod
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.monitor.reconciler import Reconciler
from celery_daemons.monitor.scan import Scans
from celery_daemons.monitor.succession import Succession
from celery_daemons.store import queries
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Changes, Replica

logger = logging.getLogger(__name__)

#: Seconds between attempts while Redis does not answer.
_RETRY_INTERVAL: Final = 0.2


class Monitor:
    """Leads the cluster under an epoch: calls the parts that decide, and carries the decisions out."""

    def __init__(
        self,
        *,
        store: Store,
        replica: Replica,
        hold_off: HoldOff,
        quiet_period: QuietPeriod,
        rebalancer: Rebalancer,
        reconciler: Reconciler,
        lease_watcher: LeaseWatcher,
        executor: PlanExecutor,
        departed: DepartedNodes,
        scans: Scans,
        succession: Succession,
        missing_scanners: MissingScanners,
        tally: ClusterTally,
        counts_check: CountsCheck,
        report_progress: Callable[[], None],
        max_wait: float,
        clock: Callable[[], float],
    ) -> None:
        """``max_wait`` are the most seconds to wait for the journal: a loop that waits reports no progress."""
        self._store = store
        self._replica = replica
        self._hold_off = hold_off
        self._quiet_period = quiet_period
        self._rebalancer = rebalancer
        self._reconciler = reconciler
        self._lease_watcher = lease_watcher
        self._executor = executor
        self._departed = departed
        self._scans = scans
        self._succession = succession
        self._missing_scanners = missing_scanners
        self._tally = tally
        self._counts_check = counts_check
        self._report_progress = report_progress
        self._max_wait = max_wait
        self._clock = clock
        self._loaded = False
        self._next_check_at = 0.0
        #: The history of the server, as the last check has found it.
        self._history: str | None = None

    def run(self) -> None:
        """Run turns until the lease was given back because this node drains.

        Raises LeaseLost when the lease is lost.
        """
        while True:
            self._report_progress()
            try:
                wait = self.turn()
                self.follow(block_ms=max(1, int(wait * 1000)))
                if self._succession.resign_if_draining():
                    return
            except StoreUnavailable as error:
                logger.warning("monitor: %s", error)
                self.store_failed()
                time.sleep(_RETRY_INTERVAL)

    def turn(self) -> float:
        """Check, decide and act once. Return the seconds until there may be something to do, if nothing changes."""
        began_at = self._clock()
        if not self._loaded:
            self._replica.load()
            self._snapshot_loaded()
            self._quiet_period.expect(self._departed.names())
        if self._clock() >= self._next_check_at:
            self._check()
        if self._hold_off.may_act:
            # Not earlier: after a loss of data, a spec that a node still runs would be recorded as a new one.
            self._scans.run_due()
        plan = self._reconciler.next_plan()
        if not self._executor.carry_out(plan):
            self._next_check_at = 0.0
        wave = self._reconciler.next_wave()
        self._executor.carry_out(wave)
        if not plan and not wave:
            self._counts_check.run_due()
        # A plan may have taken long.
        self._report_progress()
        self._tally.turn_ended(began_at)
        scans_due_at = max(self._scans.next_due_at, self._hold_off.no_action_before)
        next_at = min(self._next_check_at, scans_due_at, self._reconciler.next_action_at)
        return min(self._max_wait, next_at - self._clock())

    def follow(self, *, block_ms: int) -> None:
        """Pass on changes in the journal, after a wait of up to ``block_ms`` milliseconds; 0 does not wait."""
        self._take(self._replica.follow(block_ms=block_ms))

    def store_failed(self) -> None:
        """Prepare to start from scratch, perhaps on another server, after Redis did not answer."""
        self._store.pin.accept_new_server()
        self._hold_off.on_outage()
        self._loaded = False

    def notify_candidates(self) -> None:
        """Notify other candidates that no monitor leads; see :meth:`Succession.notify_candidates`."""
        self._succession.notify_candidates()

    def _check(self) -> None:
        """Check by counts that the replica agrees with Redis, and act on leases that have ended."""
        sent = self._clock()
        overview = self._store.run(queries.overview(self._store.keys))
        # At once: the time of the overview is a measurement of Redis's clock.
        actions = self._lease_watcher.check(overview, server=self._store.pin.server, sent=sent)
        if overview.created_ms != self._replica.created_ms:
            if self._replica.created_ms:
                logger.warning("monitor: Redis has lost its data, waiting one lease for nodes to report their daemons")
            self._reload()
        elif self._history not in (None, overview.history):
            # The journal does not mention the writes that the server has lost.
            self._reload()
        self._history = overview.history
        if (overview.specs, overview.entries) != self._replica.counts:
            # What is still on its way through the journal explains a difference, and is read now.
            changes = self._replica.follow(block_ms=0)
            self._take(changes)
            if not changes.entries:
                self._reload()
        self._rebalancer.pause_changed(paused=overview.paused)
        self._tally.leases_checked(overview)
        self._executor.act_on_leases(actions)
        self._departed.remove_queues()
        self._missing_scanners.check()
        self._counts_check.note_total(overview.counted)
        self._next_check_at = self._clock() + actions.next_check_in

    def _reload(self) -> None:
        self._replica.load()
        self._snapshot_loaded()

    def _snapshot_loaded(self) -> None:
        self._loaded = True
        self._next_check_at = 0.0
        self._tally.snapshot_loaded()
        self._reconciler.snapshot_loaded()
        self._counts_check.request()

    def _take(self, changes: Changes) -> None:
        self._tally.followed(changes)
        for entry in changes.entries:
            if entry.event == "rescan":
                self._scans.request(entry.cause)
            elif entry.event == "rebalance" and entry.cause == "requested":
                self._rebalancer.rebalance_requested()
            elif entry.event == "rebalance":
                self._rebalancer.pause_changed(paused=entry.cause == "paused")
        if changes.everything:
            self._snapshot_loaded()
        elif changes.nodes:
            self._reconciler.nodes_changed()
            # The lease of a new node may end before all leases known so far.
            self._next_check_at = 0.0
        self._reconciler.daemons_changed(changes.names)
