"""Monitors of the model: the complete monitor of the product, under an epoch that the model campaigns for."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, NodeName
from celery_daemons.errors import Fenced, StoreUnavailable
from celery_daemons.launcher import Registry
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.monitor.leases import LeaseWatcher
from celery_daemons.monitor.loop import Monitor
from celery_daemons.monitor.main import build_monitor
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.settings import Settings
from celery_daemons.store import book, journal, lease, queries
from celery_daemons.store.script import ScriptCall
from celery_daemons.wire.spawn_task import SpawnTask
from tests.unit.protocol import audits
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.config import SETTINGS
from tests.unit.protocol.world import TTL_MS, Audit, Fate, Flight, ModelPin, T, World, must


class _MonitorStore:
    """A monitor's way to the server: every verb is audited, and another server than the accepted one is refused."""

    def __init__(self, world: World, epoch: Epoch) -> None:
        self._world = world
        self._epoch = epoch
        self.keys = world.keys
        self.pin = ModelPin(world)

    def run(self, call: ScriptCall[T]) -> T:
        """Run one verb."""
        self._check_server()
        if call.verb in ("overview", "note", "scanned", "summary"):
            return self._world.ask(call)
        return self._world.ask(call, audits.both(audits.of_leader(self._epoch, call.verb), *self._audits_of(call)))

    def read(self, query: Callable[[Any], T]) -> T:
        """Run plain commands."""
        self._check_server()
        return self._world.store.read(query)

    def now_ms(self) -> int:
        """Return the time on the server's clock."""
        return self._world.server_now // 1000

    def _check_server(self) -> None:
        if self.pin.server != self._world.server:
            raise StoreUnavailable("another server")

    def _audits_of(self, call: ScriptCall[Any]) -> list[Audit]:
        match call.verb:
            case "assign":
                return [audits.of_assign(self._world, call)]
            case "sweep":
                return [audits.of_sweep(self._world, str(call.args[1]))]
            case _:
                return []


class ModelBroker:
    """Takes spawn tasks; the model decides the fate of each."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: The fates of the next messages; without an entry, a message is delivered at once.
        self.fates: deque[Fate] = deque()
        #: Messages since the fates were set.
        self.sent = 0

    def send(self, _queue: str, task: SpawnTask) -> None:
        """Deliver a spawn task at once, later, or never."""
        fate = self.fates.popleft() if self.fates else "prompt"
        self.sent += 1
        agents = [agent for agent in self._world.agents if agent.node == task.node and agent.alive]
        if fate == "lost" or task.campaign or not agents:
            return
        agent = agents[-1]
        if fate == "prompt":
            self._deliver(agent, task)
        else:
            self._world.flights.append(Flight(agent, partial(self._deliver, agent, task)))

    def flush(self, _within: float) -> None:
        """Return at once: nothing waits."""

    def delete_queues(self, *_: Any) -> None:
        """Do nothing: the model has no queues."""

    @staticmethod
    def _deliver(agent: ModelAgent, task: SpawnTask) -> None:
        agent.receive(task.incarnation, task.assigned, task.recalled)


class ModelMonitor:
    """A candidate; paused between any two steps, a monitor continues with the epoch that it once had."""

    def __init__(
        self, world: World, name: str, *, settings: Settings = SETTINGS, witness: ClusterWitness | None = None
    ) -> None:
        """``witness`` is what the agent of a monitor without a worker has seen; else, the agent is a new one."""
        self.world = world
        self.name = NodeName(name)
        #: The number of steps of the server's clock that had happened when this monitor last measured it.
        self.measured = 0
        self._settings = settings
        self._witness = witness
        self.epoch: Epoch | None = None
        self.paused = False
        self._monitor: Monitor | None = None
        self._hold_off = HoldOff(settings.longest_lease, self._clock)
        self._watcher = LeaseWatcher(
            reconcile_interval=settings.reconcile_interval, hold_off=self._hold_off, clock=self._clock
        )
        self._broker = ModelBroker(world)

    def campaign(self) -> None:
        """Renew the epoch, or run for a new one; the agent of a monitor without a worker reads the leases first."""
        if self._witness is not None:
            self._observe(self._witness)
        call = lease.campaign(self.world.keys, self.name, Incarnation("m"), ttl_ms=TTL_MS, epoch=self.epoch)
        before, epoch = self.epoch, self.world.ask(call)
        if epoch is None:
            self._step_down()
            return
        must(epoch >= (before or 0), f"epoch {epoch} after {before}")
        if epoch != before:
            self._lead(epoch)

    def _observe(self, witness: ClusterWitness) -> None:
        sent = self._clock()
        overview = self.world.ask(queries.overview(self.world.keys))
        witness.on_time(overview.now_ms, sent=sent, received=self._clock())
        witness.on_cluster(
            server=self.world.server,
            created_ms=overview.created_ms,
            longest_lease_ms=overview.longest_lease_ms,
            received=self._clock(),
        )

    def resign(self) -> None:
        """Give the epoch back."""
        if self.epoch is not None:
            self.world.ask(lease.resign(self.world.keys, self.epoch, cause="model"))

    def turn(self, *fates: Fate) -> None:
        """Check, decide and act once, on what was read before; spawn tasks have these fates."""
        self._broker.fates, self._broker.sent = deque(fates), 0
        self._run(Monitor.turn)
        self.measured = self.world.clock_steps

    def follow(self) -> None:
        """Read what has changed."""
        self._run(lambda monitor: monitor.follow(block_ms=0))

    def lead(self, *fates: Fate) -> bool:
        """Read what has changed and act on it; return whether a message had the first of these fates."""
        self.follow()
        self.turn(*fates)
        return self._broker.sent > 0

    def unread(self) -> list[tuple[str, str | None, list[str]]]:
        """Return what the monitor has yet to read: the event, the node and the daemons of each change."""
        if self._monitor is None:
            return []
        entries = journal.follow(self.world.store, self._monitor._replica.position, block_ms=0, count=1000)
        return [(entry.event, entry.node, [str(name) for name, *_ in entry.items]) for entry in entries]

    @property
    def may_act(self) -> bool:
        """Return whether a monitor that checks the leases now may sweep."""
        if self.epoch is None:
            return False
        overview = self.world.ask(queries.overview(self.world.keys))
        self._watcher.check(overview, server=self.world.server)
        return self._hold_off.may_sweep

    def confirm_server(self) -> None:
        """Confirm the server if the leases on it can be trusted, and do nothing else: a story decides what happens."""
        if self.epoch is not None:
            overview = self.world.ask(queries.overview(self.world.keys))
            server = self._watcher.check(overview, server=self.world.server).confirm_server
            if server is not None:
                self._as_leader(lease.confirm_server(self.world.keys, self.epoch, server))

    # Single actions that a monitor with an old view of the cluster might carry out

    def assign(self, name: DaemonName, node: NodeName) -> None:
        """Assign a daemon to a node."""
        record = self.world.contents().nodes.get(node)
        if self.epoch is not None and record is not None:
            incarnation = Incarnation(record["incarnation"])
            call = book.assign(self.world.keys, self.epoch, node, incarnation, [(name, "model")])
            self._as_leader(call, audits.of_assign(self.world, call))

    def recall(self, name: DaemonName) -> None:
        """Recall a daemon from its node."""
        node = self.world.contents().book.get(name, {}).get("node")
        if self.epoch is not None and node:
            self._as_leader(book.recall(self.world.keys, self.epoch, NodeName(node), [(name, "model")]))

    def sweep(self, node: NodeName) -> None:
        """Free what a node left behind, or what its lease held that has ended by Redis's clock."""
        if self.epoch is not None:
            end = self.world.contents().leases.get(node, 0)
            ended_ms = end if end * 1000 <= self.world.server_now else 0
            call = book.sweep(self.world.keys, self.epoch, node, limit=1, ended_ms=ended_ms)
            self._as_leader(call, audits.of_sweep(self.world, node))

    def _as_leader(self, call: ScriptCall[T], *more: Audit) -> T | None:
        assert self.epoch is not None
        try:
            return self.world.ask(call, audits.both(audits.of_leader(self.epoch, call.verb), *more))
        except Fenced:
            self._step_down()
            return None

    def _lead(self, epoch: Epoch) -> None:
        self.epoch = epoch
        store: Any = _MonitorStore(self.world, epoch)
        broker: Any = self._broker
        self._monitor = build_monitor(
            node=self.name,
            epoch=epoch,
            settings=self._settings,
            registry=Registry(),
            store=store,
            scan_store=store,
            dispatcher=broker,
            report_progress=_report_no_progress,
            clock=self._clock,
            testimony=self._witness.testimony() if self._witness is not None else None,
        )

    def _clock(self) -> float:
        return self.world.now / 1e6

    def _step_down(self) -> None:
        self.epoch, self._monitor = None, None

    def _run(self, step: Callable[[Monitor], object]) -> None:
        if self._monitor is None:
            return
        try:
            step(self._monitor)
        except Fenced:
            self._step_down()
        except StoreUnavailable:
            self._monitor.store_failed()


def _report_no_progress() -> None:
    """Report nothing: no agent watches this monitor."""
