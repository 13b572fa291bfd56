"""Count how often, and for how long, daemons of this node have blocked the event loops of their hosts."""

from collections.abc import Iterable

from celery_daemons.domain.names import DaemonName, Token


class StallCounts:
    """Totals since the agent was started, for metrics."""

    def __init__(self) -> None:
        #: How many stalls there were.
        self.stalls = 0
        #: Their seconds together.
        self.seconds = 0.0

    def add(self, stalls: Iterable[tuple[DaemonName, Token, float]]) -> None:
        """Count stalls that a host has reported."""
        for _, _, seconds in stalls:
            self.stalls += 1
            self.seconds += seconds
