"""Many things to do later on one timer of the event loop."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class Timers:
    """Runs actions when they are due; costs nothing while none is."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Run ``action`` in ``delay`` seconds."""
        heapq.heappush(self._due, (time.monotonic() + delay, next(self._sequence), action))
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if self._due:
            delay = max(0.0, self._due[0][0] - time.monotonic())
            self._alarm = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
        self._set_alarm()
