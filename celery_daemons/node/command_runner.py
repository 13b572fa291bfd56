"""Carry out the supervisor's commands, and return the results as events. No other code does that."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable

from celery_daemons.node.alarm import Alarm
from celery_daemons.node.assignment_sync import AssignmentSync
from celery_daemons.node.host_pool import ForkFailed, HostDied, HostEvent, HostPool
from celery_daemons.node.inspector import Inspector
from celery_daemons.node.measurements import Measurements
from celery_daemons.node.outbox import ClaimsAnswered, Outbox, Reply
from celery_daemons.node.outbox_sender import OutboxSender
from celery_daemons.node.serving import Serving
from celery_daemons.node.supervision.commands import (
    Command,
    DiscardPending,
    HostId,
    KillHost,
    OpenHost,
    ProbeHost,
    Resync,
    SendClaims,
    SendReleases,
    SendReports,
    StartOn,
    StopOn,
    WithdrawClaim,
)
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.node.vitals import Vitals
from celery_daemons.wire.loop_messages import LoopBlocked, LoopFree, StackAnswer, Stalled
from celery_daemons.wire.messages import (
    Alive,
    Ended,
    HostNumbers,
    Hung,
    LoadFailed,
    Proven,
    Ready,
    Started,
)


class CommandRunner:
    """Connects the supervisor with hosts, outbox and clock. Runs in the agent's loop and never waits."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        outbox: Outbox,
        sender: OutboxSender,
        hosts: HostPool,
        sync: AssignmentSync,
        serving: Serving,
        inspector: Inspector,
        vitals: Vitals,
        measurements: Measurements,
    ) -> None:
        self._supervisor = supervisor
        self._outbox = outbox
        self._sender = sender
        self._hosts = hosts
        self._sync = sync
        self._serving = serving
        self._inspector = inspector
        self._vitals = vitals
        self._measurements = measurements
        self._alarm = Alarm(self._on_alarm)
        self._first_host: HostId | None = None
        #: Set once the first host has loaded the app, or ``serving`` knows why none can.
        self.tried_app = asyncio.Event()

    def apply(self, commands: Iterable[Command]) -> None:
        """Carry out commands, and the commands that follow from these."""
        pending = deque(commands)
        while pending:
            command = pending.popleft()
            match command:
                case SendClaims() | SendReports() | SendReleases():
                    self._outbox.put(command)
                    self._sender.wake()
                case DiscardPending(name):
                    self._outbox.discard(name)
                case WithdrawClaim(name):
                    if self._outbox.withdraw(name):
                        pending.extend(self._supervisor.withdrawn(name, now=time.monotonic()))
                case OpenHost(host, isolated):
                    if self._first_host is None:
                        self._first_host = host
                    self._measurements.host_opened(host, isolated=isolated)
                    self._hosts.open(host, isolated=isolated, handle=self._on_host)
                case StartOn(host, items):
                    self._hosts[host].start(items)
                case StopOn(host, names):
                    self._hosts[host].stop(names)
                case ProbeHost(host):
                    self._hosts[host].probe()
                case KillHost(host):
                    self._hosts[host].kill()
                case Resync():
                    self._sync.invalidate()
        self._alarm.set(self._supervisor.next_due_at)

    def on_reply(self, reply: Reply) -> None:
        """Hand the supervisor what Redis replied."""
        if isinstance(reply, ClaimsAnswered):
            self._measurements.fenced["claim"] += sum(result.refused == "superseded" for result in reply.results)
            self.apply(self._supervisor.claimed(reply.items, reply.results, now=time.monotonic()))
        else:
            self._measurements.fenced["report"] += 1
            self._sync.invalidate()

    def _on_host(self, host: HostId, event: HostEvent) -> None:
        now = time.monotonic()
        match event:
            case Started(items):
                self.apply(self._supervisor.started(host, items, now=now))
            case Proven(items):
                self.apply(self._supervisor.proven(host, items, now=now))
            case Ended(ends):
                self.apply(self._supervisor.ended(host, ends, now=now))
            case Hung(items):
                self.apply(self._supervisor.hung(host, items, now=now))
            case Stalled() | LoopBlocked() | LoopFree():
                self._on_loop(host, event, now)
            case StackAnswer(question, answer):
                self._inspector.on_stack(question, answer)
            case Alive():
                self._supervisor.host_answered(host)
            case HostNumbers(loop_lag):
                self._vitals.host_answered(host, now)
                self._measurements.host_answered(host, loop_lag)
            case Ready(pid):
                self._vitals.host_ready(host, f"the loop of host {pid}", now)
                self._serving.host_ready()
                self.tried_app.set()
                self.apply(self._supervisor.host_ready(host, pid, now=now))
            case LoadFailed(error):
                self._serving.load_failed(error, now=now)
                self.tried_app.set()
            case ForkFailed(reason):
                self._serving.fork_failed(reason, now=now)
                if self._serving.problem:
                    self.tried_app.set()
            case HostDied(end):
                if host == self._first_host and not self.tried_app.is_set():
                    self._serving.load_failed(f"the process that loads the app {end.cause}", now=now)
                    self.tried_app.set()
                self._vitals.host_gone(host)
                self._measurements.host_died(host, end)
                self.apply(self._supervisor.host_died(host, now=now, cause=end.cause))

    def _on_loop(self, host: HostId, event: Stalled | LoopBlocked | LoopFree, now: float) -> None:
        match event:
            case Stalled(stalls):
                self._measurements.stalled(seconds for _, _, seconds in stalls)
                self.apply(self._supervisor.stalled(host, stalls, now=now))
            case LoopBlocked(name, _, seconds):
                self.apply(self._supervisor.loop_blocked(host, name, seconds, now=now))
            case LoopFree():
                self._supervisor.loop_free(host)

    def _on_alarm(self) -> None:
        self.apply(self._supervisor.due(now=time.monotonic()))
