"""Decide how often a fault that repeats is logged: when it changes, and at growing intervals while it is the same."""

from typing import Final

#: Seconds after which the same fault is logged again, doubled each time up to the maximum.
_FIRST_INTERVAL: Final = 30.0
_LONGEST_INTERVAL: Final = 3600.0


class RepeatedFault:
    """Pure; times in monotonic seconds."""

    def __init__(self) -> None:
        self._kind: object = None
        self._interval = 0.0
        self._next_at = 0.0

    def is_worth_logging(self, kind: object, *, now: float) -> bool:
        """Note that the fault has happened; faults of one ``kind`` count as the same."""
        if kind != self._kind:
            self._kind, self._interval, self._next_at = kind, _FIRST_INTERVAL, now
        if now < self._next_at:
            return False
        self._next_at = now + self._interval
        self._interval = min(_LONGEST_INTERVAL, self._interval * 2)
        return True

    def over(self) -> None:
        """Note that the fault is over."""
        self._kind = None
