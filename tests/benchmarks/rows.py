"""One line of the table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``aim`` is an upper bound in the same unit."""

    name: str
    value: float
    unit: str
    aim: float | None = None
