"""Translate times of Redis's clock to the clock of this process, and notice when Redis's clock was set.

Redis keeps the ends of leases as times of its own clock, which an operator or a time service may set. Every reply that
carries the server's time is one measurement of the difference of the two clocks. While the difference stays the same, a
time of Redis's clock names one moment of the local clock. After a step it may name several; the latest of these counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: How much the rates of the two clocks may differ, as a share. A faster change of the difference counts as a step. Over
#: a lease, this uses up a fifth of the margin of a tenth that every holder keeps.
_RATE: Final = 0.02
#: Redis's time is read in whole milliseconds.
_RESOLUTION: Final = 0.001
#: The most segments to keep. Reached only by a clock that is set all the time.
_MAX_SEGMENTS: Final = 64

#: A segment as it is passed to another process: first and last measurement, and bounds of the difference.
Segment = tuple[float, float, float, float]


@dataclass(slots=True)
class _Segment:
    """A time without a step: server time minus local time was between ``low`` and ``high``."""

    first: float
    last: float
    low: float
    high: float


class ServerClock:
    """The difference between Redis's clock and the local clock, as measured; all times in seconds."""

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self._segments = [_Segment(*segment) for segment in segments]

    @property
    def segments(self) -> list[Segment]:
        """Return the measurements for another process that uses the same local clock."""
        return [(one.first, one.last, one.low, one.high) for one in self._segments]

    def observe(self, server: float, *, sent: float, received: float, window: float) -> float:
        """Note a reply with the server's time. Return by how many seconds Redis's clock was set, or 0.0.

        ``sent`` and ``received`` are local times. Differences are forgotten ``window`` seconds after they have ended.
        """
        low, high = server - received, server + _RESOLUTION - sent
        if self._segments:
            last = self._segments[-1]
            drift = _RATE * max(0.0, received - last.last)
            common_low, common_high = max(low, last.low - drift), min(high, last.high + drift)
            if common_low <= common_high:
                last.last, last.low, last.high = received, common_low, common_high
                self._forget(received - window)
                return 0.0
            step = low - last.high if low > last.high else high - last.low
        else:
            step = 0.0
        self._segments.append(_Segment(received, received, low, high))
        self._forget(received - window)
        return step

    def latest(self, server: float) -> float:
        """Return the latest local time at which Redis's clock can have shown ``server``, as far as measured.

        Needs at least one measurement. What happened before the first measurement is not known.
        """
        return max(server - segment.low for segment in self._segments)

    def now(self, local: float) -> float:
        """Return about what Redis's clock shows at a local time. Needs at least one measurement."""
        return local + self._segments[-1].low

    def _forget(self, before: float) -> None:
        # A segment ends at an unknown moment before the next one begins.
        while len(self._segments) > 1 and self._segments[1].first < before:
            del self._segments[0]
        while len(self._segments) > _MAX_SEGMENTS:
            older, newer = self._segments[:2]
            self._segments[:2] = [
                _Segment(older.first, newer.last, min(older.low, newer.low), max(older.high, newer.high))
            ]
