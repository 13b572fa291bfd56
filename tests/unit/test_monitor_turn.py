"""Turns of the whole monitor against the real scripts: in-memory Redis, virtual time, no broker, no process."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fakeredis
import pytest

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus
from celery_daemons.errors import LeaseLost, StoreUnavailable
from celery_daemons.launcher import Registry
from celery_daemons.monitor.loop import Monitor
from celery_daemons.monitor.main import build_monitor
from celery_daemons.settings import Settings
from celery_daemons.store import lease, queries, specs
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from celery_daemons.store.server_pin import ServerChanged
from celery_daemons.wire.spawn_task import SpawnTask
from tests.unit.protocol.clock import Clock, virtual_time

T = TypeVar("T")

A, B = NodeName("a"), NodeName("b")
X = DaemonName("x")
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

    def run(self, call: ScriptCall[T]) -> T:
        """Check the server's run id, then run a script."""
        self._check_server()
        return super().run(call)

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
        for name in (A, B):
            self.store.run(lease.join(self.keys, name, self.record(name), ttl_ms=int(LEASE * 1000)))
        self.store.run(specs.record(self.keys, [(X, TAIL, "[[],{}]")], mode="spawn"))

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

    def elect(self, name: NodeName) -> Monitor:
        """Return a monitor with a new epoch."""
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
            clock=lambda: self.clock.now / 1_000_000,
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
            for name in self.alive:
                self.store.run(lease.beat(self.keys, name, Incarnation(f"{name}1"), ttl_ms=int(LEASE * 1000)))
            if self.renewed is not None:
                self.campaign(*self.renewed)

    def confirmed_server(self) -> str:
        """Return the run id of the server that a monitor last confirmed."""
        return self.store.run(queries.overview(self.keys)).server

    def home(self) -> NodeName | None:
        """Return the node that the address book assigns the daemon to."""
        ((_, row),) = queries.rows(self.store, [X])
        return row.node if row is not None else None


def turn(monitor: Monitor) -> None:
    """Let a monitor act once and read what its acts have changed."""
    monitor.turn()
    monitor.follow(block_ms=0)


@pytest.fixture
def cluster() -> Iterator[ClusterHarness]:
    """Two nodes in a cluster that is older than a lease, and one wanted daemon."""
    with virtual_time() as clock:
        cluster = ClusterHarness(clock)
        cluster.advance(2 * LEASE)
        yield cluster


def test_a_wanted_daemon_is_assigned_and_its_node_notified(cluster: ClusterHarness) -> None:
    turn(cluster.elect(A))

    (task,) = cluster.dispatcher.tasks
    assert task.node == cluster.home()
    assert [item.name for item in task.assigned] == [X]


def test_a_second_turn_changes_nothing(cluster: ClusterHarness) -> None:
    monitor = cluster.elect(A)
    turn(monitor)
    turn(monitor)

    assert len(cluster.dispatcher.tasks) == 1


def test_a_new_cluster_is_given_one_lease_before_the_first_assignment() -> None:
    with virtual_time() as clock:
        cluster = ClusterHarness(clock)
        monitor = cluster.elect(A)

        turn(monitor)
        assert cluster.home() is None

        cluster.advance(LEASE)
        turn(monitor)
        assert cluster.home() is not None


def test_a_daemon_of_a_lost_node_is_assigned_to_another_node(cluster: ClusterHarness) -> None:
    # Given
    monitor = cluster.elect(A)
    turn(monitor)
    lost = cluster.home()
    assert lost is not None

    # When
    cluster.alive.remove(lost)
    cluster.advance(LEASE + 1)
    turn(monitor)
    turn(monitor)

    # Then
    assert cluster.home() == ({A, B} - {lost}).pop()


def test_no_daemon_is_assigned_for_one_lease_after_redis_did_not_answer(cluster: ClusterHarness) -> None:
    monitor = cluster.elect(A)
    monitor.store_failed()

    turn(monitor)
    assert cluster.home() is None

    cluster.advance(LEASE)
    turn(monitor)
    assert cluster.home() is not None


def test_a_changed_server_is_confirmed_one_lease_later(cluster: ClusterHarness) -> None:
    """Attacks invariant 5: a promoted replica lacks the last writes, and nodes must register and report first."""
    # Given
    monitor = cluster.elect(A)
    turn(monitor)
    assert cluster.confirmed_server() == "first"

    # When
    cluster.monitor_store.run_id = "second"
    with pytest.raises(StoreUnavailable):
        turn(monitor)
    monitor.store_failed()

    # Then
    turn(monitor)
    assert cluster.confirmed_server() == "first"
    cluster.advance(LEASE)
    turn(monitor)
    assert cluster.confirmed_server() == "second"


def test_a_deposed_monitor_changes_nothing(cluster: ClusterHarness) -> None:
    """Attacks invariant 3: the deposed monitor has read everything and is about to assign."""
    # Given
    deposed = cluster.elect(A)
    cluster.renewed = None
    cluster.advance(LEASE + 1)
    cluster.elect(B)

    # When
    with pytest.raises(LeaseLost):
        turn(deposed)

    # Then
    assert cluster.home() is None
    assert cluster.dispatcher.tasks == []
