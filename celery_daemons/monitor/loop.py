"""The monitor's loop: level-triggered, so that nothing depends on any one message or change being seen."""

import logging
import random
import time
from collections.abc import Iterable
from typing import Final

from celery_daemons.domain.names import DaemonName, Epoch, NodeName
from celery_daemons.domain.planner import Plan, Planner
from celery_daemons.domain.runs import Assignment
from celery_daemons.domain.states import NodeStatus
from celery_daemons.errors import StoreUnavailable
from celery_daemons.launcher import Registry
from celery_daemons.monitor.agent_link import AgentLink
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.monitor.leases import Watch
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.monitor.scan import Scans
from celery_daemons.settings import Settings
from celery_daemons.store import book, lease, queries
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Changes, Replica
from celery_daemons.store.script import BATCH
from celery_daemons.wire.spawn_task import SpawnTask

logger = logging.getLogger(__name__)

#: Seconds that the loop waits for the journal at most: without it, a quiet loop could not prove that it turns.
_TURN: Final = 1.0
#: The same as a share of the lease, for short ones: an agent takes a loop for wedged after a few of these.
_TURN_SHARE: Final = 0.2
#: How many nodes are told that the monitor has resigned: one may be busy, all would be a rush.
_HEIRS: Final = 3
#: Seconds that a resigned monitor has for telling them.
_LAST_WORDS: Final = 0.3
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
        node: NodeName,
    ) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._dispatcher = dispatcher
        self._link = link
        self._epoch = epoch
        self._node = node
        self._replica = Replica(store, with_specs=True, on_page=self._prove)
        self._planner = Planner(
            self._replica, load_factor=settings.load_factor, vnodes=settings.vnodes, options=registry.options_of
        )
        self._scans = Scans(registry, settings, scanning, epoch, lambda: self._replica.specs)
        self._balancer = Rebalancer(settings, self._replica, self._planner, self._prove)
        self._dirty: set[DaemonName] = set()
        self._look_at = 0.0
        self._watch = Watch(store, settings, epoch, dispatcher, self._prove)
        self._loaded = False
        #: Nodes have come or gone since the planner last looked at everything.
        self._nodes_changed = False
        self._pause = min(_TURN, _TURN_SHARE * settings.lease_ttl)

    def run(self) -> None:
        """Turn until the lease is lost (LeaseLost), or has been given back because the node drains."""
        while True:
            self._prove()
            try:
                self._turn()
                if self._yields():
                    return
            except StoreUnavailable as error:
                logger.warning("monitor: %s", error)
                self._store.pin.accept_new_server()
                self._watch.caution.after_outage()
                self._loaded = False
                time.sleep(_RETRY)

    def _yields(self) -> bool:
        """Give the lease back if the node drains and another one can lead: it is about to go."""
        own = self._replica.nodes.get(self._node)
        if own is None or own.status is not NodeStatus.DRAINING:
            return False
        if not any(row.candidate and row.status is NodeStatus.UP for row in self._replica.nodes.values()):
            return False
        logger.info("monitor %s: its node drains, another one shall lead", self._node)
        return self._store.run(lease.resign(self._store.keys, self._epoch, cause="its node drains"))

    def hand_over(self) -> None:
        """Tell some other nodes that nobody leads any more, after the epoch is over; perhaps in the link's thread."""
        nodes = self._replica.nodes.copy()
        others = [(name, row) for name, row in nodes.items() if name != self._node and row.candidate]
        for name, row in random.sample(others, min(_HEIRS, len(others))):
            task = SpawnTask(node=name, incarnation=row.incarnation, epoch=self._epoch, campaign=True)
            self._dispatcher.send(row.spawn_queue, task)
        self._dispatcher.flush(_LAST_WORDS)

    def _turn(self) -> None:
        if not self._loaded:
            self._replica.load()
            self._start_anew()
            for name, seconds in self._watch.gone().items():
                self._balancer.settling.expect(name, gone_for=seconds)
        now = time.monotonic()
        if now >= self._look_at:
            self._look()
        self._scans.attend()
        self._act()
        wait = min(self._pause, self._look_at - now, self._scans.next_due - now)
        if self._dirty or self._nodes_changed:
            wait = min(wait, self._watch.caution.until - now)
        elif self._watch.caution.over:
            self._balance()
            wait = min(wait, self._balancer.next_look - now)
        self._take(self._replica.follow(block_ms=max(1, int(wait * 1000))))

    def _prove(self) -> None:
        self._link.turn(at_most_every=self._pause / 2)

    def _start_anew(self) -> None:
        self._loaded = True
        self._nodes_changed = False
        self._look_at = 0.0
        self._planner.nodes_changed()
        self._balancer.nodes_changed()
        self._dirty = self._planner.needing_action()

    def _take(self, changes: Changes) -> None:
        for entry in changes.entries:
            if entry.event == "rescan":
                self._scans.request(entry.cause)
            elif entry.event == "rebalance":
                self._hear_of_balance(entry.cause)
        if changes.everything:
            self._start_anew()
        elif changes.nodes:
            self._balancer.nodes_changed()
            self._nodes_changed = True
            # A new node has a lease that may end before those known so far.
            self._look_at = 0.0
        else:
            for name in changes.names:
                self._planner.count(name)
        if changes.names:
            self._dirty |= changes.names
            self._balancer.daemons_changed()

    def _hear_of_balance(self, what: str | None) -> None:
        if what == "requested":
            self._balancer.ask()
        else:
            self._balancer.paused = what == "paused"

    def _look(self) -> None:
        """See whether the copy still agrees with Redis in number, and whose lease has ended."""
        overview = self._store.run(queries.overview(self._store.keys))
        if overview.created_ms != self._replica.created_ms:
            if self._replica.created_ms:
                logger.warning("monitor: Redis has lost its data, waiting one lease for nodes to tell what they run")
            self._replica.load()
            self._start_anew()
        if (overview.specs, overview.entries) != self._replica.counts:
            # What is still on its way through the journal explains a difference, and is read next.
            behind = self._replica.follow(block_ms=0)
            self._take(behind)
            if not behind.entries:
                self._replica.load()
                self._start_anew()
        self._balancer.paused = overview.paused
        self._look_at = self._watch.heed(overview)

    # Acting

    def _act(self) -> None:
        if not self._watch.caution.over:
            return
        if self._nodes_changed:
            # Once, however many there were: after a fail-over every node tells of itself.
            self._nodes_changed = False
            self._planner.nodes_changed()
            self._dirty |= self._planner.needing_action()
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, set()
        plan = self._planner.plan(dirty)
        for node in plan.sweep:
            self._watch.sweep(node)
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
                        self._balancer.done(name)
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
                self._replica.load_nodes()
                self._take(Changes(nodes=True))
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
        items = [Assignment(name, token) for name, token in zip(names, done.tokens, strict=True) if token]
        if row is None or not items:
            return
        # One message for one generation: a node that has seen a generation has seen all of it.
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


def _batches(items: list[tuple[DaemonName, str]]) -> Iterable[list[tuple[DaemonName, str]]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
