"""Decide which loops of this node stand still: pure, from what the loops report."""

from collections.abc import Hashable, Iterator
from typing import Final

#: Seconds after which a loop that has not turned counts as still. A loop is asked every few seconds, and what watches
#: the answer acts within 15 s of the moment at which the loop stopped.
STILL_AFTER: Final = 12.0
#: Seconds between two rounds of the agent above which the agent itself was stopped, so that no answer could be read.
_OWN_GAP: Final = 5.0


class Vitals:
    """When each loop last turned, in monotonic seconds. Nothing here depends on Redis or on the broker."""

    def __init__(self, *, no_ticks: str, now: float) -> None:
        """``no_ticks`` is why the worker's timer says nothing about its loop; empty if it does."""
        self.no_ticks = no_ticks
        self._round_at = now
        self._hosts: dict[Hashable, tuple[str, float]] = {}
        self._monitor_at: float | None = None
        self._worker_at = now
        self._consuming = False
        #: The worker shuts down.
        self.ending = False

    def begin_round(self, now: float) -> None:
        """Note that the agent's own loop turns; call every second.

        After a time in which it did not, every loop gets that time once more: their answers were not read.
        """
        if now - self._round_at > _OWN_GAP:
            self._hosts = {key: (title, now) for key, (title, _) in self._hosts.items()}
            self._worker_at = now
            self._monitor_at = None if self._monitor_at is None else now
        self._round_at = now

    # From hosts

    def host_ready(self, key: Hashable, title: str, now: float) -> None:
        """Watch a host from now on; ``title`` names the host in answers."""
        self._hosts[key] = title, now

    def host_turned(self, key: Hashable, now: float) -> None:
        """Note the answer of a host."""
        if key in self._hosts:
            self._hosts[key] = self._hosts[key][0], now

    def host_gone(self, key: Hashable) -> None:
        """Forget a host that has died."""
        self._hosts.pop(key, None)

    # From the monitor

    def monitor_turned(self, now: float) -> None:
        """Note that a monitor was started or has completed a turn."""
        self._monitor_at = now

    def monitor_gone(self) -> None:
        """Forget the monitor: it has ended."""
        self._monitor_at = None

    # From the worker

    def worker_ticked(self, now: float) -> None:
        """Note that the worker's timer has ticked."""
        self._worker_at = now

    def worker_consumes(self, on: bool, now: float) -> None:
        """Note whether the worker consumes. Without its broker it waits in a call, and its timer stands still."""
        self._consuming = on
        self._worker_at = now

    def worker_ends(self) -> None:
        """Note that the worker shuts down."""
        self.ending = True

    # What they add up to

    def tick_age(self, now: float) -> float | None:
        """Return the seconds since the worker's timer last ticked; ``None`` if it need not tick now."""
        return now - self._worker_at if self._consuming and not self.no_ticks and not self.ending else None

    def still_loops(self, now: float) -> list[str]:
        """Return a sentence for each loop of a host or monitor that stands still."""
        return [f"{title} has not turned for {age:.0f} s" for title, age in self._ages(now) if age > STILL_AFTER]

    def still_worker(self, now: float) -> str:
        """Return a sentence if the worker's loop stands still, else nothing."""
        age = self.tick_age(now)
        return f"the worker's timer has not ticked for {age:.0f} s" if age is not None and age > STILL_AFTER else ""

    def _ages(self, now: float) -> Iterator[tuple[str, float]]:
        for title, turned_at in self._hosts.values():
            yield title, now - turned_at
        if self._monitor_at is not None:
            yield "the monitor's loop", now - self._monitor_at
