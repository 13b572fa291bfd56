"""Decide which loops of this node hang: pure, from what the loops report."""

from collections.abc import Hashable, Iterator
from typing import Final

#: Seconds without a response after which a loop counts as hung. A loop is asked every few seconds, so that a loop that
#: stops is reported within 15 s.
HUNG_AFTER: Final = 12.0
#: Seconds between two rounds of the agent above which the agent itself was stopped, so that no answer could be read.
_OWN_GAP: Final = 5.0


class Vitals:
    """When each loop last responded, in monotonic seconds. Nothing here depends on Redis or on the broker."""

    def __init__(self, *, no_ticks: str, now: float) -> None:
        """``no_ticks`` is why the worker's timer does not show whether its loop runs; empty if it does."""
        self.no_ticks = no_ticks
        self._round_at = now
        self._hosts: dict[Hashable, tuple[str, float]] = {}
        self._monitor_at: float | None = None
        self._worker_at = now
        self._consuming = False
        #: The worker shuts down.
        self.ending = False

    def begin_round(self, now: float) -> None:
        """Note that the agent's own loop runs; call every second.

        After a pause of the agent, the limit of every loop begins again, because no answers were read.
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

    def host_answered(self, key: Hashable, now: float) -> None:
        """Note the answer of a host."""
        if key in self._hosts:
            self._hosts[key] = self._hosts[key][0], now

    def host_gone(self, key: Hashable) -> None:
        """Forget a host that has died."""
        self._hosts.pop(key, None)

    # From the monitor

    def monitor_progressed(self, now: float) -> None:
        """Note that a monitor was started or has completed an iteration."""
        self._monitor_at = now

    def monitor_gone(self) -> None:
        """Forget the monitor: it has ended."""
        self._monitor_at = None

    # From the worker

    def worker_ticked(self, now: float) -> None:
        """Note that the worker's timer has ticked."""
        self._worker_at = now

    def worker_consumes(self, on: bool, now: float) -> None:
        """Note whether the worker consumes. While the worker waits for its broker, its timer does not tick."""
        self._consuming = on
        self._worker_at = now

    def worker_ends(self) -> None:
        """Note that the worker shuts down."""
        self.ending = True

    # Results

    def tick_age(self, now: float) -> float | None:
        """Return the seconds since the worker's timer last ticked; ``None`` if it need not tick now."""
        return now - self._worker_at if self._consuming and not self.no_ticks and not self.ending else None

    def hung_loops(self, now: float) -> list[str]:
        """Return a sentence for each loop of a host or monitor that hangs."""
        return [f"{title} has not responded for {age:.0f} s" for title, age in self._ages(now) if age > HUNG_AFTER]

    def hung_worker(self, now: float) -> str:
        """Return a sentence if the worker's loop hangs, else an empty text."""
        age = self.tick_age(now)
        return f"the worker's timer has not ticked for {age:.0f} s" if age is not None and age > HUNG_AFTER else ""

    def _ages(self, now: float) -> Iterator[tuple[str, float]]:
        for title, answered_at in self._hosts.values():
            yield title, now - answered_at
        if self._monitor_at is not None:
            yield "the monitor's loop", now - self._monitor_at
