"""The one place where a decision becomes an act: carries the supervisor's commands out, and returns what comes back."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable

from celery_daemons.node.alarm import Alarm
from celery_daemons.node.assignment_sync import AssignmentSync
from celery_daemons.node.host_pool import ForkFailed, HostDied, HostEvent, HostPool
from celery_daemons.node.inspector import Inspector
from celery_daemons.node.outbox import ClaimsAnswered, Outbox, Reply
from celery_daemons.node.outbox_sender import OutboxSender
from celery_daemons.node.serving import Serving
from celery_daemons.node.stall_counts import StallCounts
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
from celery_daemons.wire.messages import (
    Alive,
    Ended,
    Hung,
    LoadFailed,
    LoopBlocked,
    LoopFree,
    Proven,
    Ready,
    StackAnswer,
    Stalled,
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
        stall_counts: StallCounts,
        inspector: Inspector,
    ) -> None:
        self._supervisor = supervisor
        self._outbox = outbox
        self._sender = sender
        self._hosts = hosts
        self._sync = sync
        self._serving = serving
        self._stall_counts = stall_counts
        self._inspector = inspector
        self._alarm = Alarm(self._on_alarm)
        self._first_host: HostId | None = None
        #: Whether the first host has loaded the app; False if it died before that.
        self.app_loaded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        #: Why a host could not load the app.
        self.load_error: str | None = None

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
            self.apply(self._supervisor.claimed(reply.items, reply.results, now=time.monotonic()))
        else:
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
            case Stalled(stalls):
                self._stall_counts.add(stalls)
                self.apply(self._supervisor.stalled(host, stalls, now=now))
            case LoopBlocked(name, _, seconds):
                self.apply(self._supervisor.loop_blocked(host, name, seconds, now=now))
            case LoopFree():
                self._supervisor.loop_free(host)
            case StackAnswer(question, answer):
                self._inspector.on_stack(question, answer)
            case Alive():
                self._supervisor.host_answered(host)
            case Ready(pid):
                self._serving.host_ready()
                self._note_first_host(host, loaded=True)
                self.apply(self._supervisor.host_ready(host, pid, now=now))
            case LoadFailed(error):
                self.load_error = error
                self._serving.load_failed(error, now=now)
            case ForkFailed(reason):
                self._serving.fork_failed(reason, now=now)
            case HostDied(cause):
                self._note_first_host(host, loaded=False)
                self.apply(self._supervisor.host_died(host, now=now, cause=cause))

    def _on_alarm(self) -> None:
        self.apply(self._supervisor.due(now=time.monotonic()))

    def _note_first_host(self, host: HostId, *, loaded: bool) -> None:
        if host == self._first_host and not self.app_loaded.done():
            self.app_loaded.set_result(loaded)
