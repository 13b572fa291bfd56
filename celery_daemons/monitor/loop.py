"""The monitor's loop: level-triggered, so that nothing depends on any one message or change being seen."""

import logging
import random
import time
from collections.abc import Iterable
from functools import partial
from typing import Final

from celery_daemons.domain.names import DaemonName, Epoch, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.errors import StoreUnavailable
from celery_daemons.launcher import Registry
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.monitor.link import AgentLink
from celery_daemons.monitor.plan import Plan, Planner
from celery_daemons.monitor.scan import Scans
from celery_daemons.process import spawn_task
from celery_daemons.settings import Settings
from celery_daemons.store import book, journal, lease, reading
from celery_daemons.store.calls import BATCH
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Changes, Replica

logger = logging.getLogger(__name__)

#: Seconds that the loop waits for the journal at most: without it, a quiet loop could not prove that it turns.
_TURN: Final = 1.0
#: The same as a share of the lease, for short ones: an agent takes a loop for wedged after a few of these.
_TURN_SHARE: Final = 0.2
#: Seconds after the end of a lease at which it is swept: the server's clock is read in whole milliseconds.
_SWEEP_DELAY: Final = 0.002
#: How many nodes are told that the monitor has resigned: one may be busy, all would be a rush.
_HEIRS: Final = 3
#: Seconds that a resigned monitor has for telling them.
_LAST_WORDS: Final = 0.3
#: Seconds that a node may be gone before its queues are removed.
_COMES_BACK_WITHIN: Final = 60.0
#: Clusters of fewer nodes have no majority to lose: two nodes are half and half.
_FEW: Final = 3
#: Seconds between attempts while Redis does not answer.
_RETRY: Final = 0.2


class Monitor:
    """Leads the cluster under one epoch."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        registry: Registry,
        dispatcher: Dispatcher,
        link: AgentLink,
        epoch: Epoch,
    ) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._dispatcher = dispatcher
        self._link = link
        self._epoch = epoch
        self._replica = Replica(store, with_specs=True)
        self._planner = Planner(self._replica, settings, self._options)
        self._scans = Scans(registry, settings, store, epoch, lambda: self._replica.specs)
        self._dirty: set[DaemonName] = set()
        self._look_at = 0.0
        self._calm_until = 0.0
        self._loaded = False
        self._connects = -1
        self._server = ""
        self._met = ""
        self._lost: dict[NodeName, float] = {}
        self._braking = False
        self._bury_at = 0.0
        self._pause = min(_TURN, _TURN_SHARE * settings.lease_ttl)

    def run(self) -> None:
        """Turn until the lease is lost (LeaseLost)."""
        while True:
            self._link.turn(at_most_every=self._pause / 2)
            try:
                self._turn()
            except StoreUnavailable as error:
                logger.warning("monitor: %s", error)
                # Every node has to have had a lease's time to beat again before one of them may count as lost.
                self._calm_until = time.monotonic() + self._settings.lease_ttl
                self._loaded = False
                time.sleep(_RETRY)

    def hand_over(self, node: str) -> None:
        """Tell some other nodes that nobody leads any more; called in the link's thread, after the epoch is over."""
        others = [(name, row) for name, row in self._replica.nodes.copy().items() if name != node]
        for name, row in random.sample(others, min(_HEIRS, len(others))):
            message = spawn_task.payload(
                node=name,
                incarnation=row.incarnation,
                epoch=self._epoch,
                generation=0,
                assigned=[],
                recalled=[],
                campaign=True,
            )
            self._dispatcher.send(row.spawn_queue, message)
        self._dispatcher.flush(_LAST_WORDS)

    def _turn(self) -> None:
        if not self._loaded:
            self._replica.load()
            self._start_anew()
        now = time.monotonic()
        if now >= self._look_at:
            self._look(now)
        self._scans.attend()
        self._act()
        wait = min(self._pause, self._look_at - now, self._scans.next_due - now)
        if self._dirty:
            wait = min(wait, self._calm_until - now)
        self._take(self._replica.follow(block_ms=max(1, int(wait * 1000))))

    def _start_anew(self) -> None:
        self._loaded = True
        self._look_at = 0.0
        self._planner.nodes_changed()
        self._dirty = self._planner.unsettled()

    def _take(self, changes: Changes) -> None:
        for entry in changes.entries:
            if entry.event == "rescan":
                self._scans.request(entry.cause)
        if changes.everything:
            self._start_anew()
        elif changes.nodes:
            self._planner.nodes_changed()
            self._dirty |= self._planner.unsettled()
            # A new node has a lease that may end before those known so far.
            self._look_at = 0.0
        else:
            for name in changes.names:
                self._planner.count(name)
        self._dirty |= changes.names

    # Leases and digests

    def _look(self, now: float) -> None:
        """See whose lease has ended, and whether the copy still agrees with Redis in number."""
        overview = self._store.run(reading.overview(self._store.keys))
        if overview.created_ms != self._replica.created_ms:
            if self._replica.created_ms:
                logger.warning("monitor: Redis has lost its data, waiting one lease for nodes to tell what they run")
            self._replica.load()
            self._start_anew()
        self._stay_calm_while_young(now, overview.age_ms)
        self._stay_calm_with_another_server(now, overview.server)
        if (overview.specs, overview.entries) != self._replica.counts:
            # What is still on its way through the journal explains a difference, and is read next.
            behind = self._replica.follow(block_ms=0)
            self._take(behind)
            if not behind.entries:
                self._replica.load()
                self._start_anew()
        if now >= self._bury_at:
            self._bury()
            self._bury_at = now + _COMES_BACK_WITHIN
        ended = [node for node, left in overview.leases.items() if left <= 0]
        self._brake(now, ended, len(overview.leases))
        if now >= self._calm_until:
            for node in ended:
                self._sweep(node)
        pauses = [left / 1000 + _SWEEP_DELAY for left in overview.leases.values() if left > 0]
        if ended:
            pauses.append(max(0.05, self._calm_until - now))
        self._look_at = time.monotonic() + min([self._settings.reconcile_interval, *pauses])

    def _stay_calm_while_young(self, now: float, age_ms: int | None) -> None:
        """After a loss of data, those who hold daemons speak first: each has told within its lease, or is dead."""
        if age_ms is None:
            self._calm_until = now + self._settings.lease_ttl
        elif age_ms < self._settings.lease_ttl_ms:
            self._calm_until = max(self._calm_until, now + (self._settings.lease_ttl_ms - age_ms) / 1000)

    def _stay_calm_with_another_server(self, now: float, settled: str) -> None:
        """After a restart or a promotion too: leases may be those of a while ago, the last writes may be missing."""
        if self._store.connects != self._connects:
            self._connects, self._server = self._store.connects, self._store.server_id()
        if settled == self._server:
            return
        if self._met != self._server:
            self._met = self._server
            if settled:
                logger.warning("monitor: Redis is another server than before, waiting one lease for all nodes to beat")
                self._calm_until = now + self._settings.lease_ttl
        if now >= self._calm_until:
            self._store.run(lease.settle(self._store.keys, self._epoch, self._server))

    def _brake(self, now: float, ended: list[NodeName], registered: int) -> None:
        """If most nodes are lost at once, wait one more lease: it is rather the network than so many machines."""
        window = now - self._settings.lease_ttl
        self._lost = {node: at for node, at in self._lost.items() if at > window or node in ended}
        gone = sum(node not in ended for node in self._lost)
        for node in ended:
            self._lost.setdefault(node, now)
        if not ended:
            self._braking = False
        elif not self._braking and registered + gone >= _FEW and len(self._lost) * 2 > registered + gone:
            self._braking = True
            self._calm_until = max(self._calm_until, now + self._settings.lease_ttl)
            cause = f"{len(self._lost)} of {registered + gone} nodes are lost within one lease: waiting one more"
            logger.error("monitor: %s", cause)
            self._store.run(journal.note(self._store.keys, "mass-failure", cause=cause))

    def _sweep(self, node: NodeName) -> None:
        while True:
            swept = self._store.run(book.sweep(self._store.keys, self._epoch, node, limit=BATCH))
            self._link.turn(at_most_every=self._pause / 2)
            if swept.alive_ms:
                return
            logger.warning("node %s: lease ended, freed %d daemons", node, len(swept.names))
            if swept.left == 0:
                break

    def _bury(self) -> None:
        """Remove from the broker what nodes have left there that are gone for a while; a restart takes less."""
        now_ms = self._store.now_ms()
        for node, gone in reading.gone(self._store).items():
            if now_ms - gone.at_ms >= _COMES_BACK_WITHIN * 1000:
                call = lease.bury(self._store.keys, self._epoch, node)
                self._dispatcher.sweep(gone.spawn_queue, gone.queue, partial(self._store.run, call))

    # Acting

    def _act(self) -> None:
        if not self._dirty or time.monotonic() < self._calm_until:
            return
        dirty, self._dirty = self._dirty, set()
        plan = self._planner.plan(dirty)
        for node in plan.sweep:
            self._sweep(node)
        self._park(plan)
        for node, items in plan.recall.items():
            for batch in _batches(items):
                done = self._store.run(book.recall(self._store.keys, self._epoch, node, batch))
                self._send(node, done, [name for name, _ in batch], recalled=True)
                self._link.turn(at_most_every=self._pause / 2)
        self._assign(plan)

    def _assign(self, plan: Plan) -> None:
        waves = [(node, batch) for node, items in plan.assign.items() for batch in _batches(items)]
        for node, batch in waves:
            row = self._replica.nodes.get(node)
            if row is None:
                continue
            done = self._store.run(book.assign(self._store.keys, self._epoch, node, row.incarnation, batch))
            self._link.turn(at_most_every=self._pause / 2)
            names = [name for name, _ in batch]
            if done is None:
                # It left between two looks; what the journal tells about it next starts another plan.
                self._dirty.update(names)
                self._take(Changes(nodes=True))
                self._replica.load_nodes()
            else:
                self._send(node, done, names, recalled=False)

    def _park(self, plan: Plan) -> None:
        told = self._replica.book
        fresh = [(name, why) for name, why in plan.park if not (name in told and told[name].error == why)]
        for batch in _batches(fresh):
            for name, why in batch:
                logger.info("daemon %s: unplaceable: %s", name, why)
            self._store.run(book.park(self._store.keys, self._epoch, batch))

    def _send(self, node: NodeName, done: book.Dispatch, names: list[DaemonName], *, recalled: bool) -> None:
        row = self._replica.nodes.get(node)
        items = [(str(name), token) for name, token in zip(names, done.tokens, strict=True) if token]
        if row is None or not items:
            return
        # One message for one generation: a node that has seen a generation has seen all of it.
        self._dispatcher.send(
            row.spawn_queue,
            spawn_task.payload(
                node=node,
                incarnation=row.incarnation,
                epoch=self._epoch,
                generation=done.generation,
                assigned=[] if recalled else items,
                recalled=items if recalled else [],
            ),
        )

    def _options(self, launcher: LauncherName) -> LauncherOptions | None:
        return self._registry[launcher].options if launcher in self._registry else None


def _batches(items: list[tuple[DaemonName, str]]) -> Iterable[list[tuple[DaemonName, str]]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
