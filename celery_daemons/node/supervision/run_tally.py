"""Count how often runs of each launcher were repeated or stopped, and how long stops took."""

from collections import Counter
from typing import Final

from celery_daemons.domain.names import LauncherName

#: How a run ended that was followed by another on this node: by itself, by an error, or because it was asked to.
RESTART_OUTCOMES: Final = ("finished", "failed", "requested")


class RunTally:
    """Counts since the agent began."""

    def __init__(self) -> None:
        self.restarts: Counter[tuple[LauncherName, str]] = Counter()
        self.stops: Counter[LauncherName] = Counter()
        self.stop_seconds: Counter[LauncherName] = Counter()
        self.forced: Counter[LauncherName] = Counter()

    def restarted(self, launcher: LauncherName, outcome: str) -> None:
        """Count a run that is followed by another; ``outcome`` is one of :data:`RESTART_OUTCOMES`."""
        self.restarts[launcher, outcome if outcome in RESTART_OUTCOMES else "requested"] += 1

    def stopped(self, launcher: LauncherName, seconds: float) -> None:
        """Count a daemon that was asked to stop and has stopped, by itself or killed."""
        self.stops[launcher] += 1
        self.stop_seconds[launcher] += seconds  # type: ignore[assignment]

    def killed(self, launcher: LauncherName) -> None:
        """Count a daemon that did not stop within its grace period."""
        self.forced[launcher] += 1
