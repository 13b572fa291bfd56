"""When a daemon that ended starts again: the restart policy, the back-off, and the restart intensity."""

import random
from dataclasses import dataclass, field
from typing import Final

from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.states import Outcome

#: More would overflow a float in a long streak, which a large max_restarts allows; no backoff_max is reached so late.
_DOUBLINGS: Final = 64


def restarts_after(options: LauncherOptions, outcome: Outcome) -> bool:
    """Whether the policy wants another life after one that ended in ``outcome``, unasked by its node."""
    if options.restart == "permanent" or outcome is Outcome.STOPPED:
        # Stopped, and not by us: a service manager ends a worker with a signal to every process of it. No policy takes
        # that for an end of the daemon's own, or the daemon would stay stopped on all nodes.
        return True
    return options.restart == "transient" and outcome is Outcome.FAILED


@dataclass(slots=True)
class RestartHistory:
    """The failures of one daemon within its restart period, on this node.

    The delay is exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015);
    it starts anew once a life lasted a whole ``restart_period``.
    """

    total: int = 0
    recent: list[float] = field(default_factory=list)
    streak: int = 0

    def next_delay(
        self, options: LauncherOptions, *, now: float, lived: float, dice: random.Random, blameless: bool = False
    ) -> tuple[float, bool]:
        """Note an end at ``now`` (monotonic seconds) after ``lived`` seconds; say how long to wait, and if it failed.

        The second value is true once there were more than ``max_restarts`` within the period: the daemon then counts as
        failed, and is only tried again slowly. ``blameless`` marks an end that was not of the daemon's making (its host
        was killed): the first of those restarts at once.
        """
        self.total += 1
        if lived >= options.restart_period:
            self.streak = 0
            self.recent.clear()
        self.recent = [then for then in self.recent if now - then < options.restart_period]
        self.recent.append(now)
        self.streak += 1
        if blameless and self.streak == 1:
            return 0.0, False
        if len(self.recent) > options.max_restarts or self.streak > options.max_restarts:
            # Full jitter over the upper half only: a slow retry that may come at once is not slow.
            return dice.uniform(options.backoff_max / 2, options.backoff_max), True
        ceiling = min(options.backoff_max, options.backoff * 2.0 ** min(self.streak - 1, _DOUBLINGS))
        return dice.uniform(0.0, ceiling), False
