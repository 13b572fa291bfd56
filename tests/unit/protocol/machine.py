"""The state machine: any interleaving of what nodes, monitors, users and accidents do."""

from typing import ClassVar

import fakeredis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.states import Outcome
from celery_daemons.store import specs
from tests.unit.protocol.actors import ARGUMENTS, LAUNCHER, Monitor, Nodes
from tests.unit.protocol.clock import Clock
from tests.unit.protocol.world import DAEMONS, NODES, SLOWEST, TTL_MS, Broken, Fate, Process, World

names = st.sampled_from(DAEMONS)
nodes = st.sampled_from(NODES)
#: Most messages arrive.
fates = st.sampled_from(["prompt", "prompt", "prompt", "lost", "slow", "late"])
which = st.integers(0, 7)


class Protocol(RuleBasedStateMachine):
    """Two nodes, two daemons and two candidates for monitor on one server."""

    #: Shared by all examples, each of which empties it first: a new one has to set up its Lua every time.
    client: ClassVar[fakeredis.FakeRedis]
    clock: ClassVar[Clock]
    #: How fast the clocks of nodes may run, compared with the server's.
    rates: ClassVar[tuple[float, float, float]] = (SLOWEST, 1.0, 1.1)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.client, self.clock)
        self.nodes = Nodes(self.world)
        self.monitors = [Monitor(self.world, "m1"), Monitor(self.world, "m2")]

    def pick(self, number: int) -> Process | None:
        """One of the living processes."""
        living = [process for process in self.world.processes if process.alive]
        return living[number % len(living)] if living else None

    @initialize()
    def everything_runs(self) -> None:
        """Both nodes are up, one daemon runs, and somebody leads."""
        for node in NODES:
            self.nodes.start(node, None, "prompt", self.rates[0])
        self.world.ask(specs.record(self.world.keys, [(DAEMONS[0], LAUNCHER, ARGUMENTS)], mode="spawn"))
        self.monitors[0].campaign()
        for _ in range(2):
            self.let_time_pass(TTL_MS * 2 // 3)
        self.monitors[0].assign(DAEMONS[0], NODES[0])
        self.nodes.look(self.world.processes[0], "prompt")
        self.world.save()

    @rule(ms=st.sampled_from([1, TTL_MS // 3, TTL_MS * 2 // 3]))
    def let_time_pass(self, ms: int) -> None:
        """Time passes, and everybody who can has renewed the lease."""
        self.world.pass_time(ms)
        for process in self.world.processes:
            self.nodes.beat(process, "prompt")
        for monitor in self.monitors:
            if monitor.epoch is not None and not monitor.paused:
                monitor.campaign()

    @rule(ms=st.sampled_from([TTL_MS // 2, TTL_MS, TTL_MS + 1, 3 * TTL_MS]))
    def let_time_pass_without_a_heartbeat(self, ms: int) -> None:
        """Time passes and no heartbeat gets through: leases end."""
        self.world.pass_time(ms)

    @rule(number=which, fate=fates)
    def beat(self, number: int, fate: Fate) -> None:
        """One heartbeat."""
        if process := self.pick(number):
            self.nodes.beat(process, fate)

    @rule(number=which, fate=fates)
    def look(self, number: int, fate: Fate) -> None:
        """A node does what the book says."""
        if process := self.pick(number):
            self.nodes.look(process, fate)

    @rule(number=which, name=names, fate=fates)
    def restart(self, number: int, name: DaemonName, fate: Fate) -> None:
        """A daemon crashes and is started again."""
        if process := self.pick(number):
            self.nodes.restart(process, name, fate)

    @rule(
        number=which,
        name=names,
        outcome=st.sampled_from([Outcome.FINISHED, Outcome.REFUSED, Outcome.EXHAUSTED]),
        fate=fates,
    )
    def finish(self, number: int, name: DaemonName, outcome: Outcome, fate: Fate) -> None:
        """A daemon ends for good, or this node cannot run it."""
        if process := self.pick(number):
            self.nodes.finish(process, name, outcome, fate)

    @rule(number=which, fate=fates)
    def report(self, number: int, fate: Fate) -> None:
        """A node says what it runs."""
        if process := self.pick(number):
            self.nodes.report(process, fate)

    @rule(number=which)
    def leave(self, number: int) -> None:
        """A node leaves."""
        if process := self.pick(number):
            self.nodes.leave(process)

    @rule(number=which)
    def pause_or_resume(self, number: int) -> None:
        """A process is stopped by a signal, or goes on."""
        if process := self.pick(number):
            process.paused = not process.paused

    @rule(number=which)
    def kill(self, number: int) -> None:
        """A process dies."""
        if process := self.pick(number):
            self.nodes.kill(process)

    @rule(node=nodes, knows=st.booleans(), fate=fates, pace=st.integers(0, 2))
    def start(self, node: NodeName, knows: bool, fate: Fate, pace: int) -> None:
        """An agent starts: again, by the worker that saw the last one die; or a worker under a name that is in use."""
        dead = [process for process in self.world.processes if process.node == node and not process.alive]
        self.nodes.start(node, dead[-1] if dead and knows else None, fate, self.rates[pace])

    @precondition(lambda self: self.world.flights)
    @rule(number=which)
    def arrive(self, number: int) -> None:
        """A message that was on its way arrives."""
        flight = self.world.flights[number % len(self.world.flights)]
        if not flight.sender.paused:
            self.world.flights.remove(flight)
            flight.act()

    @rule(number=st.integers(0, 1))
    def campaign(self, number: int) -> None:
        """A candidate renews its epoch or runs for one."""
        self.monitors[number].campaign()

    @rule(number=st.integers(0, 1))
    def lead(self, number: int) -> None:
        """A monitor does all there is to do."""
        monitor = self.monitors[number]
        if monitor.epoch is None:
            monitor.campaign()
        bring_about(self.world, monitor)

    @rule(number=st.integers(0, 1))
    def pause_or_resume_a_monitor(self, number: int) -> None:
        """A monitor is paused, or goes on with what it believed before."""
        self.monitors[number].paused = not self.monitors[number].paused

    @rule(number=st.integers(0, 1))
    def resign(self, number: int) -> None:
        """A monitor steps down, and perhaps forgets that it did."""
        self.monitors[number].resign()

    @rule(number=st.integers(0, 1), name=names, node=nodes)
    def assign(self, number: int, name: DaemonName, node: NodeName) -> None:
        """A monitor assigns."""
        self.monitors[number].assign(name, node)

    @rule(number=st.integers(0, 1), name=names)
    def recall(self, number: int, name: DaemonName) -> None:
        """A monitor recalls."""
        self.monitors[number].recall(name)

    @rule(number=st.integers(0, 1), node=nodes)
    def sweep(self, number: int, node: NodeName) -> None:
        """A monitor sweeps."""
        self.monitors[number].sweep(node)

    @rule(name=names, arguments=st.sampled_from([ARGUMENTS, "[[1], {}]"]))
    def want(self, name: DaemonName, arguments: str) -> None:
        """Somebody wants a daemon."""
        self.world.forgotten.discard(name)
        self.world.ask(specs.record(self.world.keys, [(name, LAUNCHER, arguments)], mode="replace"))

    @rule(name=names, action=st.sampled_from(["stop", "start", "restart"]))
    def desire(self, name: DaemonName, action: str) -> None:
        """Somebody stops, starts or restarts one."""
        self.world.ask(specs.desire(self.world.keys, name, action))  # type: ignore[arg-type]

    @rule(name=names)
    def forget(self, name: DaemonName) -> None:
        """Somebody wants it no more."""
        self.world.ask(specs.forget(self.world.keys, [name], cause="model"))
        self.world.forgotten.add(name)

    @rule()
    def lose_data(self) -> None:
        """The server loses its data."""
        self.world.lose_data()

    @rule()
    def replicate(self) -> None:
        """The replica catches up."""
        self.world.save()

    @rule()
    def fail_over(self) -> None:
        """The replica takes over, without the last writes."""
        self.world.fail_over()

    @invariant()
    def everything_holds(self) -> None:
        """The invariants."""
        self.world.check()

    def teardown(self) -> None:
        """Left in peace, the cluster runs what is wanted."""
        if self.world.processes:
            come_to_rest(self)


def come_to_rest(machine: Protocol) -> None:
    """Let all messages arrive and everybody do their work for a while; then what is wanted runs, and nothing else."""
    world, nodes = machine.world, machine.nodes
    for process in world.processes:
        process.paused = False
    for flight in world.flights:
        flight.act()
    world.flights.clear()
    # Two leases until a monitor may act, one for the last ghost's to end, and some rounds to stop, release and start.
    for _ in range(16):
        machine.let_time_pass(TTL_MS // 3)
        for node in NODES:
            if not any(process.alive and process.node == node for process in world.processes):
                nodes.start(node, None, "prompt")
        for monitor in machine.monitors:
            monitor.paused = False
            monitor.campaign()
            bring_about(world, monitor)
        for process in world.processes:
            if process.alive:
                nodes.look(process)
        world.check()
        if running(world) == wanted(world):
            return
    raise Broken(f"wanted {wanted(world)}, running {running(world)}, the server holds {world.look()}")


def bring_about(world: World, monitor: Monitor) -> None:
    """What a monitor does to bring about what is wanted, if it leads."""
    for node in NODES:
        monitor.sweep(node)
    for name, node in zip(DAEMONS, NODES, strict=True):
        if name in wanted(world):
            monitor.assign(name, node)
        else:
            monitor.recall(name)


def wanted(world: World) -> set[str]:
    """The daemons that should run."""
    specs = world.look().specs
    return {name for name in specs if specs[name]["desired"] == "running"}


def running(world: World) -> set[str]:
    """The daemons that do."""
    return {name for process in world.processes for name in process.running}
