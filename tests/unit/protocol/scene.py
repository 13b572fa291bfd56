"""A small world to explore: two nodes, one daemon, one candidate for monitor, and a limited number of faults."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.states import Outcome
from celery_daemons.settings import Settings
from celery_daemons.store import specs
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.canonical import PAST, STEP_MS, Canonical
from tests.unit.protocol.config import ARGUMENTS, LAUNCHER_OF, SETTINGS
from tests.unit.protocol.monitors import ModelMonitor
from tests.unit.protocol.nodes import Nodes
from tests.unit.protocol.world import NODES, TTL_MS, Fate, World

Loss: TypeAlias = Literal["data", "primary"]
#: Milliseconds by which the server's clock is set: more than a lease.
CLOCK_STEP_MS = 2 * TTL_MS
#: A method of the scene, and its arguments.
Act: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rations:
    """How often each fault may still happen.

    ``crashes`` are agents killed with their hosts, ``losses`` losses of the data or the primary, ``messages`` messages
    that are lost or late, ``cuts`` times in which one node does not reach the server, ``users`` actions of a user (a
    stop and the start after it count as one), ``failures`` runs that fail by themselves, ``steps`` steps of the
    server's clock, ``shortages`` times in which one node cannot fork, ``saves`` snapshots after the first one, each of
    which a lost primary may come back with.
    """

    crashes: int = 0
    losses: int = 0
    messages: int = 0
    cuts: int = 0
    users: int = 0
    failures: int = 0
    steps: int = 0
    shortages: int = 0
    saves: int = 0


#: One of each, in any order.
ONE_OF_EACH = Rations(crashes=1, losses=1, messages=1, cuts=1, users=1)


class Scene:
    """A small world in which one daemon runs, and what may happen next."""

    def __init__(
        self, world: World, *, daemon: DaemonName, loss: Loss, rations: Rations, settings: Sequence[Settings] = ()
    ) -> None:
        """``settings`` are those of the two nodes, if they are not the usual ones."""
        self.world = world
        self._daemon = daemon
        self._loss = loss
        self._rations = rations
        self._stopped = False
        #: The node that does not reach the server.
        self._cut_off = ""
        #: The forms of the world when it was saved, with the times.
        self._saved: list[tuple[int, str]] = []
        self._nodes = Nodes(world)
        self._monitor = ModelMonitor(world, "m")
        self._settings_of = dict(zip(NODES, settings or (SETTINGS, SETTINGS), strict=True))
        for node in NODES:
            self._nodes.start(node, None, "prompt", settings=self._settings_of[node])
        world.ask(specs.record(world.keys, [(daemon, LAUNCHER_OF[daemon], ARGUMENTS)], mode="spawn"))
        self._monitor.campaign()
        # Long enough that nothing depends on when the world began.
        for _ in range(PAST + 2):
            self.pass_time()
            self.lead("prompt")
            for agent in world.agents:
                agent.sender.flush()
        assert any(daemon in agent.running for agent in world.agents)
        world.save()

    def check(self) -> None:
        """Raise Broken if an invariant does not hold."""
        self.world.check()

    def form(self) -> bytes:
        """Return the canonical form."""
        return Canonical(self.world).form(
            self._monitor, self._monitor.unread(), self._rations, self._stopped, self._cut_off, self._snapshots()
        )

    def _snapshots(self) -> list[tuple[int, str]]:
        """Return how old each snapshot is, and what it holds; nothing once none can be restored."""
        if not self._rations.losses:
            return []
        return [(min(PAST, (self.world.now - at) // (STEP_MS * 1000)), form) for at, form in self._saved]

    # What may happen

    def acts(self) -> Iterator[Act]:
        """Yield everything that may happen next."""
        rations = self._rations
        fates: tuple[Fate, ...] = ("prompt", "lost", "late") if rations.messages else ("prompt",)
        for fate in fates:
            yield "lead", fate
        yield ("pass_time",)
        for node in NODES:
            agent = self._alive(node)
            if agent is None:
                yield "start", node
                continue
            yield from self._acts_of(agent, fates)
        for number in range(len(self.world.flights)):
            yield "arrive", str(number)
        if rations.losses:
            for number in range(self.world.snapshots if self._loss == "primary" else 1):
                yield "lose", str(number)
            if rations.saves:
                yield ("save",)
        if rations.steps:
            yield "set_clock", "forward"
            yield "set_clock", "back"
        if rations.users:
            yield "user", "restart"
            yield "user", "stop"
        if self._cut_off:
            yield ("mend",)
        if self._stopped:
            yield "user", "start"

    def _acts_of(self, agent: ModelAgent, fates: tuple[Fate, ...]) -> Iterator[Act]:
        node = agent.node
        if node != self._cut_off:
            yield "read", node
            if not agent.outbox.idle:
                for fate in fates:
                    yield "send", node, fate
        if agent.hosts.stopping:
            yield "report_stops", node
        if agent.hosts.ended:
            yield "bury", node
        if self._rations.cuts:
            yield "cut", node
        if self._rations.messages and agent.able and self._cut_off != node:
            yield "beat", node, "lost"
            yield "beat", node, "late"
        if self._rations.crashes:
            yield "kill", node
        if self._rations.shortages:
            yield "refuse_forks", node
        if agent.hosts.forks_fail:
            yield "allow_forks", node
        if self._rations.failures and self._daemon in agent.running:
            yield "fail", node

    # The acts

    def lead(self, fate: Fate) -> None:
        """Let the monitor read what has changed and act on it; its message to a node, if any, has this fate."""
        if self._monitor.epoch is None:
            self._monitor.campaign()
        if self._monitor.lead(fate):
            self._spend_message(fate)

    def pass_time(self) -> None:
        """Let the time between two heartbeats pass; the node that is cut off gets none through."""
        self.world.pass_time(STEP_MS)
        for agent in self.world.agents:
            if agent.node != self._cut_off:
                agent.beat("prompt")
            agent.tick()
        if self._monitor.epoch is not None:
            self._monitor.campaign()

    def cut(self, node: str) -> None:
        """Cut a node off from the server; the broker still reaches it."""
        self._cut_off = node
        self._rations = replace(self._rations, cuts=self._rations.cuts - 1)

    def mend(self) -> None:
        """Let the node reach the server again."""
        self._cut_off = ""

    def start(self, node: str) -> None:
        """Let the worker of a node start an agent, which knows that the one before is dead."""
        previous = [agent for agent in self.world.agents if agent.node == node and agent.incarnation]
        name = NODES[0] if node == NODES[0] else NODES[1]
        self._nodes.start(name, previous[-1] if previous else None, "prompt", settings=self._settings_of[name])

    def read(self, node: str) -> None:
        """Let a node read its assignments."""
        self._agent(node).read_assignments()

    def send(self, node: str, fate: Fate) -> None:
        """Let a node send one request."""
        if self._agent(node).sender.send_one(fate):
            self._spend_message(fate)

    def beat(self, node: str, fate: Fate) -> None:
        """Let a heartbeat of a node get lost, or come late."""
        self._agent(node).beat(fate)
        self._spend_message(fate)

    def report_stops(self, node: str) -> None:
        """Let the daemon end, as it was asked to."""
        self._agent(node).hosts.report_stops()

    def bury(self, node: str) -> None:
        """Let the process of the daemon end, too."""
        self._agent(node).hosts.bury_ended()

    def fail(self, node: str) -> None:
        """Let the daemon's code raise."""
        self._agent(node).hosts.end_run(self._daemon, Outcome.FAILED)
        self._rations = replace(self._rations, failures=self._rations.failures - 1)

    def kill(self, node: str) -> None:
        """Kill an agent with its hosts."""
        self._agent(node).kill()
        self._rations = replace(self._rations, crashes=self._rations.crashes - 1)

    def arrive(self, number: str) -> None:
        """Let a late message arrive."""
        self.world.flights.pop(int(number)).act()

    def save(self) -> None:
        """Save what the server holds."""
        self._saved.append((self.world.now, self.form().hex()))
        self.world.save()
        self._rations = replace(self._rations, saves=self._rations.saves - 1)

    def set_clock(self, direction: str) -> None:
        """Set the server's clock."""
        self.world.set_server_clock(CLOCK_STEP_MS if direction == "forward" else -CLOCK_STEP_MS)
        self._rations = replace(self._rations, steps=self._rations.steps - 1)

    def refuse_forks(self, node: str) -> None:
        """Let every fork of a node fail."""
        self._agent(node).hosts.forks_fail = True
        self._rations = replace(self._rations, shortages=self._rations.shortages - 1)

    def allow_forks(self, node: str) -> None:
        """Let forks succeed again."""
        self._agent(node).hosts.forks_fail = False

    def lose(self, snapshot: str) -> None:
        """Lose the data, or the primary with all that was written since a snapshot."""
        if self._loss == "data":
            self.world.lose_data()
        else:
            self.world.fail_over(int(snapshot))
        self._rations = replace(self._rations, losses=self._rations.losses - 1)

    def user(self, action: specs.Action) -> None:
        """Let a user stop, start or restart the daemon."""
        self.world.ask(specs.desire(self.world.keys, self._daemon, action))
        if action != "start":
            self._rations = replace(self._rations, users=self._rations.users - 1)
        self._stopped = action == "stop"

    def _spend_message(self, fate: Fate) -> None:
        if fate != "prompt":
            self._rations = replace(self._rations, messages=self._rations.messages - 1)

    def _alive(self, node: str) -> ModelAgent | None:
        return next((agent for agent in self.world.agents if agent.node == node and agent.alive), None)

    def _agent(self, node: str) -> ModelAgent:
        agent = self._alive(node)
        assert agent is not None
        return agent
