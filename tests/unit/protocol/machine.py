"""The state machine: any interleaving of actions of nodes, monitors and users, and of faults."""

from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.states import Outcome
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.settings import Settings
from celery_daemons.store import specs
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.audits import counter_is_behind
from tests.unit.protocol.clock import Clock
from tests.unit.protocol.config import ARGUMENTS, LAUNCHER_OF, LONG, SETTINGS, WARNED
from tests.unit.protocol.double import Double
from tests.unit.protocol.monitors import ModelMonitor
from tests.unit.protocol.nodes import Nodes
from tests.unit.protocol.rest import come_to_rest
from tests.unit.protocol.world import DAEMONS, LONG_TTL_MS, NODES, SLOWEST, TTL_MS, Fate, World

names = st.sampled_from(DAEMONS)
nodes = st.sampled_from(NODES)
#: Most messages arrive.
fates = st.sampled_from(["prompt", "prompt", "prompt", "lost", "slow", "late"])
which = st.integers(0, 7)


#: Milliseconds by which the server's clock is set: less than a heartbeat, nearly a lease, more than one, an hour.
steps = st.sampled_from([200, TTL_MS * 9 // 10, 2 * LONG_TTL_MS, 3_600_000])


class Protocol(RuleBasedStateMachine):
    """Two nodes, two daemons, and two candidates for monitor, of which the second has no worker, on one server."""

    #: Shared by all examples, each of which empties it first: a new one has to set up its Lua every time.
    double: ClassVar[Double]
    clock: ClassVar[Clock]
    #: How fast the clocks of nodes may run, compared with the server's.
    rates: ClassVar[tuple[float, float, float]] = (SLOWEST, 1.0, 1.1)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.double, self.clock)
        self.nodes = Nodes(self.world)
        #: The settings that agents start with, in turn. Every monitor knows the longest lease.
        self.settings: tuple[Settings, ...] = (SETTINGS,)
        self.monitors: list[ModelMonitor] = []

    def pick(self, number: int) -> ModelAgent | None:
        """Return one of the living agents."""
        living = [agent for agent in self.world.agents if agent.alive]
        return living[number % len(living)] if living else None

    def settings_of(self, number: int) -> Settings:
        """Return settings for a new agent."""
        return self.settings[number % len(self.settings)]

    @initialize(mixed=st.booleans())
    def everything_runs(self, mixed: bool) -> None:
        """Start both nodes, with leases of one length or two, one daemon and a monitor."""
        self.settings = (WARNED, LONG) if mixed else (SETTINGS,)
        settings = self.settings[0]
        witness = ClusterWitness(settings=settings, node=NodeName("m2"))
        self.monitors = [
            ModelMonitor(self.world, "m1", settings=settings),
            ModelMonitor(self.world, "m2", settings=settings, witness=witness),
        ]
        for number, node in enumerate(NODES):
            self.nodes.start(node, None, "prompt", rate=self.rates[0], settings=self.settings_of(number))
        self.want(DAEMONS[0], ARGUMENTS)
        self.monitors[0].campaign()
        for _ in range(3 * len(self.settings)):
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

    @rule(node=nodes, knows=st.booleans(), fate=fates, pace=st.integers(0, 2), lease=st.integers(0, 1))
    def start(self, node: NodeName, knows: bool, fate: Fate, pace: int, lease: int) -> None:
        """Start an agent: by the worker that saw the last agent die, or by a worker under a name that is in use."""
        if self.nodes.seems_free(node):
            return
        dead = [agent for agent in self.world.agents if agent.node == node and not agent.alive and agent.incarnation]
        previous = dead[-1] if dead and knows else None
        self.nodes.start(node, previous, fate, rate=self.rates[pace], settings=self.settings_of(lease))

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
        # By Redis's clock, leases from before a step forward have ended: the product measures them by its own.
        if self.monitors[number].may_act and self.world.now > self.world.clock_set_forward_at + LONG_TTL_MS * 1000:
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

    @precondition(lambda self: not self.world.clock_is_behind)
    @rule()
    def lose_data(self) -> None:
        """Lose the server's data, but not while its clock is behind: the guarantees page names that limit of tokens."""
        self.world.lose_data()

    @rule()
    def replicate(self) -> None:
        """Let the replica catch up, and keep a snapshot."""
        self.world.save()

    @precondition(lambda self: not self.world.clock_is_behind)
    @rule(age=st.integers(0, 3))
    def fail_over(self, age: int) -> None:
        """Let the replica take over, without the last writes, or a server with an older snapshot."""
        self.world.fail_over(max(-1 - age, -self.world.snapshots))

    @rule(ms=steps, back=st.booleans())
    def set_clock(self, ms: int, back: bool) -> None:
        """Set the server's clock: not twice between two measurements, not back after a loss of tokens, two limits."""
        world = self.world
        measured = all(one.epoch is None or one.measured == world.clock_steps for one in self.monitors)
        measured = measured and not (back and counter_is_behind(world))
        if measured and world.now >= world.clock_set_at + 2 * LONG_TTL_MS * 1000:
            world.set_server_clock(-ms if back else ms)

    @rule(number=which, fail=st.booleans())
    def fail_forks(self, number: int, fail: bool) -> None:
        """Let the forks of a node fail, or succeed again."""
        if agent := self.pick(number):
            agent.hosts.forks_fail = fail

    @invariant()
    def everything_holds(self) -> None:
        """Check the invariants."""
        self.world.check()

    def teardown(self) -> None:
        """Require that without further accidents the cluster runs what is wanted."""
        if self.world.agents:
            come_to_rest(self.world, self.nodes, self.monitors, rounds=24 * len(self.settings), work=self.work)

    def work(self) -> None:
        """Let a heartbeat pass."""
        self.let_time_pass(TTL_MS // 3)
