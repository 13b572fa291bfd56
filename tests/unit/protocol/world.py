"""The world of the model: one simulated server, one clock, messages that are slow, late or lost, and what must hold.

The scripts are the real ones, run by a double of the server. Time is virtual: the clocks of all processes are one
number. The server's clock differs from it by as much as it was set; how far a process's own clock may run at another
rate is the lease's margin.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from celery_daemons.domain.names import DaemonName, NodeName, Token
from celery_daemons.errors import Fenced
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.clock import START_US, Clock
from tests.unit.protocol.double import Double
from tests.unit.protocol.tally import attention_of, counts_of

if TYPE_CHECKING:
    from tests.unit.protocol.agents import ModelAgent

T = TypeVar("T")

#: The fate of a message: answered at once; carried out but never answered; carried out at once and answered after a
#: while; or carried out after a while, when the sender no longer waits for the answer.
Fate = Literal["prompt", "lost", "slow", "late"]

TTL_MS = 3000
#: The lease of a node that has a longer one than others.
LONG_TTL_MS = 2 * TTL_MS
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


class Broken(AssertionError):
    """The protocol broke an invariant."""


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
    counts: dict[str, int]
    unhealthy: dict[str, float]


#: Compares an answer with what the server held before the call, and after it.
Audit = Callable[[Contents, Any, Contents], None]


@dataclass(eq=False)
class Flight:
    """A message on its way; ``act`` carries it out, or hands over the answer."""

    sender: "ModelAgent"
    act: Callable[[], object]


class ModelPin:
    """Stands in for a pinned connection to the accepted ``server``."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.server = world.server

    def accept_new_server(self) -> bool:
        """Continue with the server that answers now; return whether it is another one."""
        changed = self.server != self._world.server
        self.server = self._world.server
        return changed


class World:
    """The server, the processes, and the checks after every step."""

    def __init__(self, double: Double, clock: Clock) -> None:
        self.clock = clock
        self.clock.now, self.clock.ahead = START_US, 0
        #: How often the server's clock was set, when that was last done, and when it was last set forward.
        self.clock_steps = 0
        self.clock_set_at = self.clock_set_forward_at = 0
        self._latest_server_time = 0
        self.double = double
        self.double.replace({})
        self.keys = Keys("model")
        self.store = Store("redis://double", self.keys, client=double.client)
        keys = self.keys
        self._monitor_key, self._leases_key = keys.monitor.encode(), keys.leases.encode()
        self._hash_keys = (keys.nodes.encode(), keys.specs.encode(), keys.book.encode())
        self._counts_key, self._unhealthy_key = keys.counts.encode(), keys.unhealthy.encode()
        self._held_keys = {node: keys.held(node).encode() for node in NODES}
        self.agents: list[ModelAgent] = []
        self.flights: list[Flight] = []
        self.forgotten: set[str] = set()
        #: Counts fail-overs: names the server that answers now.
        self.run_id = 0
        self._issued: dict[DaemonName, int] = {}
        self._started: dict[DaemonName, int] = {}
        self._entered: dict[str, int] = {}
        #: What the server held at some moments, and which daemons were forgotten then; the oldest first.
        self._snapshots: list[tuple[bytes, frozenset[str]]] = []
        self.save()

    @property
    def now(self) -> int:
        """Return the time of all processes, in microseconds."""
        return self.clock.now

    @property
    def server_now(self) -> int:
        """Return the time that the server's clock shows, in microseconds."""
        return self.clock.server

    @property
    def server(self) -> str:
        """Return the run id of the server that answers now."""
        return f"server{self.run_id}"

    def pass_time(self, ms: int) -> None:
        """Let time pass. A host whose lease ends is killed by the kernel, even while its agent is paused."""
        self.clock.now += ms * 1000
        for agent in self.agents:
            agent.kill_expired_hosts()

    def set_server_clock(self, ms: int) -> None:
        """Set the server's clock forward, or back by a negative number."""
        self._latest_server_time = max(self._latest_server_time, self.server_now)
        self.clock.ahead += ms * 1000
        self.clock_steps += 1
        self.clock_set_at = self.now
        if ms > 0:
            self.clock_set_forward_at = self.now

    @property
    def clock_is_behind(self) -> bool:
        """Return whether the server's clock shows an earlier time than it has shown before."""
        return self.server_now <= self._latest_server_time

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
        """Return everything but the journal and the clock."""
        data = self.double.read(self.server_now)
        leader, leases = data.get(self._monitor_key), data.get(self._leases_key)
        nodes, specs, book = (_hash(data.get(key)) for key in self._hash_keys)
        counts, unhealthy = data.get(self._counts_key), data.get(self._unhealthy_key)
        held = {node: data.get(key) for node, key in self._held_keys.items()}
        return Contents(
            leader=_rows.decode(leader.value)["epoch"] if leader else None,
            nodes=nodes,
            leases={name.decode(): int(end) for name, end in leases.value.items()} if leases else {},
            specs=specs,
            book=book,
            held={
                node: frozenset(map(bytes.decode, names.value)) if names else frozenset()
                for node, names in held.items()
            },
            counts={field.decode(): int(n) for field, n in counts.value.items()} if counts else {},
            unhealthy={name.decode(): score for name, score in unhealthy.value.items()} if unhealthy else {},
        )

    # Loss

    def dump(self) -> bytes:
        """Return the server's data."""
        return pickle.dumps(dict(self.double.read(self.server_now)))

    def load(self, data: bytes) -> None:
        """Replace the server's data."""
        self.double.replace(pickle.loads(data))  # noqa: S301 - written by dump()

    @property
    def snapshots(self) -> int:
        """Return the number of copies of what the server once held."""
        return len(self._snapshots)

    def save(self) -> None:
        """Let the replica receive everything so far; keep a copy."""
        self._snapshots.append((self.dump(), frozenset(self.forgotten)))

    def fail_over(self, snapshot: int = -1) -> None:
        """Lose the primary; the server that takes over has a snapshot, by default the newest, and nothing after it."""
        data, forgotten_then = self._snapshots[snapshot]
        self.load(data)
        # What was wanted again after that is lost with the primary: no holder of the daemon can know of it.
        self.forgotten |= forgotten_then
        self.run_id += 1
        self._entered.clear()
        for agent in self.agents:
            agent.sender.lose_connection()

    def lose_data(self) -> None:
        """Let the server forget everything."""
        self.double.replace({})
        self._entered.clear()

    # Invariants

    def check(self) -> None:
        """Fail the example if an invariant is broken."""
        for daemon in DAEMONS:
            holders = [agent.incarnation for agent in self.agents if daemon in agent.running]
            must(len(holders) <= 1, f"{daemon} runs on {holders}")
        now = self.contents()
        for name, record in now.book.items():
            node = record.get("node")
            must(node is None or name in now.held[node], f"{name} is on {node}, which does not hold it")
        must(now.counts == counts_of(now.specs, now.book), f"the server has counted {now.counts}")
        must(now.unhealthy == attention_of(now.book), f"the index of daemons that need attention has {now.unhealthy}")
        for node, names in now.held.items():
            for name in names:
                # A replica that lacks the last writes may leave a name behind; the node drops it when it reads.
                elsewhere = now.book.get(name, {}).get("node") != node
                must(not elsewhere or self.run_id > 0, f"{node} holds {name}, which is not on it")

    def _check_tokens(self, now: Contents) -> None:
        for name, record in now.book.items():
            token = int(record["token"])
            if not token:
                # Parked without ever having been assigned: a new record of a forgotten daemon. No run has token 0.
                must(record.get("node") is None, f"{name} is on {record.get('node')} without a token")
                continue
            must(token >= self._entered.get(name, 0), f"{name} has token {token} after {self._entered.get(name)}")
            self._entered[name] = token

    @property
    def tokens_seen(self) -> tuple[dict[DaemonName, int], dict[DaemonName, int], dict[str, int]]:
        """Return the highest token of each daemon that was issued, was started, and was in the book of this server."""
        return self._issued, self._started, self._entered

    def issue(self, name: DaemonName, token: Token) -> None:
        """Note a token that an assignment was given."""
        must(token > self._issued.get(name, 0), f"{name} was given token {token} after {self._issued.get(name)}")
        self._issued[name] = token

    def note_start(self, name: DaemonName, token: Token) -> None:
        """Note the token under which a daemon starts."""
        must(token > self._started.get(name, 0), f"{name} starts with {token} after {self._started.get(name)}")
        self._started[name] = token
        self._issued[name] = max(self._issued.get(name, 0), token)


def _hash(item: Any) -> dict[str, dict[str, Any]]:
    return {name.decode(): _rows.decode(raw) for name, raw in item.value.items()} if item else {}
