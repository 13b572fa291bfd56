"""Which node a daemon belongs on: consistent hashing with bounded loads, as a pure function.

The ring is Karger's consistent hashing with virtual nodes ("Consistent Hashing and Random Trees", STOC 1997); the bound
on loads is from Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018: walk on from a
name's point until a node is found that holds less than ``load_factor`` times its fair share.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import xxhash
from uhashring import HashRing

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus


def _point(key: str) -> int:
    return xxhash.xxh3_64_intdigest(key.encode())


class Ring:
    """The nodes' points on a circle; the same nodes, weights and vnodes give the same ring in every process."""

    __slots__ = ("_owners", "_points", "nodes")

    def __init__(self, weights: Mapping[NodeName, float], *, vnodes: int) -> None:
        self.nodes = frozenset(weights)
        shares = {str(node): {"vnodes": max(1, round(vnodes * weight))} for node, weight in sorted(weights.items())}
        points: list[tuple[int, str]] = HashRing(shares, hash_fn=_point).get_points() if shares else []
        self._points = [point for point, _ in points]
        self._owners = [NodeName(owner) for _, owner in points]

    def preference(self, name: DaemonName) -> Iterator[NodeName]:
        """Every node once, in the order in which the ring prefers them for ``name``."""
        owners = self._owners
        size = len(owners)
        start = bisect_right(self._points, _point(name))
        seen: set[NodeName] = set()
        for step in range(size):
            owner = owners[(start + step) % size]
            if owner not in seen:
                seen.add(owner)
                yield owner
                if len(seen) == len(self.nodes):
                    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one daemon asks of a node."""

    name: DaemonName
    launcher: LauncherName
    labels: Collection[str] = ()
    weight: float = 1.0


@dataclass(slots=True)
class Cluster:
    """The nodes that may take daemons, and what each holds; the planner's whole view of the world."""

    nodes: dict[NodeName, NodeRow]
    load_factor: float
    vnodes: int
    loads: dict[NodeName, float] = field(default_factory=dict)
    total: float = 0.0
    ring: Ring = field(init=False)
    _weight: float = field(init=False)

    def __post_init__(self) -> None:
        takers = {name: row.weight for name, row in self.nodes.items() if row.status is NodeStatus.UP}
        self.ring = Ring(takers, vnodes=self.vnodes)
        self._weight = sum(takers.values())

    def fits(self, node: NodeName, demand: Demand) -> bool:
        """Whether ``node`` takes daemons, has registered the launcher and carries its labels."""
        row = self.nodes.get(node)
        return (
            row is not None
            and row.status is NodeStatus.UP
            and demand.launcher in row.launcher_set
            and row.label_set.issuperset(demand.labels)
        )

    def capacity(self, node: NodeName) -> int:
        """The most that ``node`` may hold: the load factor times its share of all daemons."""
        return math.ceil(self.load_factor * self.total * self.nodes[node].weight / self._weight)

    def place(self, demands: Collection[Demand]) -> list[tuple[Demand, NodeName | None, str]]:
        """Choose a node for each demand, count it there, and say why.

        All demands are counted before the first is placed: the bound is that of the cluster as it will be, so a batch
        follows the ring as closely as single placements into a full cluster do.
        """
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
        """The node for a daemon already counted in ``total``, and why: the first that fits and is below its bound.

        If every fitting node is full (few carry the labels), the one with the lowest load for its weight is taken: a
        bound on balance is no reason not to run. Without a fitting node the answer is ``None`` and what is missing.
        """
        fallback: tuple[float, NodeName] | None = None
        for rank, node in enumerate(self.ring.preference(demand.name)):
            if not self.fits(node, demand):
                continue
            load = self.loads.get(node, 0.0)
            if load + demand.weight <= self.capacity(node):
                return node, "preferred by the ring" if rank == 0 else f"choice {rank + 1} of the ring"
            share = load / self.nodes[node].weight
            if fallback is None or share < fallback[0]:
                fallback = (share, node)
        if fallback is not None:
            return fallback[1], "all that fit are above the load factor: the least loaded"
        return None, self._why_none(demand)

    def add(self, node: NodeName, weight: float) -> None:
        """Count a daemon on ``node``."""
        self.loads[node] = self.loads.get(node, 0.0) + weight
        self.total += weight

    def remove(self, node: NodeName, weight: float) -> None:
        """Count it no more."""
        self.loads[node] = self.loads.get(node, 0.0) - weight
        self.total -= weight

    def _why_none(self, demand: Demand) -> str:
        takers = [row for row in self.nodes.values() if row.status is NodeStatus.UP]
        if not takers:
            return "no node is up" if not self.nodes else "every node is draining"
        knowing = [row for row in takers if demand.launcher in row.launcher_set]
        if not knowing:
            return f"no node that is up has registered launcher {demand.launcher}"
        wanted = ",".join(sorted(demand.labels))
        return f"no node that is up and has launcher {demand.launcher} carries the labels {wanted}"
