"""The world of the model: one simulated server, one clock, messages that are slow, late or lost, and what must hold.

The scripts are the real ones, run by a double of the server. Time is virtual: the server's clock and the clocks of all
processes are one number; how far a process's own clock may run at another rate is the lease's margin.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import fakeredis
import msgspec

from celery_daemons.domain.names import DaemonName, NodeName, Token
from celery_daemons.errors import Fenced
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.clock import START_US, Clock

if TYPE_CHECKING:
    from tests.unit.protocol.agents import ModelAgent

T = TypeVar("T")

#: What becomes of a message: answered at once; carried out but never answered; carried out at once and answered after a
#: while; or carried out after a while, when the sender no longer waits for the answer.
Fate = Literal["prompt", "lost", "slow", "late"]

TTL_MS = 3000
LEASE_US = TTL_MS * 1000
#: The share of the lease that a holder leaves unused, as in settings.py: the error of its clock that this covers.
MARGIN = 0.1
#: The slowest clock that the margin covers: such a holder stops at the very end of its lease.
SLOWEST = 1 - MARGIN
#: Microseconds that one call takes; more than the tokens that it issues, as with a real server.
CALL_US = 1000

NODES = (NodeName("a"), NodeName("b"))
#: x runs in a shared host, y in a process of its own.
DAEMONS = (DaemonName("x"), DaemonName("y"))

_rows = msgspec.json.Decoder(dict[str, Any])

#: Everything but the journal and the clock, in one round trip.
_CONTENTS = """
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

    sender: "ModelAgent"
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
        self.agents: list[ModelAgent] = []
        self.flights: list[Flight] = []
        self.forgotten: set[str] = set()
        #: Counts fail-overs: names the server that answers now.
        self.run_id = 0
        self._issued: dict[DaemonName, int] = {}
        self._started: dict[DaemonName, int] = {}
        self._entered: dict[str, int] = {}
        self._saved: bytes = b""
        self._forgotten_then: set[str] = set()
        self.save()

    @property
    def now(self) -> int:
        """The one clock, in microseconds."""
        return self.clock.now

    @property
    def server(self) -> str:
        """The run id of the server that answers now."""
        return f"server{self.run_id}"

    def pass_time(self, ms: int) -> None:
        """Let time pass. A host whose lease ends is killed by the kernel, even while its agent is paused."""
        self.clock.now += ms * 1000
        for agent in self.agents:
            agent.kill_expired_hosts()

    # Messages

    def ask(self, call: ScriptCall[T], audit: Audit | None = None) -> T:
        """Carry out a call now."""
        self.clock.now += CALL_US
        before = self.contents()
        try:
            answer = self.store.run(call)
        except Fenced as error:
            must(self.contents() == before, f"{call.verb} was refused and yet changed something")
            if audit is not None:
                audit(before, error, before)
            raise
        after = self.contents()
        if audit is not None:
            audit(before, answer, after)
        self._check_tokens(after)
        return answer

    def carry_out(self, call: ScriptCall[T], audit: Audit | None) -> T | Fenced:
        """Carry out a call now; a refusal is an answer too."""
        try:
            return self.ask(call, audit)
        except Fenced as error:
            return error

    # What the server holds

    def contents(self) -> Contents:
        """Everything but the journal and the clock."""
        leader, nodes, leases, specs, book, *held = self.client.eval(_CONTENTS, len(self._places), *self._places)
        return Contents(
            leader=_rows.decode(leader)["epoch"] if leader else None,
            nodes=_hash(nodes),
            leases={name.decode(): int(float(end)) for name, end in zip(leases[::2], leases[1::2], strict=True)},
            specs=_hash(specs),
            book=_hash(book),
            held={node: frozenset(name.decode() for name in names) for node, names in zip(NODES, held, strict=True)},
        )

    # Loss

    def dump(self) -> bytes:
        """The server's data."""
        return pickle.dumps([(key, self.client.pttl(key), self.client.dump(key)) for key in self.client.keys("*")])

    def load(self, data: bytes) -> None:
        """Replace the server's data."""
        self.client.flushall()
        for key, ttl, value in pickle.loads(data):  # noqa: S301 - written by dump()
            self.client.restore(key, max(0, ttl), value)

    def save(self) -> None:
        """What a replica has received so far."""
        self._forgotten_then = set(self.forgotten)
        self._saved = self.dump()

    def fail_over(self) -> None:
        """The primary is gone; the replica that takes over lacks what was written after :meth:`save`."""
        self.load(self._saved)
        # What was wanted again after that is lost with the primary: no holder of the daemon can know of it.
        self.forgotten |= self._forgotten_then
        self.run_id += 1
        self._entered.clear()
        for agent in self.agents:
            agent.lose_connection()

    def lose_data(self) -> None:
        """The server forgets everything."""
        self.client.flushall()
        self._entered.clear()

    # What must hold

    def check(self) -> None:
        """Fail the example if an invariant is broken."""
        for daemon in DAEMONS:
            holders = [agent.incarnation for agent in self.agents if daemon in agent.running]
            must(len(holders) <= 1, f"{daemon} runs on {holders}")
        now = self.contents()
        for name, record in now.book.items():
            node = record.get("node")
            must(node is None or name in now.held[node], f"{name} is on {node}, which does not hold it")
        for node, names in now.held.items():
            for name in names:
                # A replica that lacks the last writes may leave a name behind; the node drops it when it reads.
                elsewhere = now.book.get(name, {}).get("node") != node
                must(not elsewhere or self.run_id > 0, f"{node} holds {name}, which is not on it")

    def _check_tokens(self, now: Contents) -> None:
        for name, record in now.book.items():
            token = int(record["token"])
            must(token >= self._entered.get(name, 0), f"{name} has token {token} after {self._entered.get(name)}")
            self._entered[name] = token

    def issue(self, name: DaemonName, token: Token) -> None:
        """Note a token that an assignment was given."""
        must(token > self._issued.get(name, 0), f"{name} was given token {token} after {self._issued.get(name)}")
        self._issued[name] = token

    def note_start(self, name: DaemonName, token: Token) -> None:
        """Note the token under which a daemon starts."""
        must(token > self._started.get(name, 0), f"{name} starts with {token} after {self._started.get(name)}")
        self._started[name] = token
        self._issued[name] = max(self._issued.get(name, 0), token)


def _hash(flat: list[bytes]) -> dict[str, dict[str, Any]]:
    return {name.decode(): _rows.decode(raw) for name, raw in zip(flat[::2], flat[1::2], strict=True)}
