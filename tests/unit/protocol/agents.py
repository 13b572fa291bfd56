"""Agents of the model: the product's supervisor, outbox and lease, on hosts and messages that the model controls.

Nothing of the node's logic is written again here. What the model stands in for is what surrounds it: host processes,
which run, stop, crash and hang as the model says, and the network between the agent and the server.
"""

import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.runs import Assignment, End, StartItem
from celery_daemons.domain.states import NodeStatus, Outcome
from celery_daemons.errors import Fenced, StoreUnavailable
from celery_daemons.node import node_lease as lease_module
from celery_daemons.node.node_lease import Forgotten, Lost, NodeLease, Renewed
from celery_daemons.node.outbox import ClaimsAnswered, Outbox, Request
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
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol import audits
from tests.unit.protocol.clock import START_US
from tests.unit.protocol.world import SLOWEST, TTL_MS, Fate, Flight, World, must

TAIL, ALONE = LauncherName("tail"), LauncherName("alone")
#: The launcher of each daemon of the model.
LAUNCHER_OF = {DaemonName("x"): TAIL, DaemonName("y"): ALONE}
#: A failed run restarts at once, the third in a row makes the node give up; stubborn daemons are killed after a second.
LAUNCHERS = {
    TAIL: LauncherOptions(stop_grace=1.0, max_restarts=2),
    ALONE: LauncherOptions(stop_grace=1.0, max_restarts=2, isolation="process", restart="transient"),
}
ARGUMENTS = "[[], {}]"
SETTINGS = Settings(redis_url="redis://double", namespace="model", lease_ttl=TTL_MS / 1000)


class NoJitter(random.Random):
    """Back-offs without a wait: when a daemon is claimed again is up to the model."""

    def uniform(self, a: float, b: float) -> float:
        """The lower end."""
        return a


def row_of(node: NodeName, previous: Incarnation | None) -> NodeRow:
    """The record under which an agent registers."""
    return NodeRow(
        incarnation=previous or Incarnation(""),
        status=NodeStatus.UP,
        queue=node,
        spawn_queue=f"{node}.spawn",
        host="model",
        pid=1,
        weight=1.0,
        labels="",
        launchers=",".join(sorted(LAUNCHERS)),
    )


class _Step:
    """Something that a coroutine of the agent waits for: a call to the server, or time."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.what)


class _Pin:
    """Stands in for the pinned connection: ``server`` is the one that the agent has accepted."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.server = world.server

    def accept_new_server(self) -> bool:
        """Continue with the server that answers now; whether it is another one."""
        changed = self.server != self._world.server
        self.server = self._world.server
        return changed


class _ModelStore:
    """The agent's way to the server: every call is a step that the model carries out."""

    def __init__(self, world: World) -> None:
        self.keys = world.keys
        self.pin = _Pin(world)

    async def check(self) -> None:
        """The server will do."""

    async def run(self, call: ScriptCall[Any]) -> Any:
        """Let the model carry out a call."""
        return await _Step(call)


@dataclass(eq=False)
class ModelHost:
    """A host process: what runs in it, and what it was asked to stop."""

    isolated: bool
    running: dict[DaemonName, Token] = field(default_factory=dict)
    stopping: set[DaemonName] = field(default_factory=set)
    #: Daemons that have reported their end, in a process that still lives.
    ended: set[DaemonName] = field(default_factory=set)


class ModelAgent:
    """An agent with its hosts: one incarnation of a node."""

    def __init__(self, world: World, node: NodeName, number: int, previous: "ModelAgent | None", rate: float) -> None:
        self.world = world
        self.node = node
        #: How fast its clock runs, compared with the server's.
        self.rate = rate
        self.alive = True
        self.paused = False
        self.hosts: dict[HostId, ModelHost] = {}
        self._name = f"{node}{number}"
        self._request: Request | None = None
        self._busy_beating = False
        self._store: Any = _ModelStore(world)
        self.lease = NodeLease(
            store=self._store,
            settings=SETTINGS,
            node=node,
            row=row_of(node, Incarnation(previous.incarnation) if previous else None),
        )
        self.supervisor = Supervisor(LAUNCHERS, shared_hosts=1, rng=NoJitter())
        self.outbox = Outbox(keys=world.keys, node=node)
        self._apply(self.supervisor.open_hosts(now=self.now))

    # Clocks

    @property
    def now(self) -> float:
        """Seconds on its own clock."""
        return (self.world.now - START_US) / 1e6 * self.rate

    @property
    def incarnation(self) -> str:
        """The incarnation that it joined as; empty before."""
        return self.lease.incarnation or ""

    @property
    def lease_until(self) -> float:
        """The end of its lease in the server's microseconds, as its own clock measures it."""
        return START_US + self.lease.until / self.rate * 1e6 if self.lease.until else 0

    @property
    def able(self) -> bool:
        """Whether it can run and, as far as it knows, may."""
        return self.alive and not self.paused and self.lease_until > self.world.now

    @property
    def running(self) -> dict[DaemonName, Token]:
        """What its hosts run, and under which tokens; a process that has not died counts."""
        return {name: token for host in self.hosts.values() for name, token in host.running.items()}

    # Life and death

    def join(self, fate: Fate, previous: "ModelAgent | None") -> None:
        """Register; an agent that is not registered at once gives up, and the next one starts from scratch."""
        if fate in ("lost", "late"):
            self.alive = False
        audit = audits.of_join(self.world, self, previous)
        self._drive(self.lease.join(), [fate], lambda _: None, audit)

    def kill(self) -> None:
        """The process ends, and its hosts with it."""
        self.alive = False
        self.hosts.clear()

    def kill_expired_hosts(self) -> None:
        """The kernel kills hosts whose lease has ended."""
        if self.lease_until <= self.world.now:
            for host_id in list(self.hosts):
                self._host_dies(host_id, report=self.alive and not self.paused)

    def lose_connection(self) -> None:
        """The server is gone: no answer arrives any longer on the old connection."""
        if self._request is not None:
            self.outbox.failed(self._request)
            self._request = None

    # Heartbeats

    def beat(self, *fates: Fate) -> None:
        """Renew the lease; after a loss of data or another server, register again with what runs here.

        ``fates`` are those of the calls that this takes, one after the other; further calls are answered promptly.
        """
        if not self.alive or self.paused or self._busy_beating:
            return
        if not self.able:
            # Its lease has ended and its hosts are dead: it starts again as another incarnation.
            self.kill()
            return
        self._drive(self._beat(), fates, self._beaten, audits.of_beat(self))

    async def _beat(self) -> Renewed | Lost | None:
        """As the agent does it: without an answer, try again."""
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
            self._apply(self.supervisor.open_hosts(now=self.now))

    # Assignments

    def receive(self, incarnation: str, assigned: list[Assignment], recalled: list[Assignment]) -> None:
        """A spawn task arrives."""
        if self.able and incarnation == self.incarnation:
            self._apply(self.supervisor.recalled(recalled, now=self.now))
            self._apply(self.supervisor.assigned(assigned, now=self.now))

    def read_assignments(self) -> None:
        """Read what the book assigns to this node."""
        if self.able and self._connected:
            serial = self.supervisor.serial
            held = self.world.ask(assignments.page(self.world.keys, self.node)).rows
            self._apply(self.supervisor.synchronised(held, serial=serial, now=self.now))

    def look(self, fate: Fate = "prompt") -> None:
        """Read the assignments and do what they ask, up to the daemons that start."""
        self.read_assignments()
        self.finish_stops()
        self.flush(fate)

    def flush(self, fate: Fate = "prompt") -> None:
        """Send what is pending: one request with this fate, and then as many as are answered promptly."""
        while self.send_one(fate) and fate == "prompt":
            pass

    def send_one(self, fate: Fate) -> bool:
        """Send one request of the outbox; False if none may be sent, or if the monitor has to confirm the server."""
        if not self.alive or self.paused or not self._connected or self._request is not None:
            return False
        with self._clock():
            running = self.lease.is_running()
            server = self.lease.confirmed_server()
        request = self.outbox.next_request(incarnation=self.lease.incarnation if running else None, server=server)
        if request is None:
            return False
        audit = self._audit_of(request)
        if fate == "late":
            self.outbox.failed(request)
            self.world.flights.append(Flight(self, lambda: self.world.carry_out(request.call, audit)))
            return True
        answer = self.world.carry_out(request.call, audit)
        if fate == "lost":
            self.outbox.failed(request)
        elif fate == "slow":
            self._request = request
            self.world.flights.append(Flight(self, lambda: self._answered(request, answer)))
        else:
            self._request = request
            return self._answered(request, answer)
        return True

    def _answered(self, request: Request, answer: Any) -> bool:
        if not self.alive or self._request is not request:
            return False
        self._request = None
        if isinstance(answer, Fenced):
            self.outbox.failed(request)
            return False
        reply = self.outbox.answered(request, answer)
        if isinstance(reply, ClaimsAnswered):
            self._apply(self.supervisor.claimed(reply.items, reply.results, now=self.now))
        return reply is None or isinstance(reply, ClaimsAnswered)

    @property
    def _connected(self) -> bool:
        return bool(self._store.pin.server == self.world.server)

    def _audit_of(self, request: Request) -> audits.Audit:
        match request.call.verb:
            case "claim":
                return audits.of_claim(self.world, self, list(request.batch.items()))
            case "report":
                return audits.of_report(self, list(request.batch.values()))
            case _:
                return audits.of_release(self, list(request.batch.values()))

    # Hosts

    def finish_stops(self) -> None:
        """Daemons that were asked to stop do so."""
        self.report_stops()
        self.bury_ended()

    def report_stops(self) -> None:
        """Daemons that were asked to stop report their end; a process that ran one for itself still lives."""
        for host_id, host in list(self.hosts.items()):
            for name in list(host.stopping):
                self._end(host_id, host, name, Outcome.STOPPED)

    def end_run(self, name: DaemonName, outcome: Outcome) -> None:
        """A daemon's code ends by itself."""
        for host_id, host in list(self.hosts.items()):
            if name in host.running and name not in host.ended and self.able:
                self._end(host_id, host, name, outcome)

    def bury_ended(self) -> None:
        """Processes whose only daemon has ended are dead."""
        for host_id, host in list(self.hosts.items()):
            if host.isolated and host.ended:
                self._host_dies(host_id)

    def crash_host(self, name: DaemonName) -> None:
        """The process that runs a daemon dies without a report."""
        for host_id, host in list(self.hosts.items()):
            if name in host.running:
                self._host_dies(host_id)

    def tick(self) -> None:
        """What is due by the clock is done: grace periods end, and back-offs."""
        if self.able:
            self._apply(self.supervisor.due(now=self.now))

    def _end(self, host_id: HostId, host: ModelHost, name: DaemonName, outcome: Outcome) -> None:
        host.stopping.discard(name)
        token = host.running[name]
        if host.isolated:
            host.ended.add(name)
        else:
            del host.running[name]
        if self.alive and not self.paused:
            self._apply(self.supervisor.ended(host_id, [End(name, token, outcome)], now=self.now))

    def _host_dies(self, host_id: HostId, *, report: bool = True) -> None:
        del self.hosts[host_id]
        if report:
            self._apply(self.supervisor.host_died(host_id, now=self.now))

    def _start(self, host_id: HostId, items: list[StartItem]) -> None:
        host = self.hosts.get(host_id)
        if host is None:
            return
        for item in items:
            must(item.name not in self.running, f"{item.name} was started twice on {self.incarnation}")
            self.world.note_start(item.name, item.token)
            host.running[item.name] = item.token
        self._apply(self.supervisor.started(host_id, [(item.name, item.token) for item in items], now=self.now))

    # The one place that carries commands out, as node/command_runner.py

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
                    self.hosts[host_id] = ModelHost(isolated)
                    pending.extend(self.supervisor.host_ready(host_id, 1, now=self.now))
                case StartOn(host_id, items):
                    self._start(host_id, items)
                case StopOn(host_id, names):
                    host = self.hosts.get(host_id)
                    if host is not None:
                        host.stopping.update(name for name in names if name in host.running)
                case KillHost(host_id):
                    if host_id in self.hosts:
                        self._host_dies(host_id)
                case ProbeHost(host_id):
                    self.supervisor.host_answered(host_id)
                case Resync():
                    pass

    def leave(self) -> None:
        """Drain, and leave if nothing is held."""
        if not self.able or not self._connected:
            return
        self._apply(self.supervisor.drain(now=self.now))
        self.finish_stops()
        self.flush()
        if self.supervisor.count == 0 and self.outbox.idle:
            left = self.world.ask(verbs.leave(self.world.keys, self.node, Incarnation(self.incarnation)))
            if left == 0:
                self.kill()

    # Driving coroutines

    def _clock(self) -> Any:
        """The clock, the names and the waits of the lease's module, as this agent has them."""
        return mock.patch.multiple(
            lease_module,
            lease_clock=lambda: self.now,
            secrets=SimpleNamespace(token_hex=lambda _size: self._name),
            asyncio=SimpleNamespace(sleep=_Step),
        )

    def _drive(
        self,
        coroutine: Coroutine[Any, Any, Any],
        fates: Sequence[Fate],
        done: Callable[[Any], None],
        audit: audits.Audit | None = None,
    ) -> None:
        """Run a coroutine of the agent; its calls have these fates, and further ones are answered promptly."""
        step: ScriptCall[Any] | float | None = self._advance(coroutine, None, done)
        pending = deque(fates)
        while isinstance(step, ScriptCall):
            call = step
            if self._store.pin.server != self.world.server:
                step = self._advance(coroutine, StoreUnavailable("another server"), done)
                continue
            fate = pending.popleft() if pending else "prompt"
            if fate == "late":
                self.world.flights.append(Flight(self, partial(self.world.carry_out, call, audit)))
                step = self._advance(coroutine, StoreUnavailable("no answer"), done)
                continue
            answer = self.world.carry_out(call, audit)
            if fate == "lost":
                step = self._advance(coroutine, StoreUnavailable("no answer"), done)
            elif fate == "slow":
                self._busy_beating = True
                self.world.flights.append(Flight(self, partial(self._resume, coroutine, answer, done)))
                return
            else:
                step = self._advance(coroutine, answer, done)
            audit = None
        if step is not None:
            # It waits for time to pass: an agent that cannot join. The worker starts another.
            coroutine.close()
            self.kill()

    def _resume(self, coroutine: Coroutine[Any, Any, Any], answer: Any, done: Callable[[Any], None]) -> None:
        self._busy_beating = False
        if not self.alive:
            coroutine.close()
            return
        step = self._advance(coroutine, answer, done)
        while isinstance(step, ScriptCall):
            if self._store.pin.server != self.world.server:
                step = self._advance(coroutine, StoreUnavailable("another server"), done)
            else:
                step = self._advance(coroutine, self.world.carry_out(step, None), done)
        if step is not None:
            coroutine.close()
            self.kill()

    def _advance(self, coroutine: Coroutine[Any, Any, Any], answer: Any, done: Callable[[Any], None]) -> Any:
        """Give a coroutine an answer; return what it waits for next, ``None`` once it is done."""
        with self._clock():
            try:
                if isinstance(answer, Exception):
                    return coroutine.throw(answer)
                return coroutine.send(answer)
            except StopIteration as stop:
                result = stop.value
        done(result)
        return None


class Nodes:
    """Starts agents, and finds them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._count = 0

    def start(self, node: NodeName, previous: ModelAgent | None, fate: Fate, rate: float = SLOWEST) -> ModelAgent:
        """A new agent joins; ``previous`` is a dead one that the same worker started before it."""
        self._count += 1
        agent = ModelAgent(self.world, node, self._count, previous, rate)
        self.world.agents.append(agent)
        agent.join(fate, previous)
        return agent
