"""One cluster, looked at by a client: every call is a round trip or two, none needs a worker to answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from celery_daemons.client.locator import Locator
from celery_daemons.domain.names import DaemonName, NodeName, daemon_name
from celery_daemons.domain.records import Address, DaemonRecord, JournalEntry, Leader, Node, NodeRow
from celery_daemons.domain.ring import Ring
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.errors import ConfigurationError
from celery_daemons.store import journal, queries
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRecord:
    """How a launcher's recovery scanner last went; ``at_ms`` by Redis's clock."""

    at_ms: int
    took_ms: int
    listed: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """The cluster at a glance; counts are by status. ``rebalance_paused`` until somebody resumes it."""

    namespace: str
    leader: Leader | None
    nodes: dict[str, int]
    daemons: dict[str, int]
    scanners: dict[str, ScanRecord]
    rebalance_paused: bool = False


class Lookups:
    """What one namespace of one Redis says."""

    def __init__(self, url: str, namespace: str, *, vnodes: int) -> None:
        self.store = Store(url, Keys(namespace))
        self._keys = self.store.keys
        self._vnodes = vnodes
        self._locator = Locator(self.store)

    def locate(self, name: str) -> Address | None:
        """Where a daemon is; ``None`` unless the lease of its node runs. One round trip. Raises InvalidName."""
        return self._locator.locate(name)

    def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """The same for many, those found: one round trip per 1,000."""
        return self._locator.locate_many(names)

    def nodes(self) -> list[Node]:
        """Every registered node by name."""
        return queries.nodes(self.store)

    def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> Iterator[DaemonRecord]:
        """Every daemon that is known, in no order, a page at a time; only those that match what is given."""
        if status is not None and status not in tuple(DaemonStatus):
            raise ConfigurationError(f"there is no status {status!r}; a daemon is {', '.join(DaemonStatus)}")
        for record in queries.records(self.store):
            if (
                (node is None or record.node == node)
                and (launcher is None or record.launcher == launcher)
                and (status is None or record.status == status)
            ):
                yield record

    def record(self, name: str) -> DaemonRecord | None:
        """What is known of one daemon."""
        wanted = daemon_name(name)
        ((spec, row),) = queries.rows(self.store, [wanted])
        if spec is None:
            return None
        live = queries.node_rows(self.store)
        node = live.get(row.node) if row and row.node else None
        return queries.record(wanted, spec, row, node[0] if node and node[1] > 0 else None)

    def arguments(self, name: str) -> str | None:
        """The encoded call that a daemon's launcher gets."""
        ((spec, _),) = queries.rows(self.store, [daemon_name(name)])
        return spec.arguments if spec else None

    def rebalance_paused(self) -> bool:
        """Whether the monitor is to move nothing that may stay where it is."""
        return self.store.run(queries.overview(self._keys)).paused

    def trace(self, name: str) -> str | None:
        """The traceback of a daemon's last failure, as far as it is kept."""
        return queries.trace(self.store, daemon_name(name))

    def why_there(self, name: str) -> str | None:
        """Why a daemon is on the node where it is."""
        ((_, row),) = queries.rows(self.store, [daemon_name(name)])
        return row.why if row is not None and row.node is not None else None

    def pick_node(self, name: str) -> str | None:
        """The node that the ring prefers for a name, running or not; ``None`` while no node takes daemons."""
        return preferred(
            daemon_name(name),
            {n: r for n, (r, left) in queries.node_rows(self.store).items() if left > 0},
            self._vnodes,
        )

    def leader(self) -> Leader | None:
        """Who leads now."""
        return queries.leader(self.store)

    def now(self) -> float:
        """Unix seconds by Redis's clock, by which ``started_at`` is told."""
        seconds, micros = self.store.read(lambda client: client.time())
        return float(seconds) + float(micros) / 1e6

    def status(self) -> ClusterStatus:
        """Leader, nodes, daemons by status, scanners."""
        nodes = {str(NodeStatus.UP): 0, str(NodeStatus.DRAINING): 0, str(NodeStatus.LOST): 0}
        for node in self.nodes():
            nodes[node.status] += 1
        daemons = {"desired": 0, **{str(status): 0 for status in DaemonStatus}}
        for record in queries.records(self.store):
            daemons["desired"] += record.desired is Desired.RUNNING
            daemons[record.status] += 1
        return ClusterStatus(
            namespace=self._keys.namespace,
            leader=self.leader(),
            nodes=nodes,
            daemons=daemons,
            scanners=queries.scans(self.store, ScanRecord),
            rebalance_paused=self.rebalance_paused(),
        )

    def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """The last entries of the journal, oldest first."""
        return journal.newest(self.store, last)

    def follow_events(self, after: str | None = None) -> Iterator[JournalEntry]:
        """What happens from now on, or after an entry's id; never ends."""
        position = after or journal.last_id(self.store)
        while True:
            for entry in journal.follow(self.store, position, block_ms=1000):
                position = entry.id
                yield entry

    def why_not(self, name: str) -> str:
        """Why a daemon does not run, and what to do about it."""
        record = self.record(name)
        if record is None:
            return "it is not known (any more): nothing wants it to run"
        if record.desired is Desired.STOPPED:
            return f"it is stopped; `celery -A … daemons start {name}` starts it"
        nodes = [node for node in self.nodes() if node.status is not NodeStatus.LOST]
        if not nodes:
            return "no node is up; start a worker with `celery -A … worker`"
        if self.leader() is None:
            return (
                "no monitor is elected; look for its error in the workers' logs, "
                "or start one with `celery -A … daemons monitor`"
            )
        error = f" ({record.error})" if record.error else ""
        if record.status is DaemonStatus.PENDING:
            return (
                f"the monitor has not placed it yet{error}; "
                "it gives a new address book, or another Redis, one lease first"
            )
        return f"its status is {record.status}{error}"

    def close(self) -> None:
        """Close the connections."""
        self.store.close()


def preferred(name: DaemonName, nodes: dict[NodeName, NodeRow], vnodes: int) -> str | None:
    """The first node on the ring for a name among those that take daemons."""
    weights = {node: row.weight for node, row in nodes.items() if row.status is NodeStatus.UP}
    return next(Ring(weights, vnodes=vnodes).preference(name), None)
