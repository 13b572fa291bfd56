"""The world of the model: one simulated server, one clock, messages that are slow, late or lost, and what must hold.

The scripts are the real ones, run by a double of the server. Time is virtual: the server's clock and the clocks of all
processes are one number; how far a process's own clock may run at another rate is the lease's margin.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import fakeredis
import msgspec

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.errors import Fenced
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.clock import START_US, Clock

T = TypeVar("T")

#: What becomes of a message: answered at once; carried out but never answered; carried out at once and answered in a
#: while; or carried out in a while, when nobody waits for the answer any more.
Fate = Literal["prompt", "lost", "slow", "late"]

TTL_MS = 3000
LEASE_US = TTL_MS * 1000
#: The share of the lease that a holder leaves unused, as in settings.py: what it may be wrong by.
MARGIN = 0.1
#: The slowest clock that the margin covers: such a holder stops at the very end of its lease.
SLOWEST = 1 - MARGIN
#: What one call takes; more than the tokens that it issues, as in life.
CALL_US = 1000

NODES = (NodeName("a"), NodeName("b"))
DAEMONS = (DaemonName("x"), DaemonName("y"))

_rows = msgspec.json.Decoder(dict[str, Any])

#: Everything but the journal and the clock, in one round trip.
_LOOK = """
return {
  redis.call('GET', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[5]), redis.call('SMEMBERS', KEYS[6]),
  redis.call('SMEMBERS', KEYS[7]),
}
"""


class Broken(AssertionError):
    """The protocol did what it must never do."""


def must(holds: bool, why: str) -> None:
    """Fail the example unless ``holds``."""
    if not holds:
        raise Broken(why)


@dataclass(eq=False)
class Process:
    """An agent with its hosts: one incarnation of a node."""

    node: NodeName
    incarnation: str
    run_id: int
    #: How fast its clock runs, compared with the server's.
    rate: float = SLOWEST
    lease_until: int = 0
    alive: bool = True
    paused: bool = False
    #: What its hosts run, and under which token.
    running: dict[DaemonName, int] = field(default_factory=dict)
    #: It waits for an answer; claims, reports and releases go one after the other.
    waiting: bool = False
    #: Goes up when what was sent before no longer counts.
    era: int = 0

    def lease_from(self, sent: int) -> int:
        """Until when, in the server's time, it counts on a lease that it asked for at ``sent``."""
        return sent + int(LEASE_US * (1 - MARGIN) / self.rate)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the server holds, but for the journal and the clock."""

    leader: str | None
    nodes: dict[str, dict[str, Any]]
    leases: dict[str, int]
    specs: dict[str, dict[str, Any]]
    book: dict[str, dict[str, Any]]
    held: dict[str, frozenset[str]]


#: Compares an answer with what the server held before the call, and after it.
Audit = Callable[[Contents, Any, Contents], None]


@dataclass(eq=False)
class Flight:
    """A message on its way; ``act`` carries it out, or hands over the answer."""

    sender: Process
    act: Callable[[], object]


class World:
    """The server, the processes, and the checks after every step."""

    def __init__(self, client: fakeredis.FakeRedis, clock: Clock) -> None:
        self.clock = clock
        self.clock.now = START_US
        self.client: Any = client
        self.client.flushall()
        self.keys = Keys("model")
        self.store = Store("redis://double", self.keys, client=client)
        keys = self.keys
        self._places = (keys.monitor, keys.nodes, keys.leases, keys.specs, keys.book, *map(keys.held, NODES))
        self.processes: list[Process] = []
        self.flights: list[Flight] = []
        self.forgotten: set[str] = set()
        self.run_id = 0
        self._issued: dict[DaemonName, int] = {}
        self._started: dict[DaemonName, int] = {}
        self._entered: dict[str, int] = {}
        self._failed_over_at = 0
        self._saved: dict[bytes, Any] = {}
        self._forgotten_then: set[str] = set()
        self.save()

    @property
    def now(self) -> int:
        """The one clock."""
        return self.clock.now

    def pass_time(self, ms: int) -> None:
        """Let time pass. A host whose lease ends is killed by the kernel, also while its node is paused."""
        self.clock.now += ms * 1000
        for process in self.processes:
            if process.lease_until <= self.now:
                process.running.clear()

    # Messages

    def ask(self, call: ScriptCall[T], audit: Audit | None = None) -> T:
        """Carry out a call now."""
        self.clock.now += CALL_US
        before = self.look()
        try:
            answer = self.store.run(call)
        except Fenced as error:
            must(self.look() == before, f"{call.verb} was refused and yet changed something")
            if audit is not None:
                audit(before, error, before)
            raise
        after = self.look()
        if audit is not None:
            audit(before, answer, after)
        self._check_tokens(after)
        return answer

    def send(
        self,
        sender: Process,
        call: ScriptCall[T],
        fate: Fate,
        heard: Callable[[T | Fenced], None],
        audit: Audit | None = None,
        *,
        in_turn: bool = True,
    ) -> None:
        """Send a call; ``heard`` gets the answer, if the sender can still hear it.

        ``in_turn`` calls wait for each other, as those of the agent's ledger do; heartbeats wait for nothing.
        """
        era = sender.era

        def carry_out() -> T | Fenced:
            try:
                return self.ask(call, audit)
            except Fenced as error:
                return error

        def hear(answer: T | Fenced) -> None:
            if in_turn and sender.era == era:
                sender.waiting = False
            if sender.alive and sender.era == era:
                heard(answer)

        if fate == "late":
            self.flights.append(Flight(sender, carry_out))
        elif fate == "slow":
            answer = carry_out()
            sender.waiting = sender.waiting or in_turn
            self.flights.append(Flight(sender, lambda: hear(answer)))
        elif fate == "lost":
            carry_out()
        else:
            hear(carry_out())

    # What the server holds

    def look(self) -> Contents:
        """Everything but the journal and the clock."""
        leader, nodes, leases, specs, book, *held = self.client.eval(_LOOK, len(self._places), *self._places)
        return Contents(
            leader=_rows.decode(leader)["epoch"] if leader else None,
            nodes=_hash(nodes),
            leases={name.decode(): int(float(end)) for name, end in zip(leases[::2], leases[1::2], strict=True)},
            specs=_hash(specs),
            book=_hash(book),
            held={node: frozenset(name.decode() for name in names) for node, names in zip(NODES, held, strict=True)},
        )

    # Loss

    def save(self) -> None:
        """What a replica has got so far."""
        self._forgotten_then = set(self.forgotten)
        self._saved = {key: (self.client.pttl(key), self.client.dump(key)) for key in self.client.keys("*")}

    def fail_over(self) -> None:
        """The primary is gone; the replica that takes over lacks what was written after :meth:`save`."""
        self.client.flushall()
        for key, (ttl, value) in self._saved.items():
            self.client.restore(key, max(0, ttl), value)
        # What was wanted again after that is lost with the primary: nobody who holds the daemon can know of it.
        self.forgotten |= self._forgotten_then
        self.run_id += 1
        self._failed_over_at = self.now
        self._entered.clear()

    def lose_data(self) -> None:
        """The server forgets everything."""
        self.client.flushall()
        self._entered.clear()

    def settled(self) -> bool:
        """Whether a monitor may act: holders have had one lease to speak first."""
        created = self.client.hget(self.keys.cluster, "created_ms")
        return (
            created is not None
            and int(created) * 1000 + LEASE_US < self.now
            and self._failed_over_at + LEASE_US < self.now
        )

    # What must hold

    def check(self) -> None:
        """Fail the example if an invariant is broken."""
        for daemon in DAEMONS:
            holders = [p.incarnation for p in self.processes if daemon in p.running and p.lease_until > self.now]
            must(len(holders) <= 1, f"{daemon} runs on {holders}")
        now = self.look()
        for name, record in now.book.items():
            node = record.get("node")
            must(node is None or name in now.held[node], f"{name} is on {node}, which does not hold it")
        for node, names in now.held.items():
            for name in names:
                # A replica that lacks the last writes may leave a name behind; the node drops it when it looks.
                elsewhere = now.book.get(name, {}).get("node") != node
                must(not elsewhere or self.run_id > 0, f"{node} holds {name}, which is not on it")

    def _check_tokens(self, now: Contents) -> None:
        for name, record in now.book.items():
            token = int(record["token"])
            must(token >= self._entered.get(name, 0), f"{name} has token {token} after {self._entered.get(name)}")
            self._entered[name] = token

    def issue(self, name: DaemonName, token: str) -> None:
        """Note a token that an assignment was given."""
        must(int(token) > self._issued.get(name, 0), f"{name} was given token {token} after {self._issued.get(name)}")
        self._issued[name] = int(token)

    def start(self, process: Process, name: DaemonName, token: str) -> None:
        """Start a daemon on a host."""
        must(name not in process.running, f"{name} was granted to {process.incarnation} twice")
        must(int(token) > self._started.get(name, 0), f"{name} starts with {token} after {self._started.get(name)}")
        self._started[name] = int(token)
        self._issued[name] = max(self._issued.get(name, 0), int(token))
        process.running[name] = token


def _hash(flat: list[bytes]) -> dict[str, dict[str, Any]]:
    return {name.decode(): _rows.decode(raw) for name, raw in zip(flat[::2], flat[1::2], strict=True)}
