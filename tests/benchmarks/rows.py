"""One line of the table: a figure with its spread, and what a bare operation of the same run says to it."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``aim`` is an upper bound in the same unit.

    ``low`` and ``high`` are the least and the most of ``rounds`` rounds, of which ``value`` is the median or the
    quantile that its name says. ``ratio`` is the value as a multiple of what ``bare`` names, taken in the same run.
    """

    name: str
    value: float
    unit: str
    aim: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    ratio: float | None = None
    bare: str | None = None

    @property
    def met(self) -> bool:
        """Whether the figure is what it should be, or need not be anything."""
        return self.aim is None or self.value <= self.aim


def spread(
    name: str,
    values: Iterable[float],
    unit: str,
    aim: float | None = None,
    *,
    at: float = 0.5,
    beside: tuple[str, float] | None = None,
) -> Row:
    """The median of rounds, or the quantile ``at``; ``beside`` is a bare operation: its name, its cost in the unit."""
    taken = sorted(values)
    value = statistics.median(taken) if at == 0.5 else quantile(taken, at)
    return Row(
        name,
        value,
        unit,
        aim,
        low=taken[0],
        high=taken[-1],
        rounds=len(taken),
        ratio=value / beside[1] if beside else None,
        bare=beside[0] if beside else None,
    )


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which a share of all lies."""
    taken = sorted(values)
    return taken[min(len(taken) - 1, int(share * len(taken)))]
