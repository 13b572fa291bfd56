"""What this agent has seen of the cluster: a monitor that it starts knows nothing else from before its own time."""

import logging
from typing import Final

from celery_daemons.domain.longest_lease import LongestLease
from celery_daemons.domain.names import NodeName
from celery_daemons.domain.server_clock import ServerClock
from celery_daemons.settings import Settings
from celery_daemons.wire.messages import Testimony

logger = logging.getLogger(__name__)

#: Smaller steps of Redis's clock, in seconds, are not reported: nothing waits for them.
_REPORTED_STEP: Final = 0.1


class ClusterWitness:
    """Redis's clock, the longest lease, and since when Redis answers as the same server with the same data.

    Pure: answers of Redis come in, with the local times at which they were requested and received.
    """

    def __init__(self, *, settings: Settings, node: NodeName) -> None:
        self._node = node
        self._allowed = settings.longest_lease
        self._longest = LongestLease(settings.longest_lease)
        self._clock = ServerClock()
        self._data: tuple[str, str] | None = None
        self._known_since = 0.0
        self._warned_of = 0.0

    @property
    def longest_lease(self) -> float:
        """Return the longest lease that may run, in seconds, as far as this agent knows."""
        return self._longest.seconds

    @property
    def clock(self) -> ServerClock:
        """Return Redis's clock as measured."""
        return self._clock

    def testimony(self) -> Testimony:
        """Return what a monitor has to know."""
        return Testimony(clock=self._clock.segments, known_since=self._known_since, longest_lease=self._longest.seconds)

    def on_time(self, server_ms: int, *, sent: float, received: float) -> None:
        """Note a reply that carries Redis's time."""
        step = self._clock.observe(server_ms / 1000, sent=sent, received=received, window=self._longest.seconds)
        if abs(step) >= _REPORTED_STEP:
            logger.warning(
                "node %s: Redis's clock was set %s by %.1f s; leases are measured by this machine's clock",
                self._node,
                "forward" if step > 0 else "back",
                abs(step),
            )

    def on_cluster(self, *, server: str, created_ms: str, longest_lease_ms: int, received: float) -> None:
        """Note which server answers, when the data there was created, and the longest lease of a registered node."""
        if (server, created_ms) != self._data:
            self._data = server, created_ms
            self._known_since = received
        longest = longest_lease_ms / 1000
        self._longest.note(longest, now=received)
        if longest > max(self._allowed, self._warned_of):
            self._warned_of = longest
            logger.warning(
                "node %s: another node has a lease of %g s, longer than this node's %g s; set daemons_lease_ttl_max to "
                "at least %g here until no such node is left: a monitor waits that long after Redis has lost its data",
                self._node,
                longest,
                self._allowed,
                longest,
            )
