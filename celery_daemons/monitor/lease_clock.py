"""Measure on the monitor's own clock when leases end, however Redis's clock is set."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.server_clock import Segment, ServerClock
from celery_daemons.store.queries import Overview

logger = logging.getLogger(__name__)

#: Smaller steps of Redis's clock, in seconds, are not reported: nothing waits for them.
_REPORTED_STEP: Final = 0.1


class LeaseClock:
    """When each lease ends, and how old the data is, in the least favourable case.

    A time of Redis's clock that was written after the first measurement is translated to the own clock; see
    :class:`ServerClock`. Of an earlier one, and of one that lies in the future because Redis's clock was set back, only
    this is known: a value that has not changed for as long as a lease is as old as that.
    """

    def __init__(self, segments: Iterable[Segment], clock: Callable[[], float]) -> None:
        self._clock = clock
        segments = list(segments)
        self._server_clock = ServerClock(segments)
        self._since = segments[0][0] if segments else clock()
        #: When each value was first seen, by what it is the value of.
        self._first_seen: dict[str, tuple[int, float]] = {}
        self._ends: dict[NodeName, tuple[int, float]] = {}

    def observe(self, overview: Overview, *, sent: float, window: float) -> None:
        """Take in an overview that was requested at ``sent``; ``window`` is the longest lease."""
        now = self._clock()
        step = self._server_clock.observe(overview.now_ms / 1000, sent=sent, received=now, window=window)
        if abs(step) >= _REPORTED_STEP:
            logger.warning(
                "monitor: Redis's clock was set %s by %.1f s; leases granted before that are measured by this "
                "machine's clock, for at most one lease",
                "forward" if step > 0 else "back",
                abs(step),
            )
        ends = {}
        for node, left in overview.leases.items():
            value = left + overview.now_ms
            seen = self._ends.get(node)
            first_seen = seen[1] if seen is not None and seen[0] == value else now
            ends[node] = (value, first_seen)
        self._ends = ends

    def left_ms(self, overview: Overview, *, longest: float) -> dict[NodeName, int]:
        """Return the milliseconds that may be left of each node's lease; 0 or less once the lease is certainly over."""
        now, left = self._clock(), {}
        for node, (end_ms, first_seen) in self._ends.items():
            length = overview.lease_lengths.get(node, 0) / 1000 or longest
            ends_at = min(first_seen + length, max(self._since + length, self._server_clock.latest(end_ms / 1000)))
            left[node] = round((ends_at - now) * 1000)
        return left

    def end_ms(self, node: NodeName) -> int:
        """Return the end of a node's lease according to the last overview of Redis."""
        return self._ends[node][0]

    def age_ms(self, what: str, age_ms: int | None, overview: Overview) -> int | None:
        """Return the least age of something that was ``age_ms`` ago by Redis's clock; ``None`` if there is no such."""
        if age_ms is None:
            self._first_seen.pop(what, None)
            return None
        now, value = self._clock(), overview.now_ms - age_ms
        seen = self._first_seen.get(what)
        if seen is None or seen[0] != value:
            seen = self._first_seen[what] = (value, now)
        return max(0, round((now - min(seen[1], self._server_clock.latest(value / 1000))) * 1000))
