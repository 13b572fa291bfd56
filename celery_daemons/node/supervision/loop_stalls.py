"""Move a daemon that repeatedly blocks its event loop to a separate process, if its launcher allows that."""

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.node.supervision.commands import HostId
from celery_daemons.node.supervision.local_daemon import AfterStop, LocalDaemon, State
from celery_daemons.node.supervision.state import NodeState
from celery_daemons.node.supervision.stopping import Stopper
from celery_daemons.node.supervision.timers import StallOver

logger = logging.getLogger(__name__)

#: With so many stalls within so many seconds, a daemon of a launcher with ``isolation="auto"`` is moved.
_OFFENCES: Final = 3
_PERIOD: Final = 60.0
#: Seconds after which a single stall that has not ended has the same effect.
_LONGEST_STALL: Final = 5.0


class LoopStalls:
    """Decides what to do about stalls. Times are in monotonic seconds."""

    def __init__(self, state: NodeState, launchers: Mapping[LauncherName, LauncherOptions], stopper: Stopper) -> None:
        self._state = state
        self._launchers = launchers
        self._stopper = stopper

    def stalled(self, host_id: HostId, items: Iterable[tuple[DaemonName, Token, float]], now: float) -> None:
        """Note stalls that are over; the name is empty for code outside of daemons."""
        for name, token, _ in items:
            daemon = self._state.daemon_on(host_id, name, token)
            if daemon is None or not self._may_move(daemon):
                continue
            daemon.stalled_at = [*(at for at in daemon.stalled_at if at > now - _PERIOD), now]
            if len(daemon.stalled_at) >= _OFFENCES:
                self._move(daemon, f"blocked its event loop {_OFFENCES} times within {_PERIOD:g} s", now)

    def blocked(self, host_id: HostId, name: DaemonName, seconds: float, now: float) -> None:
        """Note that a daemon has blocked the event loop of a host for ``seconds``."""
        host = self._state.hosts.get(host_id)
        if host is None:
            return
        host.blocked_since, host.blocked_by = now - seconds, name
        daemon = self._state.daemons.get(name)
        if daemon is not None and daemon.host is host and self._may_move(daemon):
            self._state.timers.set(now - seconds + _LONGEST_STALL, StallOver(name, host_id, daemon.token))

    def free(self, host_id: HostId) -> None:
        """Note that the event loop of a host is no longer blocked."""
        host = self._state.hosts.get(host_id)
        if host is not None:
            host.blocked_since, host.blocked_by = None, ""

    def lasted(self, name: DaemonName, host_id: HostId, token: Token, now: float) -> None:
        """Move a daemon whose stall has not ended within the longest time."""
        daemon = self._state.daemon_on(host_id, name, token)
        if daemon is None or daemon.host is None or not self._may_move(daemon):
            return
        since = daemon.host.blocked_since
        if since is not None and daemon.host.blocked_by == name and now - since >= _LONGEST_STALL:
            self._move(daemon, f"blocks its event loop since {now - since:.0f} s", now)

    def _may_move(self, daemon: LocalDaemon) -> bool:
        options = self._launchers.get(daemon.launcher)
        runs = daemon.state in (State.STARTING, State.RUNNING)
        return options is not None and options.isolation == "auto" and runs and not daemon.alone

    def _move(self, daemon: LocalDaemon, why: str, now: float) -> None:
        logger.warning("daemon %s: %s; moving it to a process of its own", daemon.name, why)
        daemon.alone = True
        self._stopper.stop(daemon, AfterStop.RESTART, now)
