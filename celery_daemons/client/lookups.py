"""Read one cluster's state from Redis: each call is one or two round trips, and no worker has to answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from celery_daemons.client.locator import Locator
from celery_daemons.domain import counts
from celery_daemons.domain.names import DaemonName, LauncherName, NodeName, daemon_name
from celery_daemons.domain.records import (
    Address,
    DaemonRecord,
    JournalEntry,
    Leader,
    Node,
    NodeRow,
    missing_scanners,
)
from celery_daemons.domain.ring import Ring
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.errors import ConfigurationError
from celery_daemons.store import journal, listing, queries
from celery_daemons.store.connection import Store
from celery_daemons.store.summary import summary


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRecord:
    """The last run of a launcher's recovery scanner.

    ``at_ms`` is the Unix time in milliseconds by Redis's clock, ``took_ms`` the duration, ``listed`` the number of
    specs, and ``error`` the reason of a failure.
    """

    at_ms: int
    took_ms: int
    listed: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """A summary of the cluster.

    ``nodes`` and ``daemons`` are numbers by status; ``daemons["desired"]`` is the number of daemons that should run.
    ``launchers`` has the same numbers as ``daemons`` by launcher; a daemon counts for the launcher that it runs.
    ``scanners`` has the last scan by launcher. ``leader`` is ``None`` while no monitor is elected.
    ``problems`` says by node why it can start no daemons.
    """

    namespace: str
    leader: Leader | None
    nodes: dict[str, int]
    daemons: dict[str, int]
    scanners: dict[str, ScanRecord]
    launchers: dict[str, dict[str, int]] = field(default_factory=dict)
    rebalance_paused: bool = False
    problems: dict[str, str] = field(default_factory=dict)


class Lookups:
    """Queries about a namespace of Redis. Every method may raise StoreUnavailable."""

    def __init__(self, store: Store, *, vnodes: int) -> None:
        self._store = store
        self._vnodes = vnodes
        self._locator = Locator(store)

    def locate(self, name: str) -> Address | None:
        """Return a daemon's address, or ``None`` unless the lease of the node is valid.

        One round trip. Raises InvalidName.
        """
        return self._locator.locate(name)

    def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """Return addresses by daemon name, without daemons that have no address. A round trip per 1,000 names."""
        return self._locator.locate_many(names)

    def nodes(self) -> list[Node]:
        """Return every registered node, sorted by name."""
        return queries.nodes(self._store)

    def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> Iterator[DaemonRecord]:
        """Yield every known daemon that matches all given values, unsorted, read a page at a time.

        Raises ConfigurationError for an unknown status.
        """
        if status is not None and status not in tuple(DaemonStatus):
            raise ConfigurationError(f"there is no status {status!r}; a daemon is {', '.join(DaemonStatus)}")
        yield from listing.records(self._store, node=node, launcher=launcher, status=status)

    def record(self, name: str) -> DaemonRecord | None:
        """Return the record of a daemon, or ``None`` if no spec of that name exists."""
        wanted = daemon_name(name)
        ((spec, row),) = queries.rows(self._store, [wanted])
        if spec is None:
            return None
        registered = queries.node_rows(self._store)
        node = registered.get(row.node) if row and row.node else None
        return queries.record(wanted, spec, row, node[0] if node and node[1] > 0 else None)

    def arguments(self, name: str) -> str | None:
        """Return the encoded arguments of a daemon's spec."""
        ((spec, _),) = queries.rows(self._store, [daemon_name(name)])
        return spec.arguments if spec else None

    def rebalance_paused(self) -> bool:
        """Return whether rebalancing is paused."""
        return self._store.run(queries.overview(self._store.keys)).paused

    def trace(self, name: str) -> str | None:
        """Return the traceback of a daemon's last failure, ``None`` if Redis has none."""
        return queries.trace(self._store, daemon_name(name))

    def why_there(self, name: str) -> str | None:
        """Return why a daemon was placed on the present node, or ``None`` for a daemon on no node."""
        ((_, row),) = queries.rows(self._store, [daemon_name(name)])
        return row.why if row is not None and row.node is not None else None

    def pick_node(self, name: str) -> str | None:
        """Return the node that the hash ring prefers for a name, or ``None`` while no node takes daemons."""
        rows = queries.node_rows(self._store)
        live = {node: row for node, (row, lease_ms) in rows.items() if lease_ms > 0}
        return preferred_node(daemon_name(name), live, self._vnodes)

    def leader(self) -> Leader | None:
        """Return the current leader."""
        return queries.leader(self._store)

    def now(self) -> float:
        """Return the Unix time in seconds by Redis's clock, the clock of every ``started_at``."""
        seconds, micros = self._store.read(lambda client: client.time())
        return float(seconds) + float(micros) / 1e6

    def status(self) -> ClusterStatus:
        """Return a summary of the cluster. One round trip, whose cost does not depend on the number of daemons."""
        found = self._store.run(summary(self._store.keys))
        nodes = {str(NodeStatus.UP): 0, str(NodeStatus.DRAINING): 0, str(NodeStatus.LOST): 0}
        problems: dict[str, str] = {}
        for name, (row, lease_ms) in sorted(found.nodes.items()):
            nodes[row.status if lease_ms > 0 else NodeStatus.LOST] += 1
            if row.problem:
                problems[name] = row.problem
        launchers = counts.by_launcher(found.counts, found.live)
        return ClusterStatus(
            namespace=self._store.keys.namespace,
            leader=found.leader,
            nodes=nodes,
            daemons=counts.total(launchers.values()),
            launchers=launchers,
            scanners=found.scans_as(ScanRecord),
            rebalance_paused=found.paused,
            problems=problems,
        )

    def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """Return the last entries of the journal, oldest first."""
        return journal.newest(self._store, last)

    def follow_events(self, after: str | None = None) -> Iterator[JournalEntry]:
        """Yield new journal entries without end, beginning after entry id ``after`` if given."""
        position = after or journal.last_id(self._store)
        while True:
            for entry in journal.follow(self._store, position, block_ms=1000):
                position = entry.id
                yield entry

    def why_not_scanned(self, launcher: str | None) -> str | None:
        """Return why the monitor does not run the scanner of a launcher, or all scanners; ``None`` if scans run."""
        leader, nodes = self.leader(), {name: row for name, (row, _) in queries.node_rows(self._store).items()}
        own = nodes[leader.node].scanner_set if leader is not None and leader.node in nodes else None
        if leader is None or own is None:
            return None
        missing = sorted(missing_scanners(own, nodes))
        if launcher is not None:
            missing = [LauncherName(launcher)] if launcher not in own else []
        if not missing:
            return None
        return (
            f"the monitor on node {leader.node} has no recovery scanner for {', '.join(missing)}; use the same app on "
            "all nodes, or another daemons_namespace for each app"
        )

    def why_not(self, name: str) -> str:
        """Return why a daemon does not run, with the remedy, as a clause for an error message."""
        record = self.record(name)
        if record is None:
            return "it is not known: no spec of that name exists"
        if record.desired is Desired.STOPPED:
            return f"it is stopped; `celery -A … daemons start {name}` starts it"
        if all(node.status is NodeStatus.LOST for node in self.nodes()):
            return "no node is up; start a worker with `celery -A … worker`"
        if self.leader() is None:
            return (
                "no monitor is elected; check the workers' logs for errors, "
                "or start a candidate with `celery -A … daemons monitor`"
            )
        error = f" ({record.error})" if record.error else ""
        if record.status is DaemonStatus.PENDING:
            return (
                f"the monitor has not placed it yet{error}; "
                "after a new or changed Redis the monitor waits one lease (daemons_lease_ttl)"
            )
        return f"its status is {record.status}{error}"


def preferred_node(name: DaemonName, nodes: dict[NodeName, NodeRow], vnodes: int) -> str | None:
    """Return the first node on the hash ring for a name among the nodes that take daemons."""
    weights = {node: row.weight for node, row in nodes.items() if row.takes_daemons}
    return next(Ring(weights, vnodes=vnodes).preference(name), None)
