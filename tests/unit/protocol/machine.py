"""The state machine: any interleaving of what nodes, monitors, users and accidents do."""

from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.states import Outcome
from celery_daemons.store import specs
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.clock import Clock
from tests.unit.protocol.config import ARGUMENTS, LAUNCHER_OF
from tests.unit.protocol.double import Double
from tests.unit.protocol.monitors import ModelMonitor
from tests.unit.protocol.nodes import Nodes
from tests.unit.protocol.world import DAEMONS, NODES, SLOWEST, TTL_MS, Broken, Fate, World

names = st.sampled_from(DAEMONS)
nodes = st.sampled_from(NODES)
#: Most messages arrive.
fates = st.sampled_from(["prompt", "prompt", "prompt", "lost", "slow", "late"])
which = st.integers(0, 7)


class Protocol(RuleBasedStateMachine):
    """Two nodes, two daemons and two candidates for monitor on one server."""

    #: Shared by all examples, each of which empties it first: a new one has to set up its Lua every time.
    double: ClassVar[Double]
    clock: ClassVar[Clock]
    #: How fast the clocks of nodes may run, compared with the server's.
    rates: ClassVar[tuple[float, float, float]] = (SLOWEST, 1.0, 1.1)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.double, self.clock)
        self.nodes = Nodes(self.world)
        self.monitors = [ModelMonitor(self.world, "m1"), ModelMonitor(self.world, "m2")]

    def pick(self, number: int) -> ModelAgent | None:
        """Return one of the living agents."""
        living = [agent for agent in self.world.agents if agent.alive]
        return living[number % len(living)] if living else None

    @initialize()
    def everything_runs(self) -> None:
        """Start both nodes, one daemon and a monitor."""
        for node in NODES:
            self.nodes.start(node, None, "prompt", rate=self.rates[0])
        self.want(DAEMONS[0], ARGUMENTS)
        self.monitors[0].campaign()
        for _ in range(3):
            self.let_time_pass(TTL_MS // 3)
            self.monitors[0].lead()
        for agent in self.world.agents:
            agent.look()
        self.world.save()

    @rule(ms=st.sampled_from([1, TTL_MS // 3, TTL_MS * 2 // 3]))
    def let_time_pass(self, ms: int) -> None:
        """Let time pass; every agent and monitor that can renews its lease."""
        self.world.pass_time(ms)
        for agent in self.world.agents:
            agent.beat("prompt")
            agent.tick()
        for monitor in self.monitors:
            if monitor.epoch is not None and not monitor.paused:
                monitor.campaign()

    @rule(ms=st.sampled_from([TTL_MS // 2, TTL_MS, TTL_MS + 1, 3 * TTL_MS]))
    def let_time_pass_without_a_heartbeat(self, ms: int) -> None:
        """Let time pass without any heartbeat: leases end."""
        self.world.pass_time(ms)

    @rule(number=which, fate=fates)
    def beat(self, number: int, fate: Fate) -> None:
        """Let a node send a heartbeat."""
        if agent := self.pick(number):
            agent.beat(fate)

    @rule(number=which)
    def read_assignments(self, number: int) -> None:
        """Let a node read its assignments."""
        if agent := self.pick(number):
            agent.read_assignments()

    @rule(number=which, fate=fates)
    def send_one(self, number: int, fate: Fate) -> None:
        """Let a node send one request of its outbox."""
        if agent := self.pick(number):
            agent.sender.send_one(fate)

    @rule(number=which, fate=fates)
    def look(self, number: int, fate: Fate) -> None:
        """Let a node do what the book says, up to the starts."""
        if agent := self.pick(number):
            agent.look(fate)

    @rule(number=which)
    def finish_stops(self, number: int) -> None:
        """Let daemons that were asked to stop do so."""
        if agent := self.pick(number):
            agent.finish_stops()

    @rule(number=which)
    def tick(self, number: int) -> None:
        """Let grace periods and back-offs that are over take effect."""
        if agent := self.pick(number):
            agent.tick()

    @rule(number=which, name=names, outcome=st.sampled_from([Outcome.FAILED, Outcome.FAILED, Outcome.FINISHED]))
    def end_run(self, number: int, name: DaemonName, outcome: Outcome) -> None:
        """Let a daemon's code raise or return."""
        if agent := self.pick(number):
            agent.hosts.end_run(name, outcome)

    @rule(number=which)
    def bury_ended(self, number: int) -> None:
        """Let the process of an isolated daemon that has ended exit."""
        if agent := self.pick(number):
            agent.hosts.bury_ended()

    @rule(number=which, name=names)
    def crash_host(self, number: int, name: DaemonName) -> None:
        """Kill a host process."""
        if agent := self.pick(number):
            agent.hosts.crash(name)

    @rule(number=which)
    def leave(self, number: int) -> None:
        """Drain a node, which leaves if nothing is left."""
        if agent := self.pick(number):
            agent.leave()

    @rule(number=which)
    def pause_or_resume(self, number: int) -> None:
        """Stop an agent by a signal, or let it continue."""
        if agent := self.pick(number):
            (agent.resume if agent.paused else agent.pause)()

    @rule(number=which)
    def kill(self, number: int) -> None:
        """Kill an agent with its hosts."""
        if agent := self.pick(number):
            agent.kill()

    @rule(node=nodes, knows=st.booleans(), fate=fates, pace=st.integers(0, 2))
    def start(self, node: NodeName, knows: bool, fate: Fate, pace: int) -> None:
        """Start an agent: by the worker that saw the last agent die, or by a worker under a name that is in use."""
        dead = [agent for agent in self.world.agents if agent.node == node and not agent.alive and agent.incarnation]
        self.nodes.start(node, dead[-1] if dead and knows else None, fate, rate=self.rates[pace])

    @precondition(lambda self: self.world.flights)
    @rule(number=which)
    def arrive(self, number: int) -> None:
        """Let a message arrive."""
        flight = self.world.flights[number % len(self.world.flights)]
        if not flight.sender.paused:
            self.world.flights.remove(flight)
            flight.act()

    @rule(number=st.integers(0, 1))
    def campaign(self, number: int) -> None:
        """Let a candidate renew its epoch or run for a new epoch."""
        self.monitors[number].campaign()

    @rule(number=st.integers(0, 1), first=fates, second=fates)
    def lead(self, number: int, first: Fate, second: Fate) -> None:
        """Let a monitor read what has changed and act on the changes."""
        monitor = self.monitors[number]
        if monitor.epoch is None:
            monitor.campaign()
        monitor.lead(first, second)

    @rule(number=st.integers(0, 1), first=fates)
    def act_on_an_old_view(self, number: int, first: Fate) -> None:
        """Let a monitor act on an earlier read."""
        self.monitors[number].turn(first)

    @rule(number=st.integers(0, 1), name=names, node=nodes)
    def assign(self, number: int, name: DaemonName, node: NodeName) -> None:
        """Let a monitor assign a daemon, free or not."""
        if self.monitors[number].may_act:
            self.monitors[number].assign(name, node)

    @rule(number=st.integers(0, 1), name=names)
    def recall(self, number: int, name: DaemonName) -> None:
        """Let a monitor recall a daemon."""
        if self.monitors[number].may_act:
            self.monitors[number].recall(name)

    @rule(number=st.integers(0, 1), node=nodes)
    def sweep(self, number: int, node: NodeName) -> None:
        """Let a monitor sweep a node, lost or not."""
        if self.monitors[number].may_act:
            self.monitors[number].sweep(node)

    @rule(number=st.integers(0, 1))
    def pause_or_resume_a_monitor(self, number: int) -> None:
        """Pause a monitor, or let it continue with an old view."""
        self.monitors[number].paused = not self.monitors[number].paused

    @rule(number=st.integers(0, 1))
    def resign(self, number: int) -> None:
        """Let a monitor give its lease back, without noticing."""
        self.monitors[number].resign()

    @rule(name=names, arguments=st.sampled_from([ARGUMENTS, "[[1], {}]"]))
    def want(self, name: DaemonName, arguments: str) -> None:
        """Let a user want a daemon."""
        self.world.forgotten.discard(name)
        self.world.ask(specs.record(self.world.keys, [(name, LAUNCHER_OF[name], arguments)], mode="replace"))

    @rule(name=names, action=st.sampled_from(["stop", "start", "restart"]))
    def desire(self, name: DaemonName, action: specs.Action) -> None:
        """Let a user stop, start or restart a daemon."""
        self.world.ask(specs.desire(self.world.keys, name, action))

    @rule(name=names)
    def forget(self, name: DaemonName) -> None:
        """Let a user forget a daemon."""
        self.world.ask(specs.forget(self.world.keys, [name], cause="model"))
        self.world.forgotten.add(name)

    @rule()
    def lose_data(self) -> None:
        """Lose the server's data."""
        self.world.lose_data()

    @rule()
    def replicate(self) -> None:
        """Let the replica catch up."""
        self.world.save()

    @rule()
    def fail_over(self) -> None:
        """Let the replica take over, without the last writes."""
        self.world.fail_over()

    @invariant()
    def everything_holds(self) -> None:
        """Check the invariants."""
        self.world.check()

    def teardown(self) -> None:
        """Require that without further accidents the cluster runs what is wanted."""
        if self.world.agents:
            come_to_rest(self)


def come_to_rest(machine: Protocol) -> None:
    """Let all messages arrive and everyone work for a while; then what is wanted runs, and nothing else."""
    world, nodes = machine.world, machine.nodes
    for agent in world.agents:
        agent.resume()
    flights, world.flights = world.flights, []
    for flight in flights:
        flight.act()
    # Two leases until a monitor may act, one for the last lease of a dead node, and some rounds to stop and start.
    for _ in range(24):
        machine.let_time_pass(TTL_MS // 3)
        for node in NODES:
            if not any(agent.alive and agent.node == node for agent in world.agents):
                nodes.start(node, None, "prompt")
        for monitor in machine.monitors:
            monitor.paused = False
            monitor.campaign()
            monitor.lead()
        for agent in world.agents:
            if agent.alive:
                agent.look()
            if agent.alive and agent.supervisor.draining:
                # Its worker is shutting down: it leaves, at the end of the drain time-out whatever it still holds.
                agent.leave()
                agent.kill()
        world.check()
        if running(world) == wanted(world):
            return
    raise Broken(f"wanted {wanted(world)}, running {running(world)}, the server holds {world.contents()}")


def wanted(world: World) -> set[str]:
    """Return the daemons that should run."""
    found = world.contents().specs
    return {name for name in found if found[name]["desired"] == "running"}


def running(world: World) -> set[str]:
    """Return the daemons that run."""
    return {name for agent in world.agents for name in agent.running}
