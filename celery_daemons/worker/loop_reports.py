"""What the worker reports of its own loop, so that the agent can detect a loop that hangs."""

import time
from collections.abc import Callable
from typing import Final

from celery_daemons.wire.messages import Consuming, Tick

#: Seconds between two reports that the timer ticks; several fit into the time after which a loop counts as hung.
_TICK_INTERVAL: Final = 2.0


class LoopReports:
    """Reports that the timer of the worker's loop ticks, and when no ticks are to be expected."""

    def __init__(self, send: Callable[[object], None], *, ticks: bool) -> None:
        self._send = send
        self._ticks = ticks
        self._consuming = False
        self._next_tick_at = 0.0

    def repeat(self) -> None:
        """Report to a new agent what was reported to the last one."""
        if self._consuming:
            self._send(Consuming(True))

    def set_consuming(self, on: bool) -> None:
        """Report whether the worker consumes: while it waits for its broker, its timer may not tick."""
        if on != self._consuming:
            self._consuming = on
            self._send(Consuming(on))

    def tick(self) -> None:
        """Report that the timer ticks, if the timer is part of the loop."""
        now = time.monotonic()
        if self._ticks and now >= self._next_tick_at:
            self._next_tick_at = now + _TICK_INTERVAL
            self._send(Tick())
