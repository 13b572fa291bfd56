"""Choose the daemons to move so that every node holds about its fair share: as few as possible, as a pure function."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.placement import HUNGRY, Demand, NodeLoads, at_least, at_most
from celery_daemons.domain.ring import Ring

#: How far from its fair share a node may be after a rebalance. A smaller share needs more moves: with a tenth, a
#: rolling restart of all nodes moves each daemon about one and a half times.
_TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A daemon that should go from a source node to a target node, and why."""

    name: DaemonName
    source: NodeName
    target: NodeName
    why: str


def rebalance(current: NodeLoads, placed: Iterable[tuple[NodeName, Demand]], *, even: bool) -> list[Move]:
    """Return the moves that bring every node to about the fair share, as far as launchers and labels permit.

    A node without a daemon gets one from a node with several. With ``even``, every node comes to within a tenth of its
    share. Otherwise only a node that holds less than half of its share is filled, to nine tenths of the share, and only
    a node that holds more than its bound is relieved, to that bound.
    ``placed`` are the daemons that may be moved, each with its current node; ``current`` is not changed. Each move
    makes the loads more equal (the sum of squared loads over weights falls), and the same state gives the same answer:
    after the moves of a plan, the next plan is empty.
    """
    return list(_Search(current, placed, even=even).moves())


_Kind = tuple[LauncherName, tuple[str, ...], float]
#: Stands for any daemon of a kind, where the answer does not depend on the name.
_ANY: Final = DaemonName("any")


class _Pool:
    """The daemons that may be moved off a node, by kind: daemons of a kind can go to the same nodes."""

    def __init__(self) -> None:
        self._kinds: dict[_Kind, list[Demand]] = {}
        self._preferring: dict[NodeName | None, dict[_Kind, list[Demand]]] | None = None
        #: Daemons that were taken and are still in one of the lists.
        self._taken: set[DaemonName] = set()

    def add(self, demand: Demand) -> None:
        """Add a daemon, which is taken after all others of the same kind."""
        if demand.name in self._taken:
            self._kinds = {
                kind: [other for other in others if other.name not in self._taken]
                for kind, others in self._kinds.items()
            }
            self._taken.clear()
        self._kinds.setdefault((demand.launcher, demand.labels, demand.weight), []).insert(0, demand)
        self._preferring = None

    def fill(self, demands: list[Demand]) -> None:
        """Add the first daemons of an empty pool; each kind is taken in the order of the names."""
        for demand in sorted(demands, key=lambda demand: demand.name, reverse=True):
            self._kinds.setdefault((demand.launcher, demand.labels, demand.weight), []).append(demand)

    def kinds(self) -> list[_Kind]:
        """Return the kinds of which a daemon is left."""
        return sorted(kind for kind, demands in self._kinds.items() if self._trimmed(demands))

    def take(self, kind: _Kind) -> Demand:
        """Take the next daemon of a kind."""
        demand = self._trimmed(self._kinds[kind]).pop()
        self._taken.add(demand.name)
        return demand

    def take_preferring(self, node: NodeName, kind: _Kind, ring: Ring) -> Demand | None:
        """Take a daemon of a kind whose first choice on the ring is ``node``; ``None`` if there is no such daemon."""
        if self._preferring is None:
            self._preferring = {}
            for each, demands in self._kinds.items():
                for demand in demands:
                    self._preferring.setdefault(ring.first(demand.name), {}).setdefault(each, []).append(demand)
        demands = self._trimmed(self._preferring.get(node, {}).get(kind, []))
        if not demands:
            return None
        self._taken.add(demands[-1].name)
        return demands.pop()

    def _trimmed(self, demands: list[Demand]) -> list[Demand]:
        while demands and demands[-1].name in self._taken:
            demands.pop()
        return demands


class _Search:
    """A search for moves: every move that is found changes a copy of the loads."""

    def __init__(self, current: NodeLoads, placed: Iterable[tuple[NodeName, Demand]], *, even: bool) -> None:
        self._current = current
        self._even = even
        self._loads = {node: current.loads.get(node, 0.0) for node in current.takers}
        self._fair = {node: current.fair(node) for node in current.takers}
        self._placed = placed
        self._pools: dict[NodeName, _Pool] = {}
        #: A heap of nodes, the fullest first. An entry that no longer agrees with the loads is dropped at the top.
        self._fullest: list[tuple[float, NodeName]] = []

    def moves(self) -> Iterable[Move]:
        if len(self._loads) < 2 or not (self._starved() or self._crowded()):
            return ()
        by_node: dict[NodeName, list[Demand]] = {}
        for node, demand in self._placed:
            by_node.setdefault(node, []).append(demand)
        for node in self._loads:
            self._pools[node] = _Pool()
            self._pools[node].fill(by_node.get(node, []))
            heapq.heappush(self._fullest, (-self._level(node), node))
        found: dict[DaemonName, Move] = {}
        while new := [*self._fill(self._starved()), *self._relieve(self._crowded())]:
            for move in new:
                before = found.pop(move.name, None)
                if before is None:
                    found[move.name] = move
                elif before.source != move.target:
                    # Moved twice: the daemon goes to the last node at once.
                    found[move.name] = replace(before, target=move.target, why="this makes the loads more equal")
        return found.values()

    def _starved(self) -> list[NodeName]:
        return sorted(node for node in self._loads if self._is_hungry(node))

    def _crowded(self) -> list[NodeName]:
        return sorted(node for node in self._loads if self._is_overfull(node))

    def _is_hungry(self, node: NodeName) -> bool:
        if self._is_empty(node):
            return True
        return self._loads[node] < (self._least(node) if self._even else at_least(HUNGRY * self._fair[node]))

    def _is_empty(self, node: NodeName) -> bool:
        """Return whether a node has nothing, though daemons are as many as nodes; a small share rounds down to none."""
        return not self._loads[node] and any(self._loads.values())

    def _is_overfull(self, node: NodeName) -> bool:
        if self._even:
            return self._loads[node] > self._most(node)
        # One or two daemons above the fair share are no reason to move them, however small that share is.
        return self._loads[node] > max(self._current.capacity(node), at_most(self._fair[node]) + 2)

    def _least(self, node: NodeName) -> int:
        return at_least((1 - _TOLERANCE) * self._fair[node])

    def _most(self, node: NodeName) -> int:
        return at_most(min(self._current.load_factor, 1 + _TOLERANCE) * self._fair[node])

    def _fill(self, starved: list[NodeName]) -> Iterator[Move]:
        """Move daemons to nodes that hold too little, from the nodes that hold most."""
        for target in starved:
            # Up to the full share while any node is overfull: otherwise daemons would move between the other nodes too.
            while (
                self._is_empty(target)
                or self._loads[target] < self._least(target)
                or (self._loads[target] < at_most(self._fair[target]) and any(map(self._is_overfull, self._loads)))
            ):
                move = self._take_for(target)
                if move is None:
                    break
                yield move

    def _take_for(self, target: NodeName) -> Move | None:
        passed: list[tuple[float, NodeName]] = []
        try:
            while self._fullest and -self._fullest[0][0] > self._level(target):
                entry = heapq.heappop(self._fullest)
                source = entry[1]
                if -entry[0] != self._level(source):
                    continue
                passed.append(entry)
                for kind in self._pools[source].kinds():
                    if self._may_go(kind, source, target):
                        pool, why = self._pools[source], f"{target} holds less than its share"
                        preferring = pool.take_preferring(target, kind, self._current.ring)
                        if preferring is not None:
                            return self._move(preferring, source, target, f"{why}, and the ring prefers it")
                        return self._move(pool.take(kind), source, target, why)
            return None
        finally:
            for entry in passed:
                heapq.heappush(self._fullest, entry)

    def _relieve(self, crowded: list[NodeName]) -> Iterator[Move]:
        """Move daemons off nodes that hold too much, each to the first node with room in the order of the ring."""
        for source in crowded:
            while self._is_overfull(source):
                move = self._give_from(source)
                if move is None:
                    break
                yield move

    def _give_from(self, source: NodeName) -> Move | None:
        for kind in self._pools[source].kinds():
            possible = {node for node in self._loads if self._may_go(kind, source, node)}
            below_fair = {node for node in possible if self._loads[node] + kind[2] <= at_most(self._fair[node])}
            targets = below_fair or {node for node in possible if self._loads[node] + kind[2] <= self._most(node)}
            if targets:
                demand = self._pools[source].take(kind)
                target = next(node for node in self._current.ring.preference(demand.name) if node in targets)
                return self._move(demand, source, target, f"{source} holds more than its share")
        return None

    def _level(self, node: NodeName) -> float:
        return self._loads[node] / self._current.nodes[node].weight

    def _may_go(self, kind: _Kind, source: NodeName, target: NodeName) -> bool:
        """Return whether launcher and labels permit a move, and the move makes the loads more equal."""
        launcher, labels, weight = kind
        if source == target or not self._current.fits(target, Demand(name=_ANY, launcher=launcher, labels=labels)):
            return False
        there = (self._loads[target] + weight / 2) / self._current.nodes[target].weight
        here = (self._loads[source] - weight / 2) / self._current.nodes[source].weight
        return there < here

    def _move(self, demand: Demand, source: NodeName, target: NodeName, why: str) -> Move:
        self._loads[source] -= demand.weight
        self._loads[target] += demand.weight
        self._pools[target].add(demand)
        for node in (source, target):
            heapq.heappush(self._fullest, (-self._level(node), node))
        return Move(name=demand.name, source=source, target=target, why=why)
