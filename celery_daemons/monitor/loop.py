"""The monitor's loop: level-triggered, so that nothing depends on any one message or change being seen."""

import logging
import random
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final

from celery_daemons.domain.names import DaemonName, Epoch, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.errors import StoreUnavailable
from celery_daemons.launcher import Registry
from celery_daemons.monitor.balance import Balancer
from celery_daemons.monitor.caution import Caution
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
        scanning: Store,
    ) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._dispatcher = dispatcher
        self._link = link
        self._epoch = epoch
        self._replica = Replica(store, with_specs=True)
        self._planner = Planner(self._replica, settings, self._options)
        self._scans = Scans(registry, settings, scanning, epoch, lambda: self._replica.specs)
        self._balancer = Balancer(settings, self._replica, self._planner, self._prove)
        self._dirty: set[DaemonName] = set()
        self._look_at = 0.0
        self._caution = Caution(settings.lease_ttl)
        self._loaded = False
        self._bury_at = 0.0
        #: Nodes whose queues the dispatcher's thread has removed.
        self._removed: deque[NodeName] = deque()
        self._pause = min(_TURN, _TURN_SHARE * settings.lease_ttl)

    def run(self) -> None:
        """Turn until the lease is lost (LeaseLost)."""
        while True:
            self._prove()
            try:
                self._turn()
            except StoreUnavailable as error:
                logger.warning("monitor: %s", error)
                self._store.trust.accept()
                self._caution.after_outage()
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
            wait = min(wait, self._caution.until - now)
        elif self._caution.over:
            self._balance()
            wait = min(wait, self._balancer.next_look - now)
        self._take(self._replica.follow(block_ms=max(1, int(wait * 1000))))

    def _prove(self) -> None:
        self._link.turn(at_most_every=self._pause / 2)

    def _start_anew(self) -> None:
        self._loaded = True
        self._look_at = 0.0
        self._planner.nodes_changed()
        self._balancer.nodes_changed()
        self._dirty = self._planner.unsettled()

    def _take(self, changes: Changes) -> None:
        for entry in changes.entries:
            if entry.event == "rescan":
                self._scans.request(entry.cause)
            elif entry.event == "rebalance":
                self._hear_of_balance(entry.cause)
        if changes.everything:
            self._start_anew()
        elif changes.nodes:
            self._planner.nodes_changed()
            self._balancer.nodes_changed()
            self._dirty |= self._planner.unsettled()
            # A new node has a lease that may end before those known so far.
            self._look_at = 0.0
        else:
            for name in changes.names:
                self._planner.count(name)
        self._dirty |= changes.names

    def _hear_of_balance(self, what: str | None) -> None:
        if what == "requested":
            self._balancer.ask()
        else:
            self._balancer.paused = what == "paused"

    # Leases and digests

    def _look(self, now: float) -> None:
        """See whose lease has ended, and whether the copy still agrees with Redis in number."""
        overview = self._store.run(reading.overview(self._store.keys))
        if overview.created_ms != self._replica.created_ms:
            if self._replica.created_ms:
                logger.warning("monitor: Redis has lost its data, waiting one lease for nodes to tell what they run")
            self._replica.load()
            self._start_anew()
        self._balancer.paused = overview.paused
        self._caution.with_data_of(overview.age_ms)
        self._caution.after_silence(overview.heard_ms)
        server, settled = self._store.trust.server, overview.server
        if self._caution.with_server(server, settled=settled):
            self._store.run(lease.settle(self._store.keys, self._epoch, server))
            settled = server
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
        cause = self._caution.with_losses(overview.leases)
        if cause is not None:
            self._store.run(journal.note(self._store.keys, "mass-failure", cause=cause))
        if self._caution.sweeps:
            for node in ended:
                self._sweep(node)
        pauses = [left / 1000 + _SWEEP_DELAY for left in overview.leases.values() if left > 0]
        if ended:
            pauses.append(max(0.05, self._caution.sweeps_from - now, self._caution.until - now))
        if settled != server:
            # No node starts anything before.
            pauses.append(max(0.05, self._caution.until - now))
        self._look_at = time.monotonic() + min([self._settings.reconcile_interval, *pauses])

    def _sweep(self, node: NodeName) -> None:
        while True:
            swept = self._store.run(book.sweep(self._store.keys, self._epoch, node, limit=BATCH))
            self._prove()
            if swept.alive_ms:
                return
            logger.warning("node %s: lease ended, freed %d daemons", node, len(swept.names))
            if swept.left == 0:
                break

    def _bury(self) -> None:
        """Remove from the broker what nodes have left there that are gone for a while; a restart takes less."""
        while self._removed:
            self._store.run(lease.bury(self._store.keys, self._epoch, self._removed.popleft()))
        now_ms = self._store.now_ms()
        for node, gone in reading.gone(self._store).items():
            if now_ms - gone.at_ms >= _COMES_BACK_WITHIN * 1000:
                self._dispatcher.sweep(gone.spawn_queue, gone.queue, partial(self._removed.append, node))

    # Acting

    def _act(self) -> None:
        if not self._dirty or not self._caution.over:
            return
        dirty, self._dirty = self._dirty, set()
        plan = self._planner.plan(dirty)
        for node in plan.sweep:
            self._sweep(node)
        self._park(plan)
        self._recall(plan.recall)
        self._assign(plan)

    def _balance(self) -> None:
        recall: dict[NodeName, list[tuple[DaemonName, str]]] = {}
        for move in self._balancer.next_wave():
            recall.setdefault(move.source, []).append((move.name, f"to {move.target}: {move.why}"))
        self._recall(recall)

    def _recall(self, recall: dict[NodeName, list[tuple[DaemonName, str]]]) -> None:
        for node, items in recall.items():
            for batch in _batches(items):
                done = self._store.run(book.recall(self._store.keys, self._epoch, node, batch))
                names = [name for name, _ in batch]
                self._send(node, done, names, recalled=True)
                for name, token in zip(names, done.tokens, strict=True):
                    if not token:
                        self._balancer.refused(name)
                self._prove()

    def _assign(self, plan: Plan) -> None:
        waves = [(node, batch) for node, items in plan.assign.items() for batch in _batches(items)]
        for node, batch in waves:
            row = self._replica.nodes.get(node)
            if row is None:
                continue
            done = self._store.run(book.assign(self._store.keys, self._epoch, node, row.incarnation, batch))
            self._prove()
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
                logger.warning("daemon %s: unplaceable: %s", name, why)
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
