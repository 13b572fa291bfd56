"""What the supervisor has to do at a later time, as data."""

import heapq
from collections.abc import Iterator
from math import inf
from typing import NamedTuple, TypeAlias

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.node.supervision.commands import HostId


class GraceOver(NamedTuple):
    """A daemon was asked to stop, and the grace period has ended."""

    name: DaemonName
    host: HostId
    token: Token


class BackoffOver(NamedTuple):
    """A daemon may be claimed again; ``serial`` distinguishes the assignment from a later assignment of the name."""

    name: DaemonName
    serial: int


class StartOver(NamedTuple):
    """A run has lasted for the ``start_seconds`` of the launcher, and the daemon now counts as running."""

    name: DaemonName
    host: HostId
    token: Token


class StallOver(NamedTuple):
    """A daemon blocks the event loop of its host, and has been reported for long enough."""

    name: DaemonName
    host: HostId
    token: Token


class ProbeOver(NamedTuple):
    """A host was asked for an answer, which must have arrived by now."""

    host: HostId


Timer: TypeAlias = GraceOver | BackoffOver | StartOver | StallOver | ProbeOver


class Timers:
    """A heap of timers, in monotonic seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0

    @property
    def next_at(self) -> float:
        """When the next timer is due; infinite without timers."""
        return self._heap[0][0] if self._heap else inf

    def set(self, at: float, timer: Timer) -> None:
        """Set a timer."""
        self._sequence += 1
        heapq.heappush(self._heap, (at, self._sequence, timer))

    def take_due(self, now: float) -> Iterator[Timer]:
        """Remove and yield each timer that is due."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]
