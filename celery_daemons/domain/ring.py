"""A consistent-hashing ring with virtual nodes (Karger et al., "Consistent Hashing and Random Trees", STOC 1997)."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping

import xxhash
from uhashring import HashRing

from celery_daemons.domain.names import DaemonName, NodeName


def _point(key: str) -> int:
    return xxhash.xxh3_64_intdigest(key.encode())


class Ring:
    """The points of the nodes on the ring; equal nodes, weights and vnodes give an equal ring in every process."""

    __slots__ = ("_owners", "_points", "nodes")

    def __init__(self, weights: Mapping[NodeName, float], *, vnodes: int) -> None:
        self.nodes = frozenset(weights)
        shares = {str(node): {"vnodes": max(1, round(vnodes * weight))} for node, weight in sorted(weights.items())}
        points: list[tuple[int, str]] = HashRing(shares, hash_fn=_point).get_points() if shares else []
        self._points = [point for point, _ in points]
        self._owners = [NodeName(owner) for _, owner in points]

    def narrowed(self, nodes: Collection[NodeName]) -> "Ring":
        """Return a ring with the points of ``nodes`` only; the order of preference among these nodes stays the same."""
        if self.nodes <= set(nodes):
            return self
        ring = Ring({}, vnodes=0)
        ring.nodes = self.nodes.intersection(nodes)
        kept = [index for index, owner in enumerate(self._owners) if owner in ring.nodes]
        ring._points = [self._points[index] for index in kept]
        ring._owners = [self._owners[index] for index in kept]
        return ring

    def first(self, name: DaemonName) -> NodeName | None:
        """Return the node that the ring prefers for ``name``; ``None`` on an empty ring."""
        if not self._points:
            return None
        return self._owners[bisect_right(self._points, _point(name)) % len(self._owners)]

    def preference(self, name: DaemonName) -> Iterator[NodeName]:
        """Yield every node once, the most preferred for ``name`` first."""
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
