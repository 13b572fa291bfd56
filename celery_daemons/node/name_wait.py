"""Decide when a name is free whose last holder is not known to be dead: by this machine's clock, not by Redis's."""

from typing import Final

from celery_daemons.domain.server_clock import ServerClock
from celery_daemons.store.lease import Taken

#: No lease has ended.
_NONE: Final = 0


class NameWait:
    """Measure the lease of another incarnation of this node. Pure: answers of Redis come in, with the local time."""

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._end_ms = _NONE
        self._first_seen = 0.0
        #: The end of the lease that has ended, as Redis has it.
        self.ended_ms = _NONE

    def seconds_left(self, taken: Taken, *, now: float) -> float:
        """Return the seconds until that lease has ended; at 0.0, :attr:`ended_ms` is what the next attempt presents."""
        if taken.end_ms != self._end_ms:
            self._end_ms, self._first_seen = taken.end_ms, now
        # If Redis's clock was set back, the end may be hours away. A lease that is not renewed ends after its length.
        length = taken.length_ms or taken.left_ms
        ends_at = min(self._first_seen + length / 1000, self._clock.latest(taken.end_ms / 1000))
        if ends_at > now:
            return ends_at - now
        self.ended_ms = taken.end_ms
        return 0.0

    @staticmethod
    def why(taken: Taken) -> str:
        """Return why this node has not joined, for the log and the journal."""
        return (
            f"another worker of this name is alive (incarnation {taken.incarnation}); this one stays a plain worker "
            "and joins when the name is free: give each worker its own --hostname"
        )
