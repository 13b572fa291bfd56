"""Agents of the model: the product's supervisor, outbox and lease, on hosts and messages that the model controls.

None of the node's logic is written again here. The model replaces only its environment: host processes, which run,
stop, crash and hang as the model decides, and the network between the agent and the server.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from celery_daemons.domain.names import DaemonName, Incarnation, NodeName, Token
from celery_daemons.domain.runs import Assignment, End, StartItem
from celery_daemons.node.node_lease import Forgotten, Lost, NodeLease, Renewed
from celery_daemons.node.outbox import ClaimsAnswered, Outbox
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
from celery_daemons.settings import Settings
from celery_daemons.store import assignments
from celery_daemons.store import lease as verbs
from tests.unit.protocol import audits
from tests.unit.protocol.calls import Caller, ModelStore
from tests.unit.protocol.clock import START_US
from tests.unit.protocol.config import LAUNCHERS, SETTINGS, NoJitter, row_of
from tests.unit.protocol.fork_failures import ForkFailures
from tests.unit.protocol.hosts import ModelHosts
from tests.unit.protocol.sending import Sender
from tests.unit.protocol.world import Fate, World


class ModelAgent:
    """An agent with its hosts, which is one incarnation of a node."""

    def __init__(
        self,
        world: World,
        node: NodeName,
        *,
        name: str,
        previous: "ModelAgent | None",
        rate: float,
        settings: Settings = SETTINGS,
    ) -> None:
        """``name`` is the incarnation to join as; ``rate`` is how fast the agent's clock runs, by the server's."""
        self.world = world
        self.node = node
        self.rate = rate
        self.alive = True
        self.paused = False
        self.hosts = ModelHosts(self, world.note_start)
        #: Events of hosts since the agent was paused.
        self._unread: list[Callable[..., list[Command]]] = []
        self._settings = settings
        self._store = ModelStore(world)
        self._caller = Caller(world, self, self._store, name)
        self.lease = NodeLease(
            store=cast(Any, self._store),
            settings=settings,
            node=node,
            row=row_of(node, Incarnation(previous.incarnation) if previous else None),
        )
        self._forks = ForkFailures(self, apply=self._apply, call=self._call)
        self.supervisor = Supervisor(LAUNCHERS, shared_hosts=1, rng=NoJitter())
        self.outbox = Outbox(keys=world.keys, node=node)
        self.sender = Sender(world, self, self.outbox)
        self._apply(self.supervisor.open_hosts(now=self.now))

    # Clocks

    @property
    def now(self) -> float:
        """Return the seconds on the agent's clock."""
        return (self.world.now - START_US) / 1e6 * self.rate

    @property
    def incarnation(self) -> str:
        """Return the incarnation that the agent joined as; empty before."""
        return self.lease.incarnation or ""

    @property
    def lease_until(self) -> float:
        """Return the end of the lease in the server's microseconds, as the agent's clock measures it."""
        return START_US + self.lease.until / self.rate * 1e6 if self.lease.until else 0

    @property
    def renewed_at(self) -> float:
        """Return when the agent sent the last heartbeat that was answered, in microseconds; 0 before the first."""
        length = self._settings.lease_ttl - self._settings.lease_margin
        return self.lease_until - length / self.rate * 1e6 if self.lease.until else 0

    @property
    def able(self) -> bool:
        """Return whether the agent can run and its lease runs by its own clock."""
        return self.alive and not self.paused and self.lease_until > self.world.now

    @property
    def connected(self) -> bool:
        """Return whether the server that answers now is the accepted one."""
        return self._store.pin.server == self.world.server

    @property
    def claimant(self) -> Incarnation | None:
        """Return the incarnation to claim under; ``None`` if its lease has ended."""
        with self._caller.clock():
            return self.lease.incarnation if self.lease.is_running() else None

    @property
    def confirmed_server(self) -> str | None:
        """Return the server to claim from; ``None`` in the grace period after a change."""
        with self._caller.clock():
            return self.lease.confirmed_server()

    @property
    def running(self) -> dict[DaemonName, Token]:
        """Return what the hosts run, and under which tokens; a process that has not died counts."""
        return self.hosts.running

    # Start, pause and end

    def join(self, fate: Fate, previous: "ModelAgent | None") -> None:
        """Register; an agent that is not registered at once gives up, and the next one starts from scratch."""
        if fate in ("lost", "late"):
            self.alive = False
        audit = audits.of_join(self.world, self, previous)
        self._caller.run(self.lease.join(), [fate], _ignore, audit)

    def kill(self) -> None:
        """Kill the process, and its hosts with it."""
        self.alive = False
        self.hosts.kill_all()

    def pause(self) -> None:
        """Stop the process by a signal; its hosts continue."""
        self.paused = True

    def resume(self) -> None:
        """Let the process continue; first it reads what its hosts have reported."""
        self.paused = False
        unread, self._unread = self._unread, []
        for event in unread:
            self._receive(event)

    def kill_expired_hosts(self) -> None:
        """Kill the hosts if the lease has ended, as the kernel does."""
        if self.lease_until <= self.world.now:
            self.hosts.kill_all()

    # Heartbeats

    def beat(self, *fates: Fate) -> None:
        """Renew the lease; after a loss of data or another server, register again with what runs here.

        ``fates`` are those of the calls that this takes, one after the other; further calls are answered promptly.
        """
        if not self.alive or self.paused or self._caller.waiting:
            return
        if not self.able:
            # Its lease has ended and its hosts are dead: it starts again as another incarnation.
            self.kill()
            return
        self._caller.run(self._beat(), fates, self._beaten, audits.of_beat(self))

    async def _beat(self) -> Renewed | Lost | None:
        """Do what the agent does: without an answer, try again."""
        for _ in range(2):
            answer = await self.lease.beat()
            if isinstance(answer, Forgotten):
                self.outbox.void_replies()
                answer = await self.lease.reassert(self.supervisor.running())
            if answer is not None:
                return answer
        return None

    def _beaten(self, answer: Renewed | Lost | None) -> None:
        if isinstance(answer, Lost):
            self.kill()
        else:
            self._forks.check()
            self._apply(self.supervisor.open_hosts(now=self.now))

    # Assignments

    def receive(self, incarnation: str, assigned: list[Assignment], recalled: list[Assignment]) -> None:
        """Handle a spawn task that arrives."""
        if self.able and incarnation == self.incarnation:
            self._apply(self.supervisor.recalled(recalled, now=self.now))
            self._apply(self.supervisor.assigned(assigned, now=self.now))

    def read_assignments(self) -> None:
        """Read what the book assigns to this node."""
        if self.able and self.connected:
            serial = self.supervisor.serial
            held = self.world.ask(assignments.page(self.world.keys, self.node)).rows
            self._apply(self.supervisor.synchronised(held, serial=serial, now=self.now))

    def look(self, fate: Fate = "prompt") -> None:
        """Read the assignments and do what they ask, up to the daemons that start."""
        self.read_assignments()
        self.finish_stops()
        self.sender.flush(fate)

    def claimed(self, reply: ClaimsAnswered) -> None:
        """Handle the answer to claims."""
        self._apply(self.supervisor.claimed(reply.items, reply.results, now=self.now))

    # Hosts

    def finish_stops(self) -> None:
        """Let daemons that were asked to stop do so, and their processes exit."""
        self.hosts.report_stops()
        self.hosts.bury_ended()

    def run_ended(self, host_id: HostId, end: End) -> None:
        """Handle the report of a daemon's end."""
        self._receive(partial(self.supervisor.ended, host_id, [end]))

    def host_died(self, host_id: HostId) -> None:
        """Handle the death of a host process."""
        self._receive(partial(self.supervisor.host_died, host_id))

    def tick(self) -> None:
        """Do what is due by the clock: grace periods end, and back-offs; forks that failed are tried again."""
        if self.able:
            self._forks.retry()
            self._apply(self.supervisor.due(now=self.now))

    def _receive(self, event: Callable[..., list[Command]]) -> None:
        """Handle an event now, or once the agent continues."""
        if self.alive and self.paused:
            self._unread.append(event)
        elif self.alive:
            self._apply(event(now=self.now))

    def _call(self, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> None:
        self._caller.run(coroutine, (), done)

    # Carries out all commands, as node/command_runner.py does

    def _apply(self, commands: list[Command]) -> None:
        pending = deque(commands)
        while pending:
            command = pending.popleft()
            match command:
                case SendClaims() | SendReports() | SendReleases():
                    self.outbox.put(command)
                case DiscardPending(name):
                    self.outbox.discard(name)
                case WithdrawClaim(name):
                    if self.outbox.withdraw(name):
                        pending.extend(self.supervisor.withdrawn(name, now=self.now))
                case OpenHost(host_id, isolated):
                    if self.hosts.open(host_id, isolated=isolated):
                        self._forks.succeeded()
                        pending.extend(self.supervisor.host_ready(host_id, 1, now=self.now))
                case StartOn(host_id, items):
                    pending.extend(self._started(host_id, items))
                case StopOn(host_id, names):
                    self.hosts.ask_to_stop(host_id, names)
                case KillHost(host_id):
                    self.hosts.kill(host_id)
                case ProbeHost(host_id):
                    self.supervisor.host_answered(host_id)
                case Resync():
                    pass

    def _started(self, host_id: HostId, items: list[StartItem]) -> list[Command]:
        if not self.hosts.start(host_id, items):
            return []
        return self.supervisor.started(host_id, [(item.name, item.token) for item in items], now=self.now)

    def leave(self) -> None:
        """Drain, and leave if nothing is held."""
        if not self.able or not self.connected:
            return
        self._apply(self.supervisor.drain(now=self.now))
        self.finish_stops()
        self.sender.flush()
        if self.supervisor.count == 0 and self.outbox.idle:
            left = self.world.ask(verbs.leave(self.world.keys, self.node, Incarnation(self.incarnation)))
            if left == 0:
                self.kill()


def _ignore(_answer: object) -> None:
    """Do nothing about an answer."""
