"""How daemons are stopped: asked, given their grace, and ended with their host, which the others leave first."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.runs import End
from celery_daemons.domain.states import Outcome
from celery_daemons.node.host_pool import Host, HostPool
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.local_daemon import Afterwards, Life, State
from celery_daemons.node.timers import Timers

logger = logging.getLogger(__name__)

#: Seconds that a host's event loop has to answer in before it counts as blocked, and nothing in it as stoppable.
_SIGN_OF_LIFE: Final = 0.5
#: Seconds that a daemon gets to stop in which made no progress for its whole deadline.
_HUNG_GRACE: Final = 0.5
#: Seconds between two looks at what hosts use.
_MEMORY_LOOK: Final = 5.0
#: A host younger than this many seconds is not recycled for its size: a limit below what the app needs is no hot loop.
_YOUNG: Final = 10.0
_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


class Owner(Protocol):
    """Who keeps the lives, and knows what follows on an end."""

    lives: dict[DaemonName, Life]

    def release(self, life: Life, outcome: Outcome, *, error: str | None = None) -> None:
        """Give it back."""

    def remove(self, life: Life) -> None:
        """Know it no more."""

    def life_ended(self, life: Life, end: End, *, at_once: bool, counts: bool = True) -> None:
        """It has ended."""


class Stopper:
    """Stops lives one by one, and hosts as a whole."""

    def __init__(self, owner: Owner, launchers: Mapping[str, LauncherOptions], timers: Timers) -> None:
        self._owner = owner
        self._launchers = launchers
        self._timers = timers
        self._memory_at = 0.0

    def connect(self, pool: HostPool, ledger: Outbox) -> None:
        """Take the hands it works with."""
        self._pool = pool
        self._ledger = ledger

    def stop(self, life: Life, afterwards: Afterwards, *, hung: bool = False) -> None:
        """Ask a life to end; ``afterwards`` is what follows once it has. One that is ``hung`` gets hardly any grace."""
        if life.state is State.STOPPING:
            # Being given back wins over being started again; with nothing to give back, it is assigned here anew.
            if afterwards is not Afterwards.RESTART or life.afterwards is Afterwards.DROP:
                life.afterwards = afterwards
            return
        life.afterwards = afterwards
        if life.state is State.CLAIMING:
            # The claim may be on its way: what it grants is given back at once.
            life.unwanted = afterwards is not Afterwards.RESTART
            if afterwards is Afterwards.DROP:
                self._owner.remove(life)
            elif afterwards is Afterwards.RELEASE and self._ledger.withdraw(life.name):
                self._owner.release(life, Outcome.STOPPED)
        elif life.state is State.WAITING:
            if afterwards is Afterwards.DROP:
                self._owner.remove(life)
            elif afterwards is Afterwards.RELEASE:
                self._owner.release(life, Outcome.STOPPED)
        else:
            assert life.host is not None
            life.state = State.STOPPING
            host, token = life.host, life.token
            host.stop_daemons([life.name])
            grace = self._launchers[life.launcher].stop_grace
            self._timers.after(
                min(grace, _HUNG_GRACE) if hung else grace, lambda: self._out_of_grace(life, host, token)
            )
            if not host.isolated and not host.ready.is_set():
                # It was taken back before the host saw it.
                host.names.discard(life.name)
                self._owner.life_ended(life, End(life.name, token, Outcome.STOPPED), at_once=True)

    def _out_of_grace(self, life: Life, host: Host, token: Token) -> None:
        if life.state is not State.STOPPING or life.host is not host or life.token != token or host.dead:
            return
        host.overdue.add(life.name)
        if host.isolated:
            logger.warning("daemon %s: did not stop within its grace, killing its process %s", life.name, host.pid)
            host.kill()
        elif host.retiring:
            self.settle(host)
        else:
            self.retire(host, f"daemon {life.name} did not stop within its grace")

    # A host as a whole

    def retire(self, host: Host, why: str) -> None:
        """End a shared host once its daemons, but for those that will not stop, have moved to a fresh one."""
        here = (self._owner.lives.get(DaemonName(name)) for name in host.names)
        others = [life for life in here if life and life.host is host and life.state in (State.STARTING, State.RUNNING)]
        logger.warning("host %s: %s; it is replaced, %d other daemons start anew", host.pid, why, len(others))
        self._pool.retire(host)
        host.probe()
        for life in others:
            self.stop(life, Afterwards.RESTART)
        self._timers.after(_SIGN_OF_LIFE, lambda: self._look_for_life(host))
        self.settle(host)

    def _look_for_life(self, host: Host) -> None:
        if not host.dead and not host.answered:
            # Nothing in it hears that it shall stop, nor gets anything done.
            logger.warning("host %s: its event loop is blocked, killing it", host.pid)
            host.kill()

    def settle(self, host: Host) -> None:
        """End a retiring host if only those are left in it that will not stop."""
        if host.retiring and not host.dead and host.names <= host.overdue:
            host.kill()

    def look_at_memory(self, limit_kib: float | None) -> None:
        """Replace hosts that use more than the limit; called at every heartbeat."""
        now = time.monotonic()
        if limit_kib is None or now < self._memory_at:
            return
        self._memory_at = now + _MEMORY_LOOK
        for host in list(self._pool.all):
            if host.dead or host.retiring or not host.pid or now - host.since < _YOUNG:
                continue
            used = _resident_kib(host.pid)
            if used <= limit_kib:
                continue
            why = f"it uses {used / 1024:.0f} MiB, more than daemons_host_max_memory"
            if not host.isolated:
                self.retire(host, why)
                continue
            for name in host.names:
                life = self._owner.lives.get(DaemonName(name))
                if life is not None and life.state is State.RUNNING:
                    logger.warning("daemon %s: its process %s is replaced: %s", name, host.pid, why)
                    self.stop(life, Afterwards.RESTART)


def _resident_kib(pid: int) -> int:
    """What a process has in memory, pages that it shares included; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_KIB
    except (OSError, IndexError, ValueError):
        return 0
