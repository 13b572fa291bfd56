"""One timer of the event loop, for whatever is due next."""

import asyncio
import time
from collections.abc import Callable
from math import inf


class Alarm:
    """Calls ``ring`` at the time that was set last; costs nothing while no time is set."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = inf
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Ring at ``at`` (monotonic seconds) instead of the time that was set before; infinity means never."""
        if at == self._at:
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._at = at
        if at != inf:
            self._handle = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self._on_time)

    def _on_time(self) -> None:
        self._at, self._handle = inf, None
        self._ring()
