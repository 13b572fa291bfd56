"""The records that the address book, the specs and the journal are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a daemon runs, as far as its node's lease vouches for it.

    ``queue`` is the node's own task queue, ``host`` the machine, ``pid`` the process that runs the daemon (0 until it
    starts) and ``started_at`` Unix seconds by Redis's clock (0.0 until it runs).
    """

    name: DaemonName
    launcher: LauncherName
    node: NodeName
    incarnation: Incarnation
    token: Token
    status: DaemonStatus
    queue: str
    host: str
    pid: int
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One worker that takes part, as the address book knows it; ``lease_ms`` is what is left of its lease."""

    name: NodeName
    incarnation: Incarnation
    status: NodeStatus
    queue: str
    host: str
    pid: int
    weight: float
    labels: tuple[str, ...]
    launchers: tuple[str, ...]
    daemons: int
    started_at: float
    lease_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRecord:
    """What is known of a daemon: its address, if it has one, how often it was restarted, and what is wanted of it.

    Fields of the address are ``None`` while the daemon is on no live node.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSpec:
    """The wish that a daemon run: its name, its launcher and what the launcher is called with."""

    name: DaemonName
    launcher: LauncherName
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRow:
    """A spec as Redis holds it.

    ``arguments`` is the encoded call; ``version`` changes whenever a running daemon has to be replaced by a new start.
    ``target`` and ``avoid`` are the nodes where the next start of this version shall be, or shall not.
    """

    launcher: LauncherName
    arguments: str
    desired: Desired
    version: str
    target: NodeName | None = None
    avoid: NodeName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookRow:
    """A daemon's entry in the address book as Redis holds it; without a node it is on none.

    ``why`` is the reason of its placement; ``avoid`` a node that has given up on it.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A node as Redis holds it; labels and launchers are joined by commas, which no name contains.

    ``candidate`` says whether it runs for election; ``needs`` is what its launchers ask of a node, as
    :func:`needs_text` writes it.
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
    started_ms: int = 0

    @property
    def label_set(self) -> frozenset[str]:
        """The node's labels."""
        return frozenset(self.labels.split(",")) if self.labels else frozenset()

    @property
    def launcher_set(self) -> frozenset[str]:
        """The launchers that the node has registered."""
        return frozenset(self.launchers.split(",")) if self.launchers else frozenset()


Needs = tuple[tuple[str, ...], float]


def needs_text(launchers: Mapping[str, Needs]) -> str:
    """The labels and the weight of launchers, but for those without labels that weigh one: ``gpu=2|arm|cuda,…``."""
    return ",".join(
        "|".join((f"{name}={weight:g}", *labels))
        for name, (labels, weight) in sorted(launchers.items())
        if labels or weight != 1
    )


def read_needs(text: str) -> dict[LauncherName, Needs]:
    """Read what :func:`needs_text` wrote; what cannot be read asks for nothing."""
    found: dict[LauncherName, Needs] = {}
    for part in filter(None, text.split(",")):
        head, *labels = part.split("|")
        name, _, weight = head.partition("=")
        try:
            found[LauncherName(name)] = tuple(labels), float(weight)
        except ValueError:
            continue
    return found


def needs_by_launcher(nodes: Mapping[NodeName, NodeRow]) -> dict[LauncherName, Needs]:
    """What launchers ask for, as the nodes that have them tell; where they differ, the last by name counts."""
    return {launcher: needs for _, row in sorted(nodes.items()) for launcher, needs in read_needs(row.needs).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who holds the monitor's lease, and under which epoch."""

    node: NodeName
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One change as the journal holds it: a batch of ``(name, token, cause)``, or something that befell a node."""

    id: str
    at_ms: int
    event: str
    node: str | None
    epoch: int | None
    cause: str | None
    items: tuple[tuple[str, ...], ...]
