"""The canonical form of a world: worlds with one form have the same future, as far as invariants are concerned.

The form is made of every field that can be reached from the agents, the monitor, the messages on their way and the data
of the server, so that a new field of the product counts without being named here. These are left out or replaced:

* Tokens, epochs and versions are replaced by their rank, and the numbers of hosts and assignments of a node by their
  rank in that node. That is sound: the protocol only compares them, and a token to come is higher than all of them.
* Incarnations are replaced by the order in which their agents started. Dead agents are left out, but for the last one
  of each node, which the next one may name, and senders of messages on their way. The protocol only compares
  incarnations for equality, and no process has the name of any other dead agent.
* Times are replaced by their distance from now, in steps of :data:`STEP_MS` on the clock that measures them, rounded
  up, so that a time that is over differs from one that is not. **This is a heuristic.** Time passes in whole steps, and
  in one millisecond for each call: two worlds that differ in the number of calls since a renewal count as one, and what
  depends on a lease that ends during a call is tried in only one of them. A time more than :data:`PAST` steps ago is
  just past: the longest memory of a decision is the wait before rebalancing, of five steps.
* Of the journal, only the entries count that the monitor has not read, and of these the event, the node and the names:
  a replica reads the records themselves from the hashes.
* Fields that do not affect decisions in the model are left out: tracebacks, logged errors, process ids, the times at
  which nodes and daemons started, counters of which only the next value is used, and caches that follow from other
  fields.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from hashlib import blake2b
from types import FunctionType, MethodType, NoneType
from typing import Any

from celery_daemons.domain.ring import Ring
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.node.supervision.local_daemon import LocalDaemon, LocalHost
from celery_daemons.node.supervision.state import NodeState
from celery_daemons.node.supervision.timers import BackoffOver, GraceOver, ProbeOver, Timers
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.copying import SHARED
from tests.unit.protocol.hosts import ModelHosts
from tests.unit.protocol.left_out import KEYS_LEFT_OUT, fields_of, plain
from tests.unit.protocol.world import TTL_MS, World

#: The milliseconds that pass at once: a heartbeat.
STEP_MS = TTL_MS // 3
#: Steps after which all past times count as equal.
PAST = 8


_NUMBERS = re.compile(r"(\d{13,16})")


class _Rank:
    """A number that is only compared with others of its kind."""

    __slots__ = ("kind", "number")

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number


class Canonical:
    """Walks over a world once and collects its form."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._atoms: list[Any] = []
        self._ranks: dict[str, set[int]] = {}
        self._seen: dict[int, int] = {}
        self._now_ms = world.now / 1000
        #: Milliseconds of time on the clock of the process that is walked over, and how fast the clock runs.
        self._process_ms, self._rate = self._now_ms, 1.0
        self._owner = ""

    def form(self, *parts: object) -> bytes:
        """Return the form of the world, and of ``parts`` beside the agents, the messages and the server."""
        agents = self._relevant_agents()
        self._incarnations = {agent.incarnation: f"#{number}" for number, agent in enumerate(agents)}
        for agent in agents:
            self._walk(agent)
        for part in parts:
            self._owner = type(part).__name__
            self._process_ms, self._rate = self._now_ms, 1.0
            self._walk(part)
        self._walk([flight.act for flight in self._world.flights])
        self._walk_server()
        self._walk([self._world.run_id, sorted(self._world.forgotten), self._world.tokens_seen])
        order = {kind: {n: i for i, n in enumerate(sorted(numbers))} for kind, numbers in self._ranks.items()}
        atoms = [order[atom.kind][atom.number] if type(atom) is _Rank else atom for atom in self._atoms]
        return blake2b(repr(atoms).encode(), digest_size=16).digest()

    def _relevant_agents(self) -> list[ModelAgent]:
        last = {agent.node: agent for agent in self._world.agents if agent.incarnation and not agent.alive}
        senders = {id(flight.sender) for flight in self._world.flights}
        return [
            agent
            for agent in self._world.agents
            if agent.alive or id(agent) in senders or last.get(agent.node) is agent
        ]

    # Values

    def _walk(self, value: Any) -> None:
        kind = type(value)
        handler = _HANDLERS.get(kind)
        if handler is None:
            handler = _HANDLERS[kind] = _handler_of(kind)
        handler(self, value)

    def _atom(self, value: Any) -> None:
        self._atoms.append(value)

    def _constant(self, value: object) -> None:
        self._atoms.append(type(value).__name__)

    def _number(self, value: int) -> None:
        if value >= 1e15:
            self._rank("token", value)
        elif value >= 1e12:
            self._time((value - self._now_ms) / STEP_MS)
        else:
            self._atoms.append(value)

    def _float(self, value: float) -> None:
        if value == 0.0 or math.isinf(value) or (self._rate == 1.0 and value < 1e6):
            self._atoms.append(value)
        else:
            self._time((value * 1000 - self._process_ms) / self._rate / STEP_MS)

    def _text(self, value: str) -> None:
        value = self._incarnations.get(value, value)
        if len(value) < 13:
            self._atoms.append(value)
            return
        for part in _NUMBERS.split(value):
            if len(part) >= 13 and part.isdigit():
                self._number(int(part))
            else:
                self._atoms.append(part)

    def _bytes(self, value: bytes) -> None:
        self._text(value.decode())

    def _enum(self, value: Enum) -> None:
        self._atoms.append(value.value)

    def _list(self, value: Any) -> None:
        self._atoms.append(len(value))
        for item in value:
            self._walk(item)

    def _set(self, value: Any) -> None:
        self._list(sorted(value, key=str))

    def _dict(self, value: Mapping[Any, Any]) -> None:
        self._atoms.append(len(value))
        for key in sorted(value, key=str):
            self._walk(key)
            self._walk(value[key])

    def _time(self, steps: float) -> None:
        self._atoms.append(max(-PAST, math.ceil(steps)))

    def _rank(self, kind: str, number: int) -> None:
        self._ranks.setdefault(kind, set()).add(number)
        self._atoms.append(_Rank(kind, number))

    def _local_rank(self, kind: str, number: int) -> None:
        self._rank(f"{self._owner} {kind}", number)

    # Objects

    def _object(self, value: object) -> None:
        number = self._seen.setdefault(id(value), len(self._seen))
        self._atoms.append(number)
        if number == len(self._seen) - 1:
            names = _FIELDS.get(type(value))
            if names is None:
                # Every class of the product sets all of its fields when it is constructed.
                names = _FIELDS[type(value)] = fields_of(value)
            for name in names:
                self._walk(getattr(value, name))

    def _agent(self, agent: ModelAgent) -> None:
        if id(agent) not in self._seen:
            self._owner = agent.node + agent.incarnation
            self._process_ms, self._rate = agent.now * 1000, agent.rate
        self._atoms.append(self._incarnations.get(agent.incarnation, "gone"))
        if agent.alive:
            self._object(agent)

    def _host(self, host: LocalHost) -> None:
        self._local_rank("host", host.id)
        self._object(host)

    def _hosts(self, hosts: ModelHosts) -> None:
        for host_id, host in sorted(hosts._hosts.items()):
            self._local_rank("host", host_id)
            self._object(host)

    def _state(self, state: NodeState) -> None:
        if id(state) in self._seen:
            return
        self._seen[id(state)] = len(self._seen)
        self._walk([state.daemons, [state.hosts[number] for number in sorted(state.hosts)]])
        self._walk([state._shared, state.draining, state.timers, state.commands, state.never_started])

    def _daemon(self, daemon: LocalDaemon) -> None:
        self._local_rank("serial", daemon.serial)
        self._object(daemon)

    def _rebalancer(self, rebalancer: Rebalancer) -> None:
        # The end of a wave counts while the wave moves something.
        if rebalancer._moving:
            self._float(rebalancer._wave_ends_at)
        self._object(rebalancer)

    def _timers(self, timers: Timers) -> None:
        for at, _, timer in sorted(timers._heap):
            self._float(at)
            self._walk(timer)

    def _timer(self, timer: GraceOver | BackoffOver | ProbeOver) -> None:
        self._atoms.append(type(timer).__name__)
        for name, value in timer._asdict().items():
            if name in ("host", "serial"):
                self._local_rank(name, value)
            else:
                self._walk(value)

    def _call(self, call: ScriptCall[Any]) -> None:
        self._walk([call.verb, call.args])

    def _function(self, function: Any) -> None:
        self._atoms.append(function.__qualname__)

    def _method(self, method: MethodType) -> None:
        self._atoms.append(method.__qualname__)
        self._walk(method.__self__)

    def _partial(self, call: partial[Any]) -> None:
        self._walk([call.func, call.args, call.keywords])

    def _ring(self, ring: Ring) -> None:
        self._set(ring.nodes)

    # The server

    def _walk_server(self) -> None:
        self._process_ms, self._rate = self._now_ms, 1.0
        clock = self._world.clock
        self._atoms.append(clock.ahead)
        data = self._world.double.read(clock.server)
        for key in sorted(data):
            if not KEYS_LEFT_OUT.search(key):
                item = data[key]
                self._atoms.append(key)
                if item.expireat is not None:
                    self._time((item.expireat * 1000 - clock.server / 1000) / STEP_MS)
                self._walk(plain(item.value))


def _handler_of(kind: type) -> Callable[[Canonical, Any], None]:
    for base, handler in _BASES:
        if issubclass(kind, base):
            return handler
    return Canonical._object


_BASES: tuple[tuple[type | tuple[type, ...], Callable[[Canonical, Any], None]], ...] = (
    (ScriptCall, Canonical._call),
    (Ring, Canonical._ring),
    ((World, *SHARED), Canonical._constant),
    (Enum, Canonical._enum),
    ((bool, NoneType), Canonical._atom),
    (int, Canonical._number),
    (float, Canonical._float),
    (str, Canonical._text),
    (bytes, Canonical._bytes),
    ((GraceOver, BackoffOver, ProbeOver), Canonical._timer),
    ((list, tuple, deque), Canonical._list),
    ((set, frozenset), Canonical._set),
    (dict, Canonical._dict),
    (FunctionType, Canonical._function),
    (MethodType, Canonical._method),
    (partial, Canonical._partial),
    (ModelAgent, Canonical._agent),
    (ModelHosts, Canonical._hosts),
    (NodeState, Canonical._state),
    (LocalDaemon, Canonical._daemon),
    (LocalHost, Canonical._host),
    (Rebalancer, Canonical._rebalancer),
    (Timers, Canonical._timers),
)
_FIELDS: dict[type, tuple[str, ...]] = {}
_HANDLERS: dict[type, Callable[[Canonical, Any], None]] = {}
