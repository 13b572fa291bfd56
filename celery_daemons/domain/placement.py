"""Which node a daemon belongs on: consistent hashing with bounded loads, as a pure function.

The ring is Karger's consistent hashing with virtual nodes ("Consistent Hashing and Random Trees", STOC 1997); the bound
on loads is from Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018: walk on from a
name's point until a node is found that holds less than ``load_factor`` times its fair share.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.ring import Ring
from celery_daemons.domain.states import NodeStatus

#: The share of what is fair below which a node has joined, or has come back.
HUNGRY: Final = 0.5
#: What a share that comes out even may be off by in floating point.
_ROUNDING: Final = 1e-6


def at_most(share: float) -> int:
    """A share as whole daemons that a node may hold: rounded up."""
    return math.ceil(share - _ROUNDING)


def at_least(share: float) -> int:
    """A share as whole daemons that a node should hold: rounded down."""
    return math.floor(share + _ROUNDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one daemon asks of a node.

    ``target`` is a node that it shall go to if that fits, for the reason ``why``; ``avoid`` one that it goes to only if no
    other fits.
    """

    name: DaemonName
    launcher: LauncherName
    labels: tuple[str, ...] = ()
    weight: float = 1.0
    target: NodeName | None = None
    why: str = ""
    avoid: NodeName | None = None


@dataclass(slots=True)
class NodeLoads:
    """The nodes that may take daemons, and what each holds; the planner's whole view of the world."""

    nodes: dict[NodeName, NodeRow]
    load_factor: float
    vnodes: int
    loads: dict[NodeName, float] = field(default_factory=dict)
    total: float = 0.0
    ring: Ring = field(init=False)
    #: The nodes that are up, by name.
    takers: list[NodeName] = field(init=False)
    _weight: float = field(init=False)
    _fitting: dict[tuple[LauncherName, tuple[str, ...]], frozenset[NodeName]] = field(init=False)
    _rings: dict[frozenset[NodeName], Ring] = field(init=False)
    #: A node has just joined or come back: nobody takes more than a fair share while it has hardly anything.
    _uneven: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        # With the nodes that drain: a daemon whose first choice is one of them has no preference among the others, and
        # goes where there is room. Without them it would follow the ring to its next choice, however full that is.
        self.ring = Ring({name: row.weight for name, row in self.nodes.items()}, vnodes=self.vnodes)
        self.takers = sorted(name for name, row in self.nodes.items() if row.status is NodeStatus.UP)
        self._weight = sum(self.nodes[name].weight for name in self.takers)
        self._fitting = {}
        self._rings = {}

    def fitting(self, demand: Demand) -> frozenset[NodeName]:
        """The nodes that take daemons, have registered the launcher and carry its labels."""
        kind = demand.launcher, demand.labels
        found = self._fitting.get(kind)
        if found is None:
            found = self._fitting[kind] = frozenset(
                name
                for name in self.takers
                if demand.launcher in self.nodes[name].launcher_set
                and self.nodes[name].label_set.issuperset(demand.labels)
            )
        return found

    def fits(self, node: NodeName, demand: Demand) -> bool:
        """Whether ``node`` takes daemons, has registered the launcher and carries its labels."""
        return node in self.fitting(demand)

    def fair(self, node: NodeName) -> float:
        """The share of all daemons that is the node's by its weight."""
        return self.total * self.nodes[node].weight / self._weight

    def is_hungry(self, node: NodeName) -> bool:
        """Whether the node holds less than half of its share: what the ring's unevenness leaves it with is more."""
        return self.loads.get(node, 0.0) < at_least(HUNGRY * self.fair(node))

    def capacity(self, node: NodeName) -> int:
        """The most that ``node`` may hold: the load factor times its fair share."""
        return at_most(self.load_factor * self.fair(node))

    def place(self, demands: Collection[Demand]) -> list[tuple[Demand, NodeName | None, str]]:
        """Choose a node for each demand, count it there, and say why.

        All demands are counted before the first is placed: the bound is that of the cluster as it will be, so a batch
        follows the ring as closely as single placements into a full cluster do.
        """
        self._uneven = any(map(self.is_hungry, self.takers))
        self.total += sum(demand.weight for demand in demands)
        placed = []
        for demand in demands:
            node, why = self.choose(demand)
            if node is None:
                self.total -= demand.weight
            else:
                self.loads[node] = self.loads.get(node, 0.0) + demand.weight
            placed.append((demand, node, why))
        return placed

    def choose(self, demand: Demand) -> tuple[NodeName | None, str]:
        """The node for a daemon already counted in ``total``, and why.

        The ring's first choice takes it while that is below its bound, or, while some node holds hardly anything, below
        its fair share. Any other takes it only while it is below its fair share, then only while below its bound. If
        all that fit are full (few carry the labels), the one with the lowest load for its weight does: a bound on
        balance is no reason not to run. Without a fitting node the answer is ``None`` and what is missing.
        """
        fitting = self.fitting(demand)
        if not fitting:
            return None, self._why_none(demand)
        if demand.target in fitting:
            return demand.target, demand.why
        avoid = demand.avoid if fitting != {demand.avoid} else None
        full: list[tuple[int, NodeName, float]] = []
        for rank, node in self._ranked(demand.name, fitting):
            if node == avoid:
                continue
            load = self.loads.get(node, 0.0) + demand.weight
            if load <= (self.capacity(node) if rank == 0 and not self._uneven else at_most(self.fair(node))):
                return node, _rank(rank)
            full.append((rank, node, load))
        for rank, node, load in full:
            if load <= self.capacity(node):
                return node, _rank(rank)
        _, node = min((load / self.nodes[node].weight, node) for _, node, load in full)
        return node, "all that fit are above the load factor: the least loaded"

    def add(self, node: NodeName, weight: float) -> None:
        """Count a daemon on ``node``."""
        self.loads[node] = self.loads.get(node, 0.0) + weight
        self.total += weight

    def remove(self, node: NodeName, weight: float) -> None:
        """Count it no more."""
        self.loads[node] = self.loads.get(node, 0.0) - weight
        self.total -= weight

    def _ranked(self, name: DaemonName, fitting: frozenset[NodeName]) -> Iterator[tuple[int, NodeName]]:
        """The nodes that fit in the order of the ring, from 0 if its first choice is one of them, else from 1."""
        ring = self._rings.get(fitting)
        if ring is None:
            # Few may carry the labels: to walk past a thousand others costs by the daemon, to leave them out once.
            ring = self._rings[fitting] = self.ring.narrowed(fitting)
        return enumerate(ring.preference(name), start=0 if self.ring.first(name) in fitting else 1)

    def _why_none(self, demand: Demand) -> str:
        takers = [self.nodes[name] for name in self.takers]
        if not takers:
            return "no node is up" if not self.nodes else "every node is draining"
        knowing = [row for row in takers if demand.launcher in row.launcher_set]
        if not knowing:
            return f"no node that is up has registered launcher {demand.launcher}"
        wanted = ",".join(sorted(demand.labels))
        return f"no node that is up and has launcher {demand.launcher} carries the labels {wanted}"


def _rank(rank: int) -> str:
    return "preferred by the ring" if rank == 0 else f"choice {rank + 1} of the ring"
