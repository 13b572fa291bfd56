"""Decide whether, when and where a daemon starts again after a run."""

import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.states import Outcome

#: The most doublings of the back-off. A large max_restarts allows streaks that would overflow a float without a limit;
#: every backoff_max is reached long before.
_DOUBLINGS: Final = 64


def restarts_after(options: LauncherOptions, outcome: Outcome) -> bool:
    """Return whether the restart policy starts a daemon again after a run that the node did not stop."""
    if options.restart == "permanent" or outcome is Outcome.STOPPED:
        # Something else stopped the daemon: a service manager signals every process of a worker that it stops. If that
        # counted as an end of the daemon, the daemon would stay stopped on all nodes.
        return True
    return options.restart == "transient" and outcome is Outcome.FAILED


class Verdict(Enum):
    """What happens to a daemon that ended and should run again."""

    AGAIN = "again"  #: restart on this node after the back-off
    ELSEWHERE = "elsewhere"  #: restart limit reached on this node: another node should try
    FAILED = "failed"  #: another node gave up before: keep retrying, and say so


@dataclass(slots=True)
class RestartHistory:
    """The failures of a daemon on this node, and the delay before the next run.

    The delay is exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    A run that lasts ``restart_period`` resets the history. ``exhausted`` means that another node has already given up
    on the daemon: after one more failure on this node, the daemon counts as failed.
    """

    exhausted: bool = False
    total: int = 0
    recent: list[float] = field(default_factory=list)
    streak: int = 0
    #: Runs in a row that ended because the host died.
    host_deaths: int = 0

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
        """Record the end of a run and return the seconds to wait and what to do then.

        The run lasted ``ran_for`` seconds and ended at ``now``, in monotonic seconds. After ``max_restarts`` within the
        period, another node should try. If another node already has, the daemon counts as failed and is retried within
        ``backoff_max`` each time: what it needs may be back, and no restart waits longer than that.

        With ``at_once``, the first restart of a streak does not wait. ``counts=False`` is for the death of a host that
        is not blamed on the daemon: the restart is delayed, but does not count towards ``max_restarts``.
        """
        self.total += 1
        if ran_for >= options.restart_period:
            self.streak = self.host_deaths = 0
            self.exhausted = False
            self.recent.clear()
        if not counts:
            self.host_deaths += 1
            wait = 0.0 if at_once and self.host_deaths == 1 else _jittered(options, self.host_deaths, rng)
            return wait, Verdict.AGAIN
        self.recent = [then for then in self.recent if now - then < options.restart_period]
        self.recent.append(now)
        self.streak += 1
        if self.exhausted:
            # Jitter over the upper half only: full jitter could retry immediately.
            return rng.uniform(options.backoff_max / 2, options.backoff_max), Verdict.FAILED
        if len(self.recent) > options.max_restarts or self.streak > options.max_restarts:
            return 0.0, Verdict.ELSEWHERE
        wait = 0.0 if at_once and self.streak == 1 else _jittered(options, self.streak, rng)
        return wait, Verdict.AGAIN


def _jittered(options: LauncherOptions, streak: int, rng: random.Random) -> float:
    return rng.uniform(0.0, min(options.backoff_max, options.backoff * 2.0 ** min(streak - 1, _DOUBLINGS)))
