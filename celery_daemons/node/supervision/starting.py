"""What follows on the answer to a claim: the daemon starts on a host, is given back, or is forgotten."""

import logging
from collections.abc import Iterable, Mapping, Sequence

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.restart import RestartHistory
from celery_daemons.domain.runs import Assignment, ClaimResult, StartItem
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.supervision.commands import HostId, KillHost, Resync
from celery_daemons.node.supervision.local_daemon import LocalDaemon, LocalHost, State
from celery_daemons.node.supervision.state import NodeState
from celery_daemons.node.supervision.timers import StartOver

logger = logging.getLogger(__name__)


class Starter:
    """Starts what Redis has granted."""

    def __init__(self, state: NodeState, launchers: Mapping[LauncherName, LauncherOptions]) -> None:
        self._state = state
        self._launchers = launchers

    def claimed(self, items: Sequence[Assignment], results: Sequence[ClaimResult], now: float) -> None:
        """Start the daemons whose claims were granted."""
        batches: dict[HostId, tuple[LocalHost, list[StartItem]]] = {}
        for (name, token), result in zip(items, results, strict=True):
            daemon = self._state.daemons.get(name)
            if daemon is None or daemon.state is not State.CLAIMING or daemon.token != token:
                continue
            if result.refused == "not wanted":
                self._state.release(daemon, Outcome.STOPPED)
            elif result.refused:
                logger.info("daemon %s: not started: %s", name, result.refused)
                self._state.forget(daemon)
                if result.refused == "superseded":
                    # Perhaps by a claim of this node whose answer was lost: then the book counts on this node.
                    self._state.commands.add(Resync())
            else:
                daemon.token, daemon.newer_token = result.token, None
                daemon.launcher, daemon.arguments, daemon.version = result.launcher, result.arguments, result.version
                daemon.restarts = max(daemon.restarts, result.restarts)
                daemon.history = daemon.history or RestartHistory(exhausted=result.avoid is not None)
                host = self._start(daemon, now)
                if host is not None:
                    item = StartItem(daemon.name, daemon.token, daemon.launcher, daemon.arguments)
                    batches.setdefault(host.id, (host, []))[1].append(item)
        for host, batch in batches.values():
            self._state.start_on(host, batch)

    def _start(self, daemon: LocalDaemon, now: float) -> LocalHost | None:
        """Choose a host for a daemon that may start; ``None`` if the daemon is released instead."""
        options = self._launchers.get(daemon.launcher)
        if daemon.release_on_claim or self._state.draining:
            self._state.release(daemon, Outcome.STOPPED)
            return None
        if options is None:
            why = f"launcher {daemon.launcher} is not registered on this node"
            logger.error("daemon %s: %s", daemon.name, why)
            self._state.release(daemon, Outcome.REFUSED, error=why)
            return None
        daemon.host = self._state.host_for(now, isolated=options.isolation == "process" or daemon.alone)
        if daemon.host is None:
            self._state.release(daemon, Outcome.REFUSED, error=self._state.problem)
            return None
        daemon.state, daemon.end, daemon.started_at = State.STARTING, None, now
        daemon.host.names.add(daemon.name)
        return daemon.host

    def started(self, host_id: HostId, items: Iterable[tuple[DaemonName, Token]], now: float) -> None:
        """Note that the code of daemons has been called."""
        for name, token in items:
            daemon = self._state.daemon_on(host_id, name, token)
            if daemon is None or daemon.state is not State.STARTING:
                continue
            daemon.started_at = now
            pid = daemon.host.pid if daemon.host is not None else 0
            logger.info("daemon %s: started in process %d under token %d", name, pid, token)
            seconds = self._launchers[daemon.launcher].start_seconds
            if seconds:
                self._state.timers.set(now + seconds, StartOver(name, host_id, token))
            else:
                self.runs(host_id, name, token)

    def runs(self, host_id: HostId, name: DaemonName, token: Token) -> None:
        """Report that a daemon runs, unless that run is over or has been reported."""
        daemon = self._state.daemon_on(host_id, name, token)
        if daemon is not None and daemon.state is State.STARTING:
            daemon.state = State.RUNNING
            # An immediate restart had no report of its own; the cause of it is worth one.
            self._state.report(daemon, DaemonStatus.RUNNING, error=daemon.error, trace=daemon.trace)

    def give_back_waiting(self) -> None:
        """Release the daemons that wait for a host: none has been sent to a host."""
        for daemon in list(self._state.daemons.values()):
            host = daemon.host
            if daemon.state is not State.STARTING or host is None or host.ready:
                continue
            host.names.discard(daemon.name)
            host.queued = [item for item in host.queued if item.name != daemon.name]
            self._state.release(daemon, Outcome.REFUSED, error=self._state.problem)
            if host.isolated:
                self._state.commands.add(KillHost(host.id))
