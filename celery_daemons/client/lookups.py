"""Read one cluster's state from Redis: each call is one or two round trips, and no worker has to answer."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from celery_daemons.client.blocking import blocking, blocking_iterator
from celery_daemons.client.cluster_io import ClusterIO
from celery_daemons.client.locator import Locator
from celery_daemons.domain import counts
from celery_daemons.domain.names import DaemonName, LauncherName, NodeName, daemon_name
from celery_daemons.domain.records import (
    Address,
    BlockedLoop,
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
    ``problems`` says by node why it can start no daemons, ``warnings`` what should be corrected although it can, and
    ``blocked`` which event loops of its hosts are blocked.
    """

    namespace: str
    leader: Leader | None
    nodes: dict[str, int]
    daemons: dict[str, int]
    scanners: dict[str, ScanRecord]
    launchers: dict[str, dict[str, int]] = field(default_factory=dict)
    rebalance_paused: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, tuple[BlockedLoop, ...]] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)


class AsyncLookups:
    """Queries about a namespace of Redis. Every method may raise StoreUnavailable."""

    def __init__(self, io: ClusterIO, *, vnodes: int) -> None:
        self._io = io
        self._vnodes = vnodes
        self._locator = Locator(io)

    async def locate(self, name: str) -> Address | None:
        """Return a daemon's address, or ``None`` unless the lease of the node is valid.

        One round trip. Raises InvalidName.
        """
        return await self._locator.locate(name)

    async def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """Return addresses by daemon name, without daemons that have no address. A round trip per 1,000 names."""
        return await self._locator.locate_many(names)

    async def nodes(self) -> list[Node]:
        """Return every registered node, sorted by name."""
        return await listing.nodes(self._io)

    async def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> AsyncIterator[DaemonRecord]:
        """Yield every known daemon that matches all given values, unsorted, read a page at a time.

        Raises ConfigurationError for an unknown status.
        """
        if status is not None and status not in tuple(DaemonStatus):
            raise ConfigurationError(f"there is no status {status!r}; a daemon is {', '.join(DaemonStatus)}")
        async for record in listing.records(self._io, node=node, launcher=launcher, status=status):
            yield record

    async def record(self, name: str) -> DaemonRecord | None:
        """Return the record of a daemon, or ``None`` if no spec of that name exists."""
        wanted = daemon_name(name)
        ((spec, row),) = await queries.rows(self._io, [wanted])
        if spec is None:
            return None
        registered = await queries.node_rows(self._io)
        node = registered.get(row.node) if row and row.node else None
        return queries.record(wanted, spec, row, node[0] if node and node[1] > 0 else None)

    async def arguments(self, name: str) -> str | None:
        """Return the encoded arguments of a daemon's spec."""
        ((spec, _),) = await queries.rows(self._io, [daemon_name(name)])
        return spec.arguments if spec else None

    async def rebalance_paused(self) -> bool:
        """Return whether rebalancing is paused."""
        return (await self._io.run(queries.overview(self._io.keys))).paused

    async def trace(self, name: str) -> str | None:
        """Return the traceback of a daemon's last failure, ``None`` if Redis has none."""
        return await queries.trace(self._io, daemon_name(name))

    async def why_there(self, name: str) -> str | None:
        """Return why a daemon was placed on the present node, or ``None`` for a daemon on no node."""
        ((_, row),) = await queries.rows(self._io, [daemon_name(name)])
        return row.why if row is not None and row.node is not None else None

    async def pick_node(self, name: str) -> str | None:
        """Return the node that the hash ring prefers for a name, or ``None`` while no node takes daemons."""
        rows = await queries.node_rows(self._io)
        live = {node: row for node, (row, lease_ms) in rows.items() if lease_ms > 0}
        return preferred_node(daemon_name(name), live, self._vnodes)

    async def leader(self) -> Leader | None:
        """Return the current leader."""
        return await queries.leader(self._io)

    async def now(self) -> float:
        """Return the Unix time in seconds by Redis's clock, the clock of every ``started_at``."""
        seconds, micros = await self._io.read(lambda client: client.time())
        return float(seconds) + float(micros) / 1e6

    async def status(self) -> ClusterStatus:
        """Return a summary of the cluster. One round trip, whose cost does not depend on the number of daemons."""
        found = await self._io.run(summary(self._io.keys))
        nodes = {str(NodeStatus.UP): 0, str(NodeStatus.DRAINING): 0, str(NodeStatus.LOST): 0}
        problems: dict[str, str] = {}
        blocked: dict[str, tuple[BlockedLoop, ...]] = {}
        warnings: dict[str, str] = {}
        for name, (row, lease_ms) in sorted(found.nodes.items()):
            node = queries.node(name, row, lease_ms, daemons=0)
            nodes[node.status] += 1
            if node.warning is not None:
                warnings[node.name] = node.warning
            if node.problem is not None:
                problems[node.name] = node.problem
            if node.blocked:
                blocked[node.name] = node.blocked
        launchers = counts.by_launcher(found.counts, found.live)
        return ClusterStatus(
            namespace=self._io.keys.namespace,
            leader=found.leader,
            nodes=nodes,
            daemons=counts.total(launchers.values()),
            launchers=launchers,
            scanners=found.scans_as(ScanRecord),
            rebalance_paused=found.paused,
            problems=problems,
            blocked=blocked,
            warnings=warnings,
        )

    async def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """Return the last entries of the journal, oldest first."""
        return await journal.newest(self._io, last)

    async def follow_events(self, after: str | None = None) -> AsyncIterator[JournalEntry]:
        """Yield new journal entries without end, beginning after entry id ``after`` if given."""
        position = after or await journal.last_id(self._io)
        while True:
            for entry in await journal.follow(self._io.patient, position, block_ms=1000):
                position = entry.id
                yield entry

    async def why_not_scanned(self, launcher: str | None) -> str | None:
        """Return why the monitor does not run the scanner of a launcher, or all scanners; ``None`` if scans run."""
        leader = await self.leader()
        nodes = {name: row for name, (row, _) in (await queries.node_rows(self._io)).items()}
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

    async def why_not(self, name: str) -> str:
        """Return why a daemon does not run, with the remedy, as a clause for an error message."""
        record = await self.record(name)
        if record is None:
            return "it is not known: no spec of that name exists"
        if record.desired is Desired.STOPPED:
            return f"it is stopped; `celery -A … daemons start {name}` starts it"
        if all(node.status is NodeStatus.LOST for node in await self.nodes()):
            return "no node is up; start a worker with `celery -A … worker`"
        if await self.leader() is None:
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


class Lookups:
    """The queries of :class:`AsyncLookups`, each of which blocks until Redis has answered."""

    def __init__(self, calls: AsyncLookups) -> None:
        self.calls = calls

    locate = blocking(AsyncLookups.locate)
    locate_many = blocking(AsyncLookups.locate_many)
    nodes = blocking(AsyncLookups.nodes)
    list = blocking_iterator(AsyncLookups.list)
    record = blocking(AsyncLookups.record)
    arguments = blocking(AsyncLookups.arguments)
    rebalance_paused = blocking(AsyncLookups.rebalance_paused)
    trace = blocking(AsyncLookups.trace)
    why_there = blocking(AsyncLookups.why_there)
    pick_node = blocking(AsyncLookups.pick_node)
    leader = blocking(AsyncLookups.leader)
    now = blocking(AsyncLookups.now)
    status = blocking(AsyncLookups.status)
    events = blocking(AsyncLookups.events)
    follow_events = blocking_iterator(AsyncLookups.follow_events)
    why_not_scanned = blocking(AsyncLookups.why_not_scanned)
    why_not = blocking(AsyncLookups.why_not)


def preferred_node(name: DaemonName, nodes: dict[NodeName, NodeRow], vnodes: int) -> str | None:
    """Return the first node on the hash ring for a name among the nodes that take daemons."""
    weights = {node: row.weight for node, row in nodes.items() if row.takes_daemons}
    return next(Ring(weights, vnodes=vnodes).preference(name), None)
