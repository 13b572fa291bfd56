"""The initial state of a story, and the actions of stories."""

from celery_daemons.domain.names import NodeName
from celery_daemons.store import specs
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.clock import Clock
from tests.unit.protocol.config import ARGUMENTS, LAUNCHER_OF
from tests.unit.protocol.double import Double
from tests.unit.protocol.monitors import ModelMonitor
from tests.unit.protocol.nodes import Nodes
from tests.unit.protocol.world import DAEMONS, NODES, SLOWEST, TTL_MS, World, must

A, B = NODES
X, Y = DAEMONS


class Story:
    """A cluster of two nodes in which daemon x runs on node a, and the actions of stories."""

    def __init__(self, double: Double, clock: Clock, *, rate: float = SLOWEST) -> None:
        self.world = World(double, clock)
        self.nodes = Nodes(self.world)
        self.monitor = ModelMonitor(self.world, "m1")
        self.rival = ModelMonitor(self.world, "m2")
        self.a = self.nodes.start(A, None, "prompt", rate=rate)
        self.b = self.nodes.start(B, None, "prompt")
        self.monitor.campaign()
        for _ in range(3):
            self.time_passes()
        self.want(X)
        self.monitor.assign(X, A)
        self.a.look()
        self.holds()
        must(X in self.a.running, "x does not run at the beginning")

    def want(self, *names: str) -> None:
        """Let a user want daemons."""
        for name in DAEMONS:
            if name in names:
                items = [(name, LAUNCHER_OF[name], ARGUMENTS)]
                self.world.ask(specs.record(self.world.keys, items, mode="spawn"))

    def holds(self) -> None:
        """Check everything that must hold."""
        self.world.check()

    def time_passes(self, *beating: ModelAgent) -> None:
        """Let two thirds of a lease pass; the monitor and ``beating`` (or all agents) renew their leases."""
        self.world.pass_time(TTL_MS * 2 // 3)
        for agent in beating or self.world.agents:
            agent.beat("prompt")
        self.monitor.campaign()
        self.monitor.follow()
        self.monitor.confirm_server()

    def outlast(self, gone: ModelAgent) -> None:
        """Let time pass until the lease of ``gone`` has ended; the other nodes renew their leases."""
        others = [agent for agent in self.world.agents if agent is not gone]
        self.time_passes(*others)
        self.time_passes(*others)

    def move(self, source: ModelAgent, target: ModelAgent, name: NodeName) -> None:
        """Move x: recalled, released, assigned, claimed."""
        self.monitor.recall(X)
        source.look()
        self.monitor.assign(X, name)
        target.look()
        must(X in target.running, f"x does not run on {name}")

    def arrive(self) -> None:
        """Let every message arrive."""
        flights, self.world.flights = self.world.flights, []
        for flight in flights:
            flight.act()
        self.holds()
