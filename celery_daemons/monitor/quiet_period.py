"""Decide when the set of nodes has been stable for long enough to move daemons for the sake of balance."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus

#: Seconds within which a node that left gracefully is expected back under its name: a worker needs some to end and to
#: start. With less, the other nodes of a rolling restart would be filled, and would soon have to give daemons back.
RETURN_WINDOW: Final = 30.0


class QuietPeriod:
    """Track when nodes last changed, and which nodes left gracefully and may return."""

    def __init__(self, delay: float, clock: Callable[[], float]) -> None:
        self._delay = delay
        self._clock = clock
        self._changed_at = clock()
        self._draining: set[NodeName] = set()
        #: Nodes that may return, and when each is given up.
        self._expected_by: dict[NodeName, float] = {}

    def on_nodes(self, nodes: Mapping[NodeName, NodeRow]) -> None:
        """Start the period again: nodes have joined, left or begun to drain, and these are registered now."""
        now = self._changed_at = self._clock()
        draining = {name for name, row in nodes.items() if row.status is NodeStatus.DRAINING}
        for name in (draining - self._draining) | (self._draining - nodes.keys()):
            # When the node begins to drain, and again when it leaves: its pool may have had tasks to finish.
            self._expected_by[name] = now + RETURN_WINDOW
        self._draining = draining
        self._expected_by = {
            name: by for name, by in self._expected_by.items() if by > now and (name in draining or name not in nodes)
        }

    def expect(self, names: Iterable[NodeName]) -> None:
        """Expect the return of nodes that left before this monitor was elected.

        Only Redis knows when they left, and its clock may have been set: each gets the whole time, from now on.
        """
        by = self._clock() + RETURN_WINDOW
        for name in names:
            self._expected_by.setdefault(name, by)

    @property
    def ends_at(self) -> float:
        """Return when nodes count as stable if nothing else happens, on the clock."""
        return max(self._changed_at + self._delay, *self._expected_by.values(), 0.0)
