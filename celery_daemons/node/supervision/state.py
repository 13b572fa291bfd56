"""The daemons and hosts of this node, and the commands decided so far: what all parts of the supervisor share."""

from collections import deque
from typing import Final

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import Release, Report, Running, StartItem
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.supervision.commands import CommandList, DiscardPending, HostId, OpenHost, StartOn
from celery_daemons.node.supervision.local_daemon import LocalDaemon, LocalHost, State
from celery_daemons.node.supervision.run_tally import RunTally
from celery_daemons.node.supervision.timers import Timers

_STATUS: Final = {State.RUNNING: DaemonStatus.RUNNING, State.STARTING: DaemonStatus.STARTING}


class NodeState:
    """Bookkeeping without decisions."""

    def __init__(self, *, shared_hosts: int) -> None:
        self.daemons: dict[DaemonName, LocalDaemon] = {}
        self.hosts: dict[HostId, LocalHost] = {}
        self.draining = False
        #: Why no process can be started; empty while processes start.
        self.problem = ""
        self.timers = Timers()
        self.commands = CommandList()
        #: Daemons that were taken back before their host was ready: their run has ended without having begun.
        self.never_started: deque[LocalDaemon] = deque()
        #: The serial of the newest daemon.
        self.serial = 0
        self.tally = RunTally()
        self._shared_hosts = shared_hosts
        self._shared: list[LocalHost] = []
        self._last_host = 0

    # Daemons

    def add(self, name: DaemonName, token: Token) -> None:
        """Add and claim an assigned daemon."""
        self.serial += 1
        self.daemons[name] = LocalDaemon(name, token, self.serial)
        self.commands.claim(name, token)

    def claim(self, daemon: LocalDaemon) -> None:
        """Claim a daemon again."""
        daemon.state = State.CLAIMING
        self.commands.claim(daemon.name, daemon.token)

    def report(
        self, daemon: LocalDaemon, status: DaemonStatus, *, error: str | None = None, trace: str | None = None
    ) -> None:
        """Report the state of a daemon."""
        self.commands.report(
            Report(
                name=daemon.name,
                token=daemon.token,
                status=status,
                pid=daemon.host.pid if daemon.host else 0,
                restarts=daemon.restarts,
                error=error,
                trace=trace,
            )
        )

    def release(self, daemon: LocalDaemon, outcome: Outcome, *, error: str | None = None) -> None:
        """Release and forget a daemon."""
        self.forget(daemon)
        self.commands.release(
            Release(
                name=daemon.name,
                token=daemon.newer_token or daemon.token,
                outcome=outcome,
                restarts=daemon.restarts,
                error=error,
                trace=daemon.trace if error else None,
            )
        )

    def forget(self, daemon: LocalDaemon) -> None:
        """Forget a daemon without a release."""
        if self.daemons.get(daemon.name) is daemon:
            del self.daemons[daemon.name]
            self.commands.add(DiscardPending(daemon.name))

    def confirmed(self) -> list[Running]:
        """Return every daemon that Redis once confirmed."""
        return [
            Running(
                name=daemon.name,
                token=daemon.token,
                launcher=daemon.launcher,
                arguments=daemon.arguments,
                version=daemon.version,
                status=_STATUS.get(daemon.state, DaemonStatus.BACKOFF),
                pid=daemon.host.pid if daemon.host else 0,
                restarts=daemon.restarts,
            )
            for daemon in self.daemons.values()
            if daemon.launcher
        ]

    def daemon_on(self, host: HostId, name: DaemonName, token: Token) -> LocalDaemon | None:
        """Return the daemon that runs on a host under a token; ``None`` if that run is not the present run."""
        daemon = self.daemons.get(name)
        if daemon is None or daemon.token != token or daemon.host is None or daemon.host.id != host:
            return None
        return daemon

    # Hosts

    def open_shared_hosts(self, now: float) -> None:
        """Bring the number of shared hosts up to the setting ``daemons_hosts``, unless no process can be started."""
        while not self.problem and len(self._shared) < self._shared_hosts:
            self._shared.append(self._open(now, isolated=False))

    def host_for(self, now: float, *, isolated: bool) -> LocalHost | None:
        """Return a new host for a daemon, or the shared host that holds the fewest; ``None`` without a usable host.

        While the event loops of all shared hosts are blocked, one more host is opened.
        """
        if isolated:
            return None if self.problem else self._open(now, isolated=True)
        self.open_shared_hosts(now)
        if not self.problem and all(host.blocked_since is not None for host in self._shared):
            self._shared.append(self._open(now, isolated=False))
        usable = [host for host in self._shared if host.blocked_since is None and (host.ready or not self.problem)]
        return min(usable, key=lambda host: len(host.names), default=None)

    def try_host(self, now: float) -> None:
        """Open a host to test whether processes can be started, unless a host is being opened already."""
        if all(host.ready for host in self.hosts.values()):
            self._open(now, isolated=False).trial = True

    def start_on(self, host: LocalHost, items: list[StartItem]) -> None:
        """Start daemons on a host, now or as soon as the host is ready."""
        if host.ready:
            self.commands.add(StartOn(host.id, items))
        else:
            host.queued += items

    def retire_host(self, host: LocalHost, now: float) -> None:
        """Stop giving daemons to a shared host, and open another host instead."""
        host.retiring = True
        self._leave_shared(host)
        self.open_shared_hosts(now)

    def forget_host(self, host: LocalHost) -> None:
        """Forget a dead host."""
        self.hosts.pop(host.id, None)
        self._leave_shared(host)

    def _open(self, now: float, *, isolated: bool) -> LocalHost:
        self._last_host += 1
        host = LocalHost(HostId(self._last_host), isolated, now)
        self.hosts[host.id] = host
        self.commands.add(OpenHost(host.id, isolated))
        return host

    def _leave_shared(self, host: LocalHost) -> None:
        if host in self._shared:
            self._shared.remove(host)
