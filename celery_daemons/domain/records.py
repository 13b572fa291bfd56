"""The records of the address book, the specs and the journal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus

#: Stands for unknown names; no name contains this character.
_UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a daemon runs, valid while the lease of the node runs.

    ``queue`` is the node's own task queue, ``None`` if the broker does not allow one, ``host`` the machine and ``pid``
    the process that runs the daemon (0 until the daemon starts). ``started_at`` is in Unix seconds by Redis's clock,
    0.0 until the daemon runs.
    """

    name: DaemonName
    launcher: LauncherName
    node: NodeName
    incarnation: Incarnation
    token: Token
    status: DaemonStatus
    queue: str | None
    host: str
    pid: int
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedLoop:
    """A host process whose event loop is blocked, so that none of its coroutine daemons makes progress.

    ``by`` is the daemon that blocks the loop, ``None`` for code outside of daemons. ``since`` is in Unix seconds by
    Redis's clock.
    """

    pid: int
    by: DaemonName | None
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A worker that is registered in the address book; ``lease_ms`` is the time left of the lease.

    ``queue`` is ``None`` if the broker does not allow the node a task queue of its own. ``problem`` is why the node can
    start no daemons, ``None`` if it can. ``warning`` is what should be corrected although daemons run as usual,
    ``None`` for nothing. ``blocked`` has the hosts whose event loop is blocked.
    """

    name: NodeName
    incarnation: Incarnation
    status: NodeStatus
    queue: str | None
    host: str
    pid: int
    weight: float
    labels: tuple[str, ...]
    launchers: tuple[str, ...]
    daemons: int
    started_at: float
    lease_ms: int
    problem: str | None = None
    blocked: tuple[BlockedLoop, ...] = ()
    warning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRecord:
    """A daemon's address, restart count, last error and desired state.

    Fields of the address are ``None`` while the daemon is on no live node. ``blocked`` is set while a daemon blocks the
    event loop of the daemon's host.
    """

    name: DaemonName
    launcher: LauncherName
    status: DaemonStatus
    node: NodeName | None
    incarnation: Incarnation | None
    token: Token | None
    queue: str | None
    host: str | None
    pid: int | None
    started_at: float | None
    restarts: int
    error: str | None
    desired: Desired
    blocked: BlockedLoop | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSpec:
    """A daemon that should run: the name, the launcher, and the arguments for the launcher.

    ``problem`` is why a spec that a recovery scanner made cannot be recorded, for the report of the scan.
    """

    name: DaemonName
    launcher: LauncherName
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRow:
    """A spec as stored in Redis.

    ``arguments`` is the encoded call. A new ``version`` means that a running daemon must be stopped and started again.
    ``target`` is the node on which the next start of this version should be, ``avoid`` a node on which it should not.
    """

    launcher: LauncherName
    arguments: str
    desired: Desired
    version: str
    target: NodeName | None = None
    avoid: NodeName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookRow:
    """A daemon's entry in the address book, as stored in Redis; ``node`` is ``None`` while no node holds the daemon.

    ``why`` is the reason for the placement, ``avoid`` a node that has given up on the daemon. ``unwanted`` is set while
    the daemon is on a node although its spec is stopped or was deleted.
    """

    status: DaemonStatus
    token: Token
    launcher: LauncherName
    node: NodeName | None = None
    incarnation: Incarnation | None = None
    version: str = ""
    pid: int = 0
    started_ms: int = 0
    restarts: int = 0
    error: str | None = None
    why: str | None = None
    avoid: NodeName | None = None
    unwanted: Literal["stopped", "forgotten"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A node as stored in Redis; labels and launchers are joined by commas, which no name contains.

    The names of queues are empty where the broker does not allow the node a queue. ``candidate`` says whether the node
    runs for election as monitor. ``needs`` has the labels and weights that its launchers require, as :func:`needs_text`
    writes them, and ``scanners`` the launchers that have a recovery scanner. ``problem`` is why the node cannot start
    processes, empty if it can: a node with a problem keeps what runs there and takes nothing else. ``warning`` is what
    should be corrected although daemons run as usual. ``blocked`` has the hosts whose event loop is blocked:
    ``pid|since_ms|daemon``, joined by commas.
    """

    incarnation: Incarnation
    status: NodeStatus
    queue: str
    spawn_queue: str
    host: str
    pid: int
    weight: float
    labels: str
    launchers: str
    candidate: bool = True
    needs: str = ""
    scanners: str = _UNKNOWN
    started_ms: int = 0
    problem: str = ""
    warning: str = ""
    blocked: str = ""

    @property
    def blocked_loops(self) -> tuple[BlockedLoop, ...]:
        """Return the blocked event loops, without those that cannot be read."""
        found = []
        for part in filter(None, self.blocked.split(",")):
            pid, _, rest = part.partition("|")
            since, _, by = rest.partition("|")
            if pid.isdecimal() and since.isdecimal():
                found.append(BlockedLoop(pid=int(pid), by=DaemonName(by) if by else None, since=int(since) / 1000))
        return tuple(found)

    def blocked_loop(self, pid: int) -> BlockedLoop | None:
        """Return the event loop of a process if that loop is blocked."""
        return next((loop for loop in self.blocked_loops if loop.pid == pid), None) if self.blocked else None

    @property
    def takes_daemons(self) -> bool:
        """Return whether the node is up, does not drain and can start processes."""
        return self.status is NodeStatus.UP and not self.problem

    @property
    def label_set(self) -> frozenset[str]:
        """Return the node's labels."""
        return frozenset(self.labels.split(",")) if self.labels else frozenset()

    @property
    def launcher_set(self) -> frozenset[str]:
        """Return the launchers that the node has registered."""
        return frozenset(self.launchers.split(",")) if self.launchers else frozenset()

    @property
    def scanner_set(self) -> frozenset[str] | None:
        """Return the launchers that have a recovery scanner on the node; ``None`` if the node does not say."""
        if self.scanners == _UNKNOWN:
            return None
        return frozenset(self.scanners.split(",")) if self.scanners else frozenset()


def missing_scanners(own: frozenset[str], nodes: Mapping[NodeName, NodeRow]) -> dict[LauncherName, NodeName]:
    """Return the launchers that have a scanner on some node and are not in ``own``, each with such a node."""
    return {
        LauncherName(launcher): node
        for node, row in sorted(nodes.items())
        for launcher in sorted((row.scanner_set or frozenset()) - own)
    }


#: What a launcher requires of a node: labels, and the weight of one daemon.
Needs = tuple[tuple[str, ...], float]


def needs_text(launchers: Mapping[str, Needs]) -> str:
    """Encode labels and weights as ``gpu=2|arm|cuda,…``; launchers without labels and with weight 1 are left out."""
    return ",".join(
        "|".join((f"{name}={weight:g}", *labels))
        for name, (labels, weight) in sorted(launchers.items())
        if labels or weight != 1
    )


def read_needs(text: str) -> dict[LauncherName, Needs]:
    """Decode the text of :func:`needs_text`, without the parts that cannot be read."""
    needs: dict[LauncherName, Needs] = {}
    for part in filter(None, text.split(",")):
        head, *labels = part.split("|")
        name, _, weight = head.partition("=")
        try:
            needs[LauncherName(name)] = tuple(labels), float(weight)
        except ValueError:
            continue
    return needs


def needs_by_launcher(nodes: Mapping[NodeName, NodeRow]) -> dict[LauncherName, Needs]:
    """Return what each launcher requires; if nodes disagree, the node with the last name in sort order decides."""
    return {launcher: needs for _, row in sorted(nodes.items()) for launcher, needs in read_needs(row.needs).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The node that holds the monitor's lease, and the epoch of that lease."""

    node: NodeName
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A change in the journal: a batch of ``(name, token, cause)``, or an event of a node.

    ``actor`` is the person or process that asked for the change, ``None`` for what a node reports of itself.
    """

    id: str
    at_ms: int
    event: str
    node: str | None
    epoch: int | None
    cause: str | None
    items: tuple[tuple[str, ...], ...]
    actor: str | None = None
