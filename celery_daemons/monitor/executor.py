"""Carry out what the monitor decided: the only place that changes the address book on behalf of the monitor's loop."""

import logging
from collections.abc import Callable, Iterable

from celery_daemons.domain.names import DaemonName, Epoch, NodeName
from celery_daemons.domain.planner import Plan
from celery_daemons.domain.runs import Assignment
from celery_daemons.monitor.cluster_tally import ClusterTally
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.monitor.leases import LeaseActions
from celery_daemons.monitor.reconciler import Reconciler
from celery_daemons.store import book, journal, lease
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Replica
from celery_daemons.store.script import BATCH
from celery_daemons.wire.spawn_task import SpawnTask

logger = logging.getLogger(__name__)

_Items = list[tuple[DaemonName, str]]


class PlanExecutor:
    """Writes plans to Redis under the monitor's epoch, notifies the nodes, and reports refusals to the reconciler.

    Every method raises LeaseLost once the epoch is over, and StoreUnavailable.
    """

    def __init__(
        self,
        *,
        store: Store,
        epoch: Epoch,
        replica: Replica,
        reconciler: Reconciler,
        dispatcher: Dispatcher,
        tally: ClusterTally,
        report_progress: Callable[[], None],
    ) -> None:
        self._store = store
        self._keys = store.keys
        self._epoch = epoch
        self._replica = replica
        self._reconciler = reconciler
        self._dispatcher = dispatcher
        self._tally = tally
        self._report_progress = report_progress

    def carry_out(self, plan: Plan) -> bool:
        """Sweep, park, recall and assign as planned; false if the server has to be checked before more is assigned."""
        for node in plan.sweep:
            # Its record is gone. If the node still has a lease, the lease watcher measures the end.
            self._sweep(node, ended_ms=0)
        self._park(plan.park)
        for node, items in plan.recall.items():
            for batch in _batches(items):
                self._recall(node, batch)
        for node, items in plan.assign.items():
            for batch in _batches(items):
                if not self._assign(node, batch):
                    return False
        return True

    def act_on_leases(self, actions: LeaseActions) -> None:
        """Confirm the server, note a mass failure and sweep lost nodes, as ``actions`` say."""
        if actions.confirm_server is not None:
            confirmed = self._store.run(lease.confirm_server(self._keys, self._epoch, actions.confirm_server))
            if not confirmed:
                # The next check finds the new history, and waits one lease before anything else is done.
                logger.warning("monitor: Redis was replaced by earlier data while it was checked; it is not confirmed")
                return
        if actions.mass_failure is not None:
            self._tally.mass_failure()
            note = journal.note(self._keys, "mass-failure", cause=actions.mass_failure, actor="monitor")
            self._store.run(note)
        for node, ended_ms in actions.sweep.items():
            if self._sweep(node, ended_ms=ended_ms):
                self._tally.node_lost()

    def _sweep(self, node: NodeName, *, ended_ms: int) -> bool:
        """Release the daemons of a node whose lease has ended, and forget the node; False if the node is back."""
        while True:
            # The first call removes the lease: the next one finds none, or that of a node which is back.
            swept = self._store.run(book.sweep(self._keys, self._epoch, node, limit=BATCH, ended_ms=ended_ms))
            self._report_progress()
            if swept.alive:
                return False
            logger.warning("node %s: lease ended, released %d daemons to other nodes", node, len(swept.names))
            if swept.left == 0:
                return True

    def _park(self, items: _Items) -> None:
        known = self._replica.book
        changed = [(name, why) for name, why in items if not (name in known and known[name].error == why)]
        for batch in _batches(changed):
            for name, why in batch:
                logger.warning("daemon %s: unplaceable: %s", name, why)
            self._store.run(book.park(self._keys, self._epoch, batch))

    def _recall(self, node: NodeName, batch: _Items) -> None:
        for name, why in batch:
            self._tally.recalled(name, why)
        recalled = self._store.run(book.recall(self._keys, self._epoch, node, batch))
        self._notify(node, recalled, [name for name, _ in batch], recalled=True)
        for (name, why), token in zip(batch, recalled.tokens, strict=True):
            if token:
                logger.info("daemon %s: recalled from node %s: %s", name, node, why)
            else:
                self._reconciler.recall_refused(name)
        self._report_progress()

    def _assign(self, node: NodeName, batch: _Items) -> bool:
        """Assign a batch; false if the server has to be checked first. What is refused is planned again."""
        names = [name for name, _ in batch]
        row = self._replica.nodes.get(node)
        if row is None:
            # A refusal for an earlier batch of this plan has reloaded the nodes.
            self._reconciler.assignment_refused(names)
            return True
        assigned = self._store.run(book.assign(self._keys, self._epoch, node, row.incarnation, batch))
        self._report_progress()
        if isinstance(assigned, book.Dispatch):
            self._notify(node, assigned, names, recalled=False)
            return True
        if assigned is book.NotAssigned.NODE:
            # The node left after the replica read its record. The journal entry about that is read after this turn.
            self._replica.load_nodes()
        self._reconciler.assignment_refused(names)
        return assigned is book.NotAssigned.NODE

    def _notify(self, node: NodeName, done: book.Dispatch, names: list[DaemonName], *, recalled: bool) -> None:
        row = self._replica.nodes.get(node)
        items = [Assignment(name, token) for name, token in zip(names, done.tokens, strict=True) if token]
        if row is None or not items:
            return
        # One message per generation: a node that has received a generation has received all of it.
        self._dispatcher.send(
            row.spawn_queue,
            SpawnTask(
                node=node,
                incarnation=row.incarnation,
                epoch=self._epoch,
                generation=done.generation,
                assigned=[] if recalled else items,
                recalled=items if recalled else [],
            ),
        )


def _batches(items: _Items) -> Iterable[_Items]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
