"""The end of each random walk: without further faults, exactly the wanted daemons run."""

from collections.abc import Callable, Sequence

from tests.unit.protocol.monitors import ModelMonitor
from tests.unit.protocol.nodes import Nodes
from tests.unit.protocol.world import NODES, Broken, World


def come_to_rest(
    world: World, nodes: Nodes, monitors: Sequence[ModelMonitor], *, rounds: int, work: Callable[[], None]
) -> None:
    """Let all messages arrive and all processes work for a while; then exactly the wanted daemons must run.

    ``work`` lets a heartbeat pass.
    """
    for agent in world.agents:
        agent.hosts.forks_fail = False
        agent.resume()
    flights, world.flights = world.flights, []
    for flight in flights:
        flight.act()
    # Two leases until a monitor may act, one for the last lease of a dead node, and some rounds to stop and start.
    for _ in range(rounds):
        work()
        for node in NODES:
            if not any(agent.alive and agent.node == node for agent in world.agents):
                nodes.start(node, None, "prompt")
        for monitor in monitors:
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
