"""A cluster of the monitor's unit tests: the real scripts on in-memory Redis, virtual time, no broker, no process."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import fakeredis

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus
from celery_daemons.errors import StoreUnavailable
from celery_daemons.launcher import Registry
from celery_daemons.monitor.loop import Monitor
from celery_daemons.monitor.main import build_monitor
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.settings import Settings
from celery_daemons.store import book, lease, queries, specs
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from celery_daemons.store.server_pin import ServerChanged
from celery_daemons.wire.spawn_task import SpawnTask
from tests.unit.protocol.clock import Clock

T = TypeVar("T")

A, B = NodeName("a"), NodeName("b")
X, Y = DaemonName("x"), DaemonName("y")
TAIL = LauncherName("tail")
LEASE = 3.0


class DispatchRecorder:
    """A dispatcher that keeps what it should send."""

    def __init__(self) -> None:
        self.tasks: list[SpawnTask] = []

    def send(self, _queue: str, task: SpawnTask) -> None:
        """Record a spawn task."""
        self.tasks.append(task)


class PinnedStore(Store):
    """A store whose server may be replaced: calls fail until the new server is accepted."""

    run_id = "first"
    #: The history that the server reports; the double reports none.
    history = ""
    #: Whether the server has another history by the time that the monitor confirms it.
    confirms = True
    #: Whether the server has another history than the confirmed one.
    refuses_assignments = False

    def run(self, call: ScriptCall[T]) -> T:
        """Check the server's run id, then run a script."""
        self._check_server()
        if call.verb == "confirm_server" and not self.confirms:
            return cast("T", False)
        if call.verb == "assign" and self.refuses_assignments:
            return cast("T", book.NotAssigned.SERVER)
        answer = super().run(call)
        return cast("T", replace(answer, history=self.history)) if isinstance(answer, queries.Overview) else answer

    def read(self, query: Callable[[Any], T]) -> T:
        """Check the server's run id, then run plain commands."""
        self._check_server()
        return super().read(query)

    def _check_server(self) -> None:
        try:
            self.pin.check(f"run_id:{self.run_id}")
        except ServerChanged as error:
            raise StoreUnavailable(str(error)) from error


class ClusterHarness:
    """Nodes that renew their leases, and monitors, on one in-memory Redis."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.keys = Keys("turn")
        client = fakeredis.FakeRedis()
        #: The store of the nodes, and the one of the monitors.
        self.store = Store("redis://double", self.keys, client=client)
        self.monitor_store = PinnedStore("redis://double", self.keys, client=client)
        self.dispatcher = DispatchRecorder()
        #: Nodes that renew their leases, and the epoch that its node renews.
        self.alive = {A, B}
        self.renewed: tuple[NodeName, Epoch] | None = None
        self.leases = {A: LEASE, B: LEASE}
        #: How far Redis's clock was set forward.
        self.server_ahead = 0.0
        #: What an agent has seen that was there from the beginning.
        self.witness = self.new_witness()
        for name in (A, B):
            self.join(name)
        self.store.run(specs.record(self.keys, [(X, TAIL, "[[],{}]")], mode="spawn"))

    def new_witness(self) -> ClusterWitness:
        """Return what an agent knows that has seen nothing yet."""
        return ClusterWitness(settings=Settings(redis_url="", lease_ttl=LEASE), node=A)

    def join(self, name: NodeName) -> None:
        """Let a node join with its lease."""
        ttl_ms = int(self.leases[name] * 1000)
        answer = self.store.run(lease.join(self.keys, name, self.record(name), ttl_ms=ttl_ms, server=self.server))
        assert isinstance(answer, lease.Joined)
        self.observe(self.witness, answer)

    def beat(self, name: NodeName) -> None:
        """Let a node renew its lease."""
        ttl_ms = int(self.leases[name] * 1000)
        answer = self.store.run(lease.beat(self.keys, name, Incarnation(f"{name}1"), ttl_ms=ttl_ms))
        if answer.verdict == "ok":
            self.observe(self.witness, answer)

    def observe(self, witness: ClusterWitness, answer: lease.Joined | lease.Beat) -> None:
        """Let an agent see an answer."""
        witness.on_time(answer.server_ms, sent=self.now, received=self.now)
        witness.on_cluster(
            server=self.server,
            created_ms=answer.created_ms,
            longest_lease_ms=answer.longest_lease_ms,
            received=self.now,
        )

    @property
    def server(self) -> str:
        """Return the run id of the server that answers."""
        return self.monitor_store.run_id

    @staticmethod
    def record(name: NodeName) -> NodeRow:
        """Return the record under which a node registers."""
        return NodeRow(
            incarnation=Incarnation(f"{name}1"),
            status=NodeStatus.UP,
            queue=name,
            spawn_queue=f"{name}.spawn",
            host="test",
            pid=1,
            weight=1.0,
            labels="",
            launchers=TAIL,
        )

    @property
    def now(self) -> float:
        """Return the seconds on the clock of the nodes and monitors, which is never set."""
        return self.clock.now / 1_000_000 - self.server_ahead

    def set_server_clock(self, seconds: float) -> None:
        """Set Redis's clock forward, or back by a negative number."""
        self.clock.now += int(seconds * 1_000_000)
        self.server_ahead += seconds

    def elect(self, name: NodeName, *, witness: ClusterWitness | None = None) -> Monitor:
        """Return a monitor with a new epoch, of an agent that has seen what ``witness`` has, by default everything."""
        epoch = self.campaign(name)
        self.renewed = (name, epoch)
        dispatcher: Any = self.dispatcher
        return build_monitor(
            node=name,
            epoch=epoch,
            settings=Settings(redis_url="", lease_ttl=LEASE),
            registry=Registry(),
            store=self.monitor_store,
            scan_store=self.store,
            dispatcher=dispatcher,
            report_progress=lambda: None,
            clock=lambda: self.now,
            testimony=(witness or self.witness).testimony(),
        )

    def campaign(self, name: NodeName, epoch: Epoch | None = None) -> Epoch:
        """Take or renew the monitor's lease."""
        call = lease.campaign(self.keys, name, Incarnation(f"{name}1"), ttl_ms=int(LEASE * 1000), epoch=epoch)
        granted = self.store.run(call)
        assert granted is not None
        return granted

    def advance(self, seconds: float) -> None:
        """Let time pass in steps of a heartbeat, at each of which leases and the epoch are renewed."""
        step = LEASE / 3
        while seconds > 0:
            self.clock.now += int(min(step, seconds) * 1_000_000)
            seconds -= step
            for name in sorted(self.alive):
                self.beat(name)
            if self.renewed is not None:
                self.campaign(*self.renewed)

    def confirmed_server(self) -> str:
        """Return the run id of the server that a monitor last confirmed."""
        return self.store.run(queries.overview(self.keys)).server

    def registered(self) -> set[NodeName]:
        """Return the nodes that Redis knows."""
        return set(queries.node_rows(self.store))

    def home(self, name: DaemonName = X) -> NodeName | None:
        """Return the node that the address book assigns a daemon to."""
        ((_, row),) = queries.rows(self.store, [name])
        return row.node if row is not None else None


def turn(monitor: Monitor) -> None:
    """Let a monitor act once and read what its acts have changed."""
    monitor.turn()
    monitor.follow(block_ms=0)
