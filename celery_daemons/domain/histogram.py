"""Count observations by size, as Prometheus does: pure, and small enough to send between processes."""

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Observations in buckets, whose upper bounds are given in ascending order; a last bucket has no bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count an observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return for each bucket its bound as text, and how many observations are not above it."""
        return cumulative(self.bounds, self.counts)


def cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return for each bucket its bound as text, and how many observations are not above it."""
    found: list[tuple[str, float]] = []
    seen = 0
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        seen += count
        found.append((bound, float(seen)))
    return found
