"""The world of the model: one simulated server, one clock, messages that are slow, late or lost, and what must hold.

The scripts are the real ones, run by a double of the server. Time is virtual: the server's clock and the clocks of all
processes are one number, so that they run at the same rate, which is the one thing that the protocol asks of clocks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from unittest import mock

import fakeredis
import msgspec

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.errors import Fenced
from celery_daemons.store.calls import Call
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys

T = TypeVar("T")

#: What becomes of a message: answered at once; carried out but never answered; carried out at once and answered in a
#: while; or carried out in a while, when nobody waits for the answer any more.
Fate = Literal["prompt", "lost", "slow", "late"]

TTL_MS = 3000
START_US = 1_800_000_000_000_000
#: What one call takes; more than the tokens that it issues, as in life.
CALL_US = 1000

NODES = (NodeName("a"), NodeName("b"))
DAEMONS = (DaemonName("x"), DaemonName("y"))

_record = msgspec.json.Decoder(dict[str, Any])


class Broken(AssertionError):
    """The protocol did what it must never do."""


def must(holds: bool, why: str) -> None:
    """Fail the example unless ``holds``."""
    if not holds:
        raise Broken(why)


@dataclass
class Process:
    """An agent with its hosts: one incarnation of a node."""

    node: NodeName
    incarnation: str
    lease_until: int = 0
    alive: bool = True
    paused: bool = False
    #: What its hosts run, and under which token. Nobody but the hosts themselves can end it.
    running: dict[DaemonName, str] = field(default_factory=dict)
    #: It waits for an answer; claims, reports and releases go one after the other.
    waiting: bool = False
    run_id: int = 0
    #: Goes up when what was sent before no longer counts.
    era: int = 0


@dataclass
class Flight:
    """A message on its way; ``act`` carries it out, or hands over the answer."""

    sender: Process
    act: Callable[[], None]


class World:
    """The server with the clock, the processes, and the checks after every step."""

    def __init__(self, client: fakeredis.FakeRedis) -> None:
        self.now = START_US
        self.client = client
        self.client.flushall()
        self.keys = Keys("model")
        self.store = Store("redis://double", self.keys, client=client)
        self.processes: list[Process] = []
        self.flights: list[Flight] = []
        self.issued: dict[DaemonName, int] = {}
        self.started: dict[DaemonName, int] = {}
        self.forgotten: set[DaemonName] = set()
        self.run_id = 0
        self.failed_over_at = 0
        self.saved: dict[bytes, Any] = {}

    # Time

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Let the server read the world's clock."""
        with mock.patch("time.time", lambda: self.now / 1_000_000):
            yield

    def pass_time(self, ms: int) -> None:
        """Let time pass. A host whose lease ends is killed by the kernel, also while its node is paused."""
        self.now += ms * 1000
        for process in self.processes:
            if process.lease_until <= self.now:
                process.running.clear()

    # Messages

    def ask(self, call: Call[T]) -> T:
        """Carry out a call now. One that is refused as fenced must have changed nothing."""
        self.now += CALL_US
        with self.clock():
            before = self.contents()
            try:
                return self.store.run(call)
            except Fenced:
                must(self.contents() == before, f"{call.verb} was refused and yet changed something")
                raise

    def send(
        self, sender: Process, call: Call[T], fate: Fate, heard: Callable[[T | Fenced], None], *, in_turn: bool = False
    ) -> None:
        """Send a call; ``heard`` gets the answer, if the sender can still hear it."""
        era = sender.era

        def carry_out() -> T | Fenced:
            try:
                return self.ask(call)
            except Fenced as error:
                return error

        def hear(answer: T | Fenced) -> None:
            if in_turn:
                sender.waiting = False
            if sender.alive and sender.era == era:
                heard(answer)

        if fate == "late":
            self.flights.append(Flight(sender, lambda: void(carry_out())))
        elif fate == "slow":
            answer = carry_out()
            sender.waiting = sender.waiting or in_turn
            self.flights.append(Flight(sender, lambda: hear(answer)))
        elif fate == "lost":
            carry_out()
        else:
            hear(carry_out())

    # What the server holds

    def contents(self) -> dict[str, Any]:
        """Everything but the journal."""
        held = {node: self.client.smembers(self.keys.held(node)) for node in NODES}
        return {
            "monitor": self.client.get(self.keys.monitor),
            "clock": self.client.get(self.keys.clock),
            "nodes": self.client.hgetall(self.keys.nodes),
            "leases": self.client.zrange(self.keys.leases, 0, -1, withscores=True),
            "specs": self.client.hgetall(self.keys.specs),
            "book": self.client.hgetall(self.keys.book),
            "held": held,
        }

    def book(self) -> dict[DaemonName, dict[str, Any]]:
        """The address book."""
        return {DaemonName(name.decode()): _record.decode(raw) for name, raw in self._hash(self.keys.book)}

    def specs(self) -> dict[DaemonName, dict[str, Any]]:
        """What is wanted."""
        return {DaemonName(name.decode()): _record.decode(raw) for name, raw in self._hash(self.keys.specs)}

    def registered(self) -> dict[NodeName, dict[str, Any]]:
        """The nodes' records."""
        return {NodeName(name.decode()): _record.decode(raw) for name, raw in self._hash(self.keys.nodes)}

    def _hash(self, key: str) -> list[tuple[bytes, bytes]]:
        return list(self.client.hgetall(key).items())  # type: ignore[union-attr]

    # Loss

    def save(self) -> None:
        """What a replica has got so far."""
        with self.clock():
            self.saved = {
                key: (self.client.pttl(key), self.client.dump(key))
                for key in self.client.keys()  # type: ignore[union-attr]
            }

    def fail_over(self) -> None:
        """The primary is gone; the replica that takes over lacks what was written after :meth:`save`."""
        with self.clock():
            self.client.flushall()
            for key, (ttl, value) in self.saved.items():
                self.client.restore(key, max(0, ttl), value)
        self.run_id += 1
        self.failed_over_at = self.now

    def lose_data(self) -> None:
        """The server forgets everything."""
        self.client.flushall()

    def settled(self) -> bool:
        """Whether a monitor may act: holders have had one lease to speak first."""
        created = self.client.hget(self.keys.cluster, "created_ms")
        lease = TTL_MS * 1000
        return (
            created is not None
            and int(created) * 1000 + lease < self.now  # type: ignore[arg-type]
            and self.failed_over_at + lease < self.now
        )

    # What must hold

    def check(self) -> None:
        """Fail the example if an invariant is broken."""
        for name in DAEMONS:
            holders = [p.incarnation for p in self.processes if name in p.running and p.lease_until > self.now]
            must(len(holders) <= 1, f"{name} runs on {holders}")
        with self.clock():
            book = self.book()
        for name, record in book.items():
            node = record.get("node")
            if node is not None:
                must(name in self._held(node), f"{name} is on {node} but not in what {node} holds")
        for node in NODES:
            for name in self._held(node):
                elsewhere = book.get(name, {}).get("node") != node
                # A replica that lacks the last writes may leave a name behind; the node drops it when it looks.
                must(not elsewhere or self.run_id > 0, f"{node} holds {name}, which is not on it")

    def _held(self, node: str) -> set[DaemonName]:
        held: set[bytes] = self.client.smembers(self.keys.held(NodeName(node)))  # type: ignore[assignment]
        return {DaemonName(name.decode()) for name in held}

    def issue(self, name: DaemonName, token: str) -> None:
        """Note a token that an assignment was given."""
        must(int(token) > self.issued.get(name, 0), f"{name} was given token {token} after {self.issued.get(name)}")
        self.issued[name] = int(token)

    def start(self, process: Process, name: DaemonName, token: str) -> None:
        """Start a daemon on a host."""
        must(name not in process.running, f"{name} was granted to {process.incarnation} twice")
        must(int(token) > self.started.get(name, 0), f"{name} starts with {token} after {self.started.get(name)}")
        self.started[name] = int(token)
        self.issued[name] = max(self.issued.get(name, 0), int(token))
        process.running[name] = token


def void(_value: object) -> None:
    """Nobody hears the answer."""
