"""Choose the node for a daemon: consistent hashing with bounded loads, as a pure function.

The ring is Karger's consistent hashing with virtual nodes ("Consistent Hashing and Random Trees", STOC 1997). The bound
on loads is from Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018: walk along the
ring from the name's point to the first node that holds less than ``load_factor`` times its fair share.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.ring import Ring
from celery_daemons.domain.states import NodeStatus

#: A node that holds less than this part of its fair share counts as new: it has just joined or come back.
HUNGRY: Final = 0.5
#: The largest floating-point error of a share that is a whole number.
_ROUNDING: Final = 1e-6


def at_most(share: float) -> int:
    """Return how many whole daemons a share allows: the share rounded up."""
    return math.ceil(share - _ROUNDING)


def at_least(share: float) -> int:
    """Return how many whole daemons a share requires: the share rounded down."""
    return math.floor(share + _ROUNDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a daemon requires of a node.

    ``target`` is the node to choose if that node fits, and ``why`` the reason. ``avoid`` is a node to choose only if no
    other node fits.
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
    """The nodes that may take daemons, and the weight of the daemons on each."""

    nodes: dict[NodeName, NodeRow]
    load_factor: float
    vnodes: int
    loads: dict[NodeName, float] = field(default_factory=dict)
    total: float = 0.0
    ring: Ring = field(init=False)
    #: The nodes that may take daemons, sorted by name.
    takers: list[NodeName] = field(init=False)
    _weight: float = field(init=False)
    _fitting: dict[tuple[LauncherName, tuple[str, ...]], frozenset[NodeName]] = field(init=False)
    _rings: dict[frozenset[NodeName], Ring] = field(init=False)
    #: True while a new node is almost empty; no other node then takes more than its fair share.
    _uneven: bool = field(init=False, default=False)
    #: Nodes that keep daemons but take none; the shares of other nodes do not count such daemons.
    _stuck: frozenset[NodeName] = field(init=False)

    def __post_init__(self) -> None:
        # Draining nodes stay on the ring. A daemon whose first choice is draining then has no first choice, and goes
        # where there is room. Without them it would go to the next node of the ring, even if that is nearly full.
        self.ring = Ring({name: row.weight for name, row in self.nodes.items()}, vnodes=self.vnodes)
        self.takers = sorted(name for name, row in self.nodes.items() if row.takes_daemons)
        self._weight = sum(self.nodes[name].weight for name in self.takers)
        self._stuck = frozenset(
            name for name, row in self.nodes.items() if row.problem != "" and row.status is NodeStatus.UP
        )
        self._fitting = {}
        self._rings = {}

    def fitting(self, demand: Demand) -> frozenset[NodeName]:
        """Return the nodes that take daemons, have registered the launcher and carry the labels."""
        kind = demand.launcher, demand.labels
        fitting = self._fitting.get(kind)
        if fitting is None:
            fitting = self._fitting[kind] = frozenset(
                name
                for name in self.takers
                if demand.launcher in self.nodes[name].launcher_set
                and self.nodes[name].label_set.issuperset(demand.labels)
            )
        return fitting

    def fits(self, node: NodeName, demand: Demand) -> bool:
        """Return whether ``node`` takes daemons, has registered the launcher and carries the labels."""
        return node in self.fitting(demand)

    def keeps(self, node: NodeName, demand: Demand) -> bool:
        """Return whether a daemon may stay on ``node`` although the node can start no other daemons."""
        if node not in self._stuck:
            return False
        row = self.nodes[node]
        return demand.launcher in row.launcher_set and row.label_set.issuperset(demand.labels)

    def fair(self, node: NodeName) -> float:
        """Return the node's share of all daemons, in proportion to the node's weight."""
        return self.total * self.nodes[node].weight / self._weight

    def is_hungry(self, node: NodeName) -> bool:
        """Return whether the node holds less than half of the fair share, which uneven hashing alone does not cause."""
        return self.loads.get(node, 0.0) < at_least(HUNGRY * self.fair(node))

    def capacity(self, node: NodeName) -> int:
        """Return the most that ``node`` may hold: the fair share rounded up, or load factor times share if larger.

        The product is rounded down: with few daemons, rounding up would double the share of a node.
        """
        fair = self.fair(node)
        return max(at_most(fair), at_least(self.load_factor * fair))

    def place(self, demands: Collection[Demand]) -> list[tuple[Demand, NodeName | None, str]]:
        """Choose a node for each demand and add the weight there; return ``(demand, node, reason)`` for each.

        The total includes all demands before the first is placed. Bounds are then those of the final cluster, so that a
        batch follows the ring as closely as single placements into a full cluster do.
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
        """Return the node for a daemon that ``total`` already includes, and the reason.

        With fewer than two daemons for each node, a node that has none comes before all that have some.

        Candidates in this order: the first choice of the ring while its load is below its bound (below its fair share
        while some node is almost empty); any other node below its fair share, in ring order; any node below its bound,
        in ring order. If all fitting nodes are full, because few carry the labels, the one with the lowest load for its
        weight: running matters more than balance. Without a fitting node, return ``None`` and what is missing.
        """
        fitting = self.fitting(demand)
        if not fitting:
            return None, self._why_none(demand)
        if demand.target in fitting:
            return demand.target, demand.why
        avoid = demand.avoid if fitting != {demand.avoid} else None
        empty = self._empty(fitting, avoid) if self._is_sparse else None
        full: list[tuple[int, NodeName, float]] = []
        for rank, node in self._ranked(demand.name, fitting):
            if node == avoid or (empty and node not in empty):
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

    @property
    def _is_sparse(self) -> bool:
        """Return whether daemons are so few that each must spread: half of a fair share is less than one daemon."""
        return HUNGRY * self.total + _ROUNDING < len(self.takers)

    def _empty(self, nodes: Collection[NodeName], avoid: NodeName | None) -> set[NodeName]:
        """Return the nodes without a daemon."""
        return {node for node in nodes if node != avoid and not self.loads.get(node)}

    def add(self, node: NodeName, weight: float) -> None:
        """Add a daemon's weight to the load of ``node``."""
        self.loads[node] = self.loads.get(node, 0.0) + weight
        if node not in self._stuck:
            self.total += weight

    def remove(self, node: NodeName, weight: float) -> None:
        """Subtract a daemon's weight from the load of ``node``."""
        self.loads[node] = self.loads.get(node, 0.0) - weight
        if node not in self._stuck:
            self.total -= weight

    def _ranked(self, name: DaemonName, fitting: frozenset[NodeName]) -> Iterator[tuple[int, NodeName]]:
        """Return the fitting nodes in ring order, numbered from 0 if the first choice fits, else from 1."""
        ring = self._rings.get(fitting)
        if ring is None:
            # If few nodes carry the labels, walking past a thousand others for each daemon is slow. Remove them once.
            ring = self._rings[fitting] = self.ring.narrowed(fitting)
        first_fits = len(fitting) == len(self.nodes) or self.ring.first(name) in fitting
        return enumerate(ring.preference(name), start=0 if first_fits else 1)

    def _why_none(self, demand: Demand) -> str:
        takers = [self.nodes[name] for name in self.takers]
        if any(self.keeps(name, demand) for name in self.nodes):
            name, row = next((name, row) for name, row in sorted(self.nodes.items()) if self.keeps(name, demand))
            return f"no node that fits can start processes; {name}: {row.problem}"
        if not takers:
            return "no node is up" if not self.nodes else "every node is draining"
        knowing = [row for row in takers if demand.launcher in row.launcher_set]
        if not knowing:
            return f"no node that is up has registered launcher {demand.launcher}"
        wanted = ",".join(sorted(demand.labels))
        return f"no node that is up and has launcher {demand.launcher} carries the labels {wanted}"


def _rank(rank: int) -> str:
    return "preferred by the ring" if rank == 0 else f"choice {rank + 1} of the ring"
