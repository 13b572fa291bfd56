"""The faults of a seed: which kinds come in which order, and what each of them decides by chance."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from tests.chaos import network_faults, process_faults, resource_faults, store_faults
from tests.chaos.fault import Cause

WEIGHTS: dict[Cause, int] = (
    process_faults.WEIGHTS | network_faults.WEIGHTS | store_faults.WEIGHTS | resource_faults.WEIGHTS
)
NAMES = {cause.__name__: cause for cause in WEIGHTS}


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of fault, a generator for everything that this one decides, and the seconds until the next."""

    cause: Cause
    rng: random.Random
    pause: float


class Plan:
    """The steps of one seed. The same seed gives the same steps, whatever the cluster does meanwhile."""

    def __init__(self, seed: int, *, only: Iterable[str] = ()) -> None:
        self._seed = seed
        self._causes = [NAMES[name] for name in only] or list(WEIGHTS)
        self._weights = [WEIGHTS[cause] for cause in self._causes]
        self._number = 0

    def next(self) -> Step:
        """Return the next step."""
        self._number += 1
        # One generator for each step: how much a fault draws must not change those after it.
        rng = random.Random(f"{self._seed}-{self._number}")
        return Step(rng.choices(self._causes, self._weights)[0], rng, rng.uniform(0.1, 1.2))
