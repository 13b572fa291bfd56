"""When nodes have come to rest, so that moving daemons for the sake of balance is worth its while."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus

#: Seconds in which a node that leaves in order is expected back under its name: a worker takes some to end and to
#: start. Filled before that, the nodes of a rolling restart would have to give away again what they were given.
RETURNS_WITHIN: Final = 30.0


class QuietPeriod:
    """Knows since when nothing has come or gone, and who has left in order and may be on the way back."""

    def __init__(self, delay: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._delay = delay
        self._clock = clock
        self._changed_at = clock()
        self._leaving: set[NodeName] = set()
        self._expected: dict[NodeName, float] = {}

    def see(self, nodes: Mapping[NodeName, NodeRow]) -> None:
        """Nodes have come or gone, or begun to drain: these are there now."""
        now = self._changed_at = self._clock()
        draining = {name for name, row in nodes.items() if row.status is NodeStatus.DRAINING}
        for name in (draining - self._leaving) | (self._leaving - nodes.keys()):
            # As it begins to drain, and again as it leaves: its pool may have had tasks to finish.
            self._expected[name] = now + RETURNS_WITHIN
        self._leaving = draining
        self._expected = {
            name: by for name, by in self._expected.items() if by > now and (name in draining or name not in nodes)
        }

    def expect(self, name: NodeName, *, gone_for: float) -> None:
        """A node has left before anybody looked."""
        if gone_for < RETURNS_WITHIN:
            self._expected[name] = self._clock() + RETURNS_WITHIN - gone_for

    @property
    def at(self) -> float:
        """When nodes count as at rest if nothing else happens, on the clock."""
        return max(self._changed_at + self._delay, *self._expected.values(), 0.0)
