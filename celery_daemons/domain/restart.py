"""When a daemon that ended starts again: the restart policy, the back-off, and the restart intensity."""

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.states import Outcome

#: More would overflow a float in a long streak, which a large max_restarts allows; no backoff_max is reached so late.
_DOUBLINGS: Final = 64
#: How often the wait of a daemon that failed for good is doubled: from backoff_max to sixteen times that.
_SLOWER: Final = 4


def restarts_after(options: LauncherOptions, outcome: Outcome) -> bool:
    """Whether the policy wants another life after one that ended in ``outcome``, unasked by its node."""
    if options.restart == "permanent" or outcome is Outcome.STOPPED:
        # Stopped, and not by us: a service manager ends a worker with a signal to every process of it. No policy takes
        # that for an end of the daemon's own, or the daemon would stay stopped on all nodes.
        return True
    return options.restart == "transient" and outcome is Outcome.FAILED


class Verdict(Enum):
    """What becomes of a daemon that ended and shall live again."""

    AGAIN = "again"  #: it starts again here after its back-off
    ELSEWHERE = "elsewhere"  #: this node has tried often enough: another one should
    FAILED = "failed"  #: others have tried too: it is tried again slowly


@dataclass(slots=True)
class RestartHistory:
    """The failures of one daemon within its restart period, on this node.

    The delay is exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015);
    it starts anew once a life lasted a whole ``restart_period``. ``exhausted`` says that another node has given up on
    the daemon before: then the first failure here is one too many.
    """

    exhausted: bool = False
    total: int = 0
    recent: list[float] = field(default_factory=list)
    streak: int = 0
    #: Ends in a row that were not of its own making.
    host_deaths: int = 0
    #: Waits since it counts as failed.
    slow: int = 0

    def next_delay(
        self,
        options: LauncherOptions,
        *,
        now: float,
        ran_for: float,
        rng: random.Random,
        at_once: bool = False,
        counts: bool = True,
    ) -> tuple[float, Verdict]:
        """Note an end at ``now`` (monotonic seconds) after ``ran_for`` seconds; say how long to wait, and for what.

        Past ``max_restarts`` within the period the daemon is for another node to try; past that, it counts as failed,
        and is tried again after ``backoff_max``, then twice that, up to sixteen times. ``at_once`` marks an end after
        which the first restart of a streak does not wait; one that does not count was its host's, and is backed off
        from, but never held against the daemon.
        """
        self.total += 1
        if ran_for >= options.restart_period:
            self.streak = self.host_deaths = self.slow = 0
            self.exhausted = False
            self.recent.clear()
        if not counts:
            self.host_deaths += 1
            return (0.0 if at_once and self.host_deaths == 1 else _jittered(options, self.host_deaths, rng)), Verdict.AGAIN
        self.recent = [then for then in self.recent if now - then < options.restart_period]
        self.recent.append(now)
        self.streak += 1
        if self.exhausted:
            longest = options.backoff_max * 2.0 ** min(self.slow, _SLOWER)
            self.slow += 1
            # Full jitter over the upper half only: a slow retry that may come at once is not slow.
            return rng.uniform(longest / 2, longest), Verdict.FAILED
        if len(self.recent) > options.max_restarts or self.streak > options.max_restarts:
            return 0.0, Verdict.ELSEWHERE
        return (0.0 if at_once and self.streak == 1 else _jittered(options, self.streak, rng)), Verdict.AGAIN


def _jittered(options: LauncherOptions, streak: int, rng: random.Random) -> float:
    return rng.uniform(0.0, min(options.backoff_max, options.backoff * 2.0 ** min(streak - 1, _DOUBLINGS)))
