"""How daemons are stopped: asked first, then killed with their host, which its other daemons leave before that."""

import logging
from collections.abc import Mapping
from typing import Final

from celery_daemons.domain.names import LauncherName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.states import Outcome
from celery_daemons.node.supervision.commands import HostId, KillHost, ProbeHost, StopOn, WithdrawClaim
from celery_daemons.node.supervision.local_daemon import AfterStop, LocalDaemon, LocalHost, State
from celery_daemons.node.supervision.state import NodeState
from celery_daemons.node.supervision.timers import GraceOver, ProbeOver

logger = logging.getLogger(__name__)

#: Seconds in which a host's event loop has to answer. After that it counts as blocked, and its daemons as unstoppable.
_PROBE_TIMEOUT: Final = 0.5
#: Seconds that a hung daemon gets to stop: it has made no progress for its whole deadline already.
_HUNG_GRACE: Final = 0.5
#: A host younger than this many seconds is not replaced for its size: a limit below what the app needs must not make
#: the node fork hosts without end.
_MIN_AGE: Final = 10.0


class Stopper:
    """Stops single daemons, and replaces whole hosts."""

    def __init__(self, state: NodeState, launchers: Mapping[LauncherName, LauncherOptions]) -> None:
        self._state = state
        self._launchers = launchers

    def stop(self, daemon: LocalDaemon, after_stop: AfterStop, now: float, *, hung: bool = False) -> None:
        """Ask a daemon to stop; ``after_stop`` says what follows. A ``hung`` daemon gets a short grace period only."""
        if daemon.state is State.STOPPING:
            # A release wins over a restart. Over a drop, a restart wins: the daemon was assigned to this node again.
            if after_stop is not AfterStop.RESTART or daemon.after_stop is AfterStop.DROP:
                daemon.after_stop = after_stop
            return
        daemon.after_stop = after_stop
        if daemon.state is State.CLAIMING:
            # The claim may be on its way. If it is granted, the daemon is given back at once.
            daemon.release_on_claim = after_stop is not AfterStop.RESTART
            if after_stop is AfterStop.DROP:
                self._state.forget(daemon)
            elif after_stop is AfterStop.RELEASE:
                self._state.commands.add(WithdrawClaim(daemon.name))
        elif daemon.state is State.WAITING:
            if after_stop is AfterStop.DROP:
                self._state.forget(daemon)
            elif after_stop is AfterStop.RELEASE:
                self._state.release(daemon, Outcome.STOPPED)
        else:
            self._stop_run(daemon, now, hung=hung)

    def _stop_run(self, daemon: LocalDaemon, now: float, *, hung: bool) -> None:
        host = daemon.host
        assert host is not None
        daemon.state, daemon.stopping_since = State.STOPPING, now
        grace = self._launchers[daemon.launcher].stop_grace
        self._state.timers.set(
            now + (min(grace, _HUNG_GRACE) if hung else grace), GraceOver(daemon.name, host.id, daemon.token)
        )
        if host.ready:
            self._state.commands.add(StopOn(host.id, [daemon.name]))
            return
        host.queued = [item for item in host.queued if item.name != daemon.name]
        if host.isolated:
            self._state.commands.add(KillHost(host.id))
        else:
            host.names.discard(daemon.name)
            self._state.never_started.append(daemon)

    def grace_over(self, timer: GraceOver, now: float) -> None:
        """Kill a daemon that has not stopped in time: an isolated host, or a shared host once the others have left."""
        daemon = self._state.daemon_on(timer.host, timer.name, timer.token)
        if daemon is None or daemon.state is not State.STOPPING:
            return
        host = daemon.host
        assert host is not None
        host.overdue.add(daemon.name)
        self._state.tally.killed(daemon.launcher)
        if host.isolated:
            what = "did not stop" if daemon.end is None else "has ended, but not its process,"
            logger.warning("daemon %s: %s within its grace period, killing its process %s", daemon.name, what, host.pid)
            self._state.commands.add(KillHost(host.id))
        elif host.retiring:
            self.kill_if_only_overdue_left(host)
        else:
            self.replace_host(host, f"daemon {daemon.name} did not stop within its grace period", now)

    # Hosts

    def replace_host(self, host: LocalHost, why: str, now: float) -> None:
        """Move the daemons of a shared host to a new host, then kill the old host with those that do not stop."""
        here = [self._state.daemons.get(name) for name in host.names]
        others = [
            daemon
            for daemon in here
            if daemon and daemon.host is host and daemon.state in (State.STARTING, State.RUNNING)
        ]
        logger.warning("host %s: %s; replacing the host, %d other daemons restart", host.pid, why, len(others))
        self._state.retire_host(host, now)
        host.answered = False
        self._state.commands.add(ProbeHost(host.id))
        self._state.timers.set(now + _PROBE_TIMEOUT, ProbeOver(host.id))
        for daemon in others:
            self.stop(daemon, AfterStop.RESTART, now)
        self.kill_if_only_overdue_left(host)

    def probe_over(self, timer: ProbeOver) -> None:
        """Kill a retiring host whose event loop has not answered: no daemon there can stop, and none makes progress."""
        host = self._state.hosts.get(timer.host)
        if host is not None and not host.answered:
            logger.warning("host %s: its event loop is blocked, killing it", host.pid)
            self._state.commands.add(KillHost(host.id))

    def kill_if_only_overdue_left(self, host: LocalHost) -> None:
        """Kill a retiring host once every daemon left there is overdue."""
        if host.retiring and host.names <= host.overdue:
            self._state.commands.add(KillHost(host.id))

    def replace_empty(self, host: LocalHost, daemon: LocalDaemon, now: float) -> None:
        """Replace a shared host in which a daemon has reached its restart limit, if nothing else runs there.

        The cause of the failures may be in the process: a connection of a thread, a cache, a module. A host younger
        than the restart period is kept, so that daemons that always fail cause one fork per period.
        """
        age, period = now - host.opened_at, self._launchers[daemon.launcher].restart_period
        if host.names or host.retiring or age < period:
            return
        logger.warning("host %s: daemon %s keeps failing there, replacing the empty host", host.pid, daemon.name)
        self._state.retire_host(host, now)
        self._state.commands.add(KillHost(host.id))

    def replace_oversized(self, resident_kib: Mapping[HostId, int], limit_kib: float, now: float) -> None:
        """Replace each host that uses more memory than ``limit_kib``."""
        for host_id, used in resident_kib.items():
            host = self._state.hosts.get(host_id)
            if host is None or host.retiring or used <= limit_kib or now - host.opened_at < _MIN_AGE:
                continue
            why = f"it uses {used / 1024:.0f} MiB, more than daemons_host_max_memory"
            if not host.isolated:
                self.replace_host(host, why, now)
                continue
            for name in host.names:
                daemon = self._state.daemons.get(name)
                if daemon is not None and daemon.state is State.RUNNING:
                    logger.warning("daemon %s: replacing its process %s: %s", name, host.pid, why)
                    self.stop(daemon, AfterStop.RESTART, now)
