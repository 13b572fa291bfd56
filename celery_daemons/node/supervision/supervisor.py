"""Decide what to do about the daemons that are assigned to this node: events in, commands out.

Pure: no clock (every event carries ``now``, in monotonic seconds), no process, no Redis. The agent carries the commands
out, and calls :meth:`Supervisor.due` at :attr:`Supervisor.next_due_at`.
"""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import BookRow
from celery_daemons.domain.runs import Assignment, ClaimResult, End, Release
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.supervision.commands import Command, HostId, KillHost
from celery_daemons.node.supervision.ending import RunEnds
from celery_daemons.node.supervision.local_daemon import AfterStop, LocalDaemon, State
from celery_daemons.node.supervision.loop_stalls import LoopStalls
from celery_daemons.node.supervision.node_view import NodeView
from celery_daemons.node.supervision.starting import Starter
from celery_daemons.node.supervision.state import NodeState
from celery_daemons.node.supervision.stopping import Stopper
from celery_daemons.node.supervision.timers import BackoffOver, GraceOver, ProbeOver, StallOver, StartOver

logger = logging.getLogger(__name__)


class Supervisor(NodeView):
    """Keeps the assigned daemons running: claims, starts, restarts, stops and releases."""

    def __init__(
        self, launchers: Mapping[LauncherName, LauncherOptions], *, shared_hosts: int, rng: random.Random
    ) -> None:
        super().__init__(NodeState(shared_hosts=shared_hosts))
        self._launchers = launchers
        self._stopper = Stopper(self._state, launchers)
        self._starter = Starter(self._state, launchers)
        self._ends = RunEnds(self._state, launchers, rng)
        self._stalls = LoopStalls(self._state, launchers, self._stopper)

    # From the monitor

    def assigned(self, items: Iterable[Assignment], *, now: float) -> list[Command]:
        """Start each daemon that is not known yet, and restart under a newer token each that is."""
        self._assign(items, now)
        return self._decided(now)

    def recalled(self, items: Iterable[Assignment], *, now: float) -> list[Command]:
        """Stop and release daemons."""
        self._recall(items, now)
        return self._decided(now)

    def synchronised(self, held: Mapping[DaemonName, BookRow | None], *, serial: int, now: float) -> list[Command]:
        """Bring this node in line with the assignments in the book.

        ``held`` is all that the book assigns, ``None`` for a record that cannot be read. ``serial`` is the value of
        :attr:`serial` before the book was read: daemons assigned since then are not missing from it.
        """
        for name, row in held.items():
            if row is None:
                logger.error("daemon %s: its record in the book is corrupt, left alone", name)
            elif row.status is DaemonStatus.STOPPING:
                self._recall([Assignment(name, row.token)], now)
            else:
                self._assign([Assignment(name, row.token)], now)
        for name, daemon in list(self._state.daemons.items()):
            if daemon.serial <= serial and name not in held:
                logger.warning("daemon %s: no longer assigned to this node, stopping", name)
                self._stopper.stop(daemon, AfterStop.DROP, now)
        return self._decided(now)

    def _assign(self, items: Iterable[Assignment], now: float) -> None:
        for name, token in items:
            daemon = self._state.daemons.get(name)
            if daemon is None:
                self._state.add(name, token)
            elif token > daemon.token:
                self._assign_again(daemon, token, now)

    def _assign_again(self, daemon: LocalDaemon, token: Token, now: float) -> None:
        """The book has a newer token for a known daemon: the present run is void, and another starts under that."""
        if daemon.state is State.CLAIMING:
            daemon.token = token
            self._state.claim(daemon)
        elif daemon.state is State.WAITING:
            daemon.token = token
        else:
            daemon.newer_token = token
            self._stopper.stop(daemon, AfterStop.RESTART, now)

    def _recall(self, items: Iterable[Assignment], now: float) -> None:
        for name, token in items:
            daemon = self._state.daemons.get(name)
            if daemon is None:
                self._state.commands.release(Release(name=name, token=token, outcome=Outcome.STOPPED, restarts=0))
            elif token >= daemon.token:
                # A lower token was recalled, released and assigned here again since: the message is late. A higher one
                # was granted in an answer that was lost, and is the one to give back.
                daemon.newer_token = token
                self._stopper.stop(daemon, AfterStop.RELEASE, now)

    # From Redis

    def claimed(self, items: Sequence[Assignment], results: Sequence[ClaimResult], *, now: float) -> list[Command]:
        """Start the daemons whose claims were granted."""
        self._starter.claimed(items, results, now)
        return self._decided(now)

    def withdrawn(self, name: DaemonName, *, now: float) -> list[Command]:
        """Release a daemon whose claim was withdrawn before it was sent."""
        daemon = self._state.daemons.get(name)
        if daemon is not None and daemon.state is State.CLAIMING and daemon.release_on_claim:
            self._state.release(daemon, Outcome.STOPPED)
        return self._decided(now)

    # From the hosts

    def open_hosts(self, *, now: float) -> list[Command]:
        """Open the shared hosts that are missing, unless the node drains."""
        if not self._state.draining:
            self._state.open_shared_hosts(now)
        return self._decided(now)

    def host_ready(self, host_id: HostId, pid: int, *, now: float) -> list[Command]:
        """Start the daemons that wait for a host."""
        host = self._state.hosts.get(host_id)
        if host is not None:
            host.ready, host.pid = True, pid
            if host.trial:
                self._state.commands.add(KillHost(host_id))
            queued, host.queued = host.queued, []
            if queued:
                self._state.start_on(host, queued)
        return self._decided(now)

    def cannot_start(self, problem: str) -> list[Command]:
        """Give back the daemons that wait for a process, and open no process until :meth:`can_start`."""
        self._state.problem = problem
        self._starter.give_back_waiting()
        return self._state.commands.take()

    def can_start(self, *, now: float) -> list[Command]:
        """Start processes again."""
        self._state.problem = ""
        return self.open_hosts(now=now)

    def probe(self, *, now: float) -> list[Command]:
        """Open a host to test whether processes can be started again; a host that gets ready proves that."""
        if self._state.problem and not self._state.draining:
            self._state.try_host(now)
        return self._decided(now)

    def host_answered(self, host_id: HostId) -> None:
        """Note that the event loop of a host has answered a probe."""
        host = self._state.hosts.get(host_id)
        if host is not None:
            host.answered = True

    def started(self, host_id: HostId, items: Iterable[tuple[DaemonName, Token]], *, now: float) -> list[Command]:
        """Report daemons whose code has been called, at once or after the ``start_seconds`` of the launchers."""
        self._starter.started(host_id, items, now)
        return self._decided(now)

    def proven(self, host_id: HostId, items: Iterable[tuple[DaemonName, Token]], *, now: float) -> list[Command]:
        """Report daemons that have called ``ctx.ready()`` before the ``start_seconds`` are over."""
        for name, token in items:
            self._starter.runs(host_id, name, token)
        return self._decided(now)

    def ended(self, host_id: HostId, ends: Iterable[End], *, now: float) -> list[Command]:
        """Decide about ended runs; a run in an isolated host has ended only when the process is dead."""
        for end in ends:
            daemon = self._state.daemon_on(host_id, end.name, end.token)
            if daemon is None or daemon.host is None:
                continue
            host = daemon.host
            daemon.end = daemon.end or end
            if not host.isolated:
                host.names.discard(end.name)
                limit_reached = self._ends.run_ended(daemon, daemon.end, now, silent=False)
                self._stopper.kill_if_only_overdue_left(host)
                if limit_reached:
                    self._stopper.replace_empty(host, daemon, now)
        return self._decided(now)

    def hung(self, host_id: HostId, items: Iterable[tuple[DaemonName, Token]], *, now: float) -> list[Command]:
        """Stop daemons that make no progress, by force if need be; the restart policy counts a failure."""
        for name, token in items:
            daemon = self._state.daemon_on(host_id, name, token)
            if daemon is None or daemon.host is None or daemon.state not in (State.STARTING, State.RUNNING):
                continue
            deadline = self._launchers[daemon.launcher].progress_deadline
            logger.warning("daemon %s: no progress for %s s, ending it", name, deadline)
            daemon.end = End(name, token, Outcome.FAILED, f"hung: no progress for {deadline} s")
            if daemon.host.isolated:
                self._state.commands.add(KillHost(host_id))
            else:
                self._stopper.stop(daemon, AfterStop.POLICY, now, hung=True)
        return self._decided(now)

    def stalled(
        self, host_id: HostId, items: Iterable[tuple[DaemonName, Token, float]], *, now: float
    ) -> list[Command]:
        """Note daemons that have blocked the event loop of a host, each for so many seconds."""
        self._stalls.stalled(host_id, items, now)
        return self._decided(now)

    def loop_blocked(self, host_id: HostId, name: DaemonName, seconds: float, *, now: float) -> list[Command]:
        """Start nothing on a host whose event loop a daemon has blocked for ``seconds``, until :meth:`loop_free`."""
        self._stalls.blocked(host_id, name, seconds, now)
        return self._decided(now)

    def loop_free(self, host_id: HostId) -> None:
        """Use a host again whose event loop was blocked."""
        self._stalls.free(host_id)

    def host_died(self, host_id: HostId, *, now: float, cause: str = "died") -> list[Command]:
        """Decide about every daemon of a dead host process; ``cause`` says how the process ended."""
        host = self._state.hosts.get(host_id)
        if host is None:
            return []
        self._state.forget_host(host)
        for name in list(host.names):
            daemon = self._state.daemons.get(name)
            if daemon is None or daemon.host is not host:
                continue
            # Blame an isolated daemon for the death of its process; daemons that shared the host are not blamed, nor is
            # one that was not started yet.
            counts = (host.isolated and host.ready) or daemon.end is not None
            died = End(name, daemon.token, Outcome.FAILED, f"its host process {host.pid} {cause}")
            self._ends.run_ended(daemon, daemon.end or died, now, silent=daemon.end is None, counts=counts)
        return self._decided(now)

    def memory_measured(self, resident_kib: Mapping[HostId, int], limit_kib: float, *, now: float) -> list[Command]:
        """Replace hosts that use more memory than the limit; both in KiB."""
        self._stopper.replace_oversized(resident_kib, limit_kib, now)
        return self._decided(now)

    # From the clock and the agent

    def due(self, *, now: float) -> list[Command]:
        """Do what is due: kill what has not stopped in time, and claim again what has waited long enough."""
        for timer in self._state.timers.take_due(now):
            match timer:
                case GraceOver():
                    self._stopper.grace_over(timer, now)
                case StartOver(name, host, token):
                    self._starter.runs(host, name, token)
                case StallOver(name, host, token):
                    self._stalls.lasted(name, host, token, now)
                case ProbeOver():
                    self._stopper.probe_over(timer)
                case BackoffOver(name, serial):
                    daemon = self._state.daemons.get(name)
                    if daemon is not None and daemon.serial == serial and daemon.state is State.WAITING:
                        self._state.claim(daemon)
        return self._decided(now)

    def drain(self, *, now: float) -> list[Command]:
        """Stop and give back every daemon, and start none from now on."""
        self._state.draining = True
        for daemon in list(self._state.daemons.values()):
            self._stopper.stop(daemon, AfterStop.RELEASE, now)
        return self._decided(now)

    def forget_all(self) -> None:
        """Forget every daemon: the lease is lost, and every host is killed."""
        self._state.daemons.clear()

    def _decided(self, now: float) -> list[Command]:
        while self._state.never_started:
            daemon = self._state.never_started.popleft()
            end = End(daemon.name, daemon.token, Outcome.STOPPED)
            self._ends.run_ended(daemon, end, now, silent=True)
        return self._state.commands.take()
