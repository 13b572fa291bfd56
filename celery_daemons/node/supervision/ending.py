"""What follows when a run of a daemon has ended: nothing, a release, or another start, at once or after a back-off."""

import logging
import random
from collections.abc import Mapping
from typing import Final

from celery_daemons.domain.names import LauncherName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.restart import RestartHistory, Verdict, restarts_after
from celery_daemons.domain.runs import End
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.supervision.local_daemon import AfterStop, LocalDaemon, State
from celery_daemons.node.supervision.state import NodeState
from celery_daemons.node.supervision.timers import BackoffOver

logger = logging.getLogger(__name__)

#: Seconds of back-off below which the daemon is claimed at once, without a report.
_NO_BACKOFF: Final = 0.05


class RunEnds:
    """Decides about ended runs."""

    def __init__(self, state: NodeState, launchers: Mapping[LauncherName, LauncherOptions], rng: random.Random) -> None:
        self._state = state
        self._launchers = launchers
        self._rng = rng

    def run_ended(self, daemon: LocalDaemon, end: End, now: float, *, silent: bool, counts: bool = True) -> bool:
        """Decide what follows on the end of a run; return whether the daemon has reached its restart limit here.

        ``silent`` marks a process that died without a report: the first restart is immediate. An end that does not
        count was caused by the host and is not blamed on the daemon.
        """
        daemon.host = None
        # The run is over: from here on the token of the book counts.
        daemon.token, daemon.newer_token = daemon.newer_token or daemon.token, None
        stopping = daemon.state is State.STOPPING
        if stopping:
            self._state.tally.stopped(daemon.launcher, now - daemon.stopping_since)
        # A daemon that ended by itself while it was asked to stop ends under its policy; a killed one does not.
        by_itself = daemon.end is not None or not (stopping or self._state.draining)
        if stopping and daemon.after_stop is AfterStop.DROP:
            self._log_stop(daemon, "this node no longer has it")
            self._state.forget(daemon)
        elif by_itself and not restarts_after(self._launchers[daemon.launcher], end.outcome):
            logger.info("daemon %s: %s; its restart policy asks for no other start", daemon.name, end.outcome)
            daemon.trace = end.trace
            self._state.release(daemon, Outcome.FINISHED, error=end.error)
        elif (stopping and daemon.after_stop is AfterStop.RELEASE) or self._state.draining:
            self._log_stop(daemon, "the node gives everything back" if self._state.draining else "recalled")
            self._state.release(daemon, Outcome.STOPPED)
        elif stopping and daemon.after_stop is AfterStop.RESTART:
            self._log_stop(daemon, "it starts again on this node")
            daemon.restarts += 1
            self._state.tally.restarted(daemon.launcher, "requested")
            self._state.claim(daemon)
        else:
            return self._restart(daemon, end, now, silent=silent, counts=counts)
        return False

    def _log_stop(self, daemon: LocalDaemon, why: str) -> None:
        if daemon.started_at:
            logger.info("daemon %s: stopped: %s", daemon.name, why)

    def _restart(self, daemon: LocalDaemon, end: End, now: float, *, silent: bool, counts: bool) -> bool:
        daemon.history = daemon.history or RestartHistory()
        delay, verdict = daemon.history.next_delay(
            self._launchers[daemon.launcher],
            now=now,
            ran_for=now - daemon.started_at,
            rng=self._rng,
            at_once=silent,
            counts=counts,
        )
        if end.hopeless:
            # The same code is on the other nodes, and fails again whatever the policy allows.
            delay, verdict = self._launchers[daemon.launcher].backoff_max, Verdict.FAILED
        daemon.restarts += 1
        daemon.error, daemon.trace = end.error, end.trace
        why = end.error or f"{end.outcome} by itself"
        # A host logs the errors that it reports, with the traceback. It does not log an end without an error.
        known = why if silent or end.error is None else end.outcome
        if verdict is Verdict.ELSEWHERE:
            logger.warning(
                "daemon %s: %s; restart limit reached on this node, releasing it to another", daemon.name, known
            )
            self._state.release(daemon, Outcome.EXHAUSTED, error=why)
            return True
        self._state.tally.restarted(daemon.launcher, end.outcome)
        failed = verdict is Verdict.FAILED
        logger.log(
            logging.ERROR if failed else logging.WARNING,
            "daemon %s: %s, next start in %.1f s",
            daemon.name,
            known,
            delay,
        )
        if delay < _NO_BACKOFF:
            self._state.claim(daemon)
        else:
            daemon.state = State.WAITING
            status = DaemonStatus.FAILED if failed else DaemonStatus.BACKOFF
            self._state.report(daemon, status, error=why, trace=end.trace)
            self._state.timers.set(now + delay, BackoffOver(daemon.name, daemon.serial))
        return failed and not end.hopeless
