"""Interleavings with faults of the environment: Redis's clock is set, old data returns, leases differ, forks fail.

Each attacks one line of the protocol, as in stories.py.
"""

from collections.abc import Callable

from celery_daemons.domain.states import Outcome
from celery_daemons.node.witness import ClusterWitness
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.config import LONG, SETTINGS
from tests.unit.protocol.monitors import ModelMonitor
from tests.unit.protocol.story import A, B, Story, X
from tests.unit.protocol.world import LONG_TTL_MS, NODES, TTL_MS, must

HOUR_MS = 3_600_000
SECOND_MS = 1000


def redis_clock_is_set_forward(story: Story) -> None:
    """By Redis's clock, every lease has ended; the monitor's has, and another monitor is elected."""
    story.monitor.lead()
    story.world.set_server_clock(TTL_MS + 1)
    story.rival.campaign()
    must(story.rival.epoch is not None, "no monitor leads")
    for _ in range(2):
        story.rival.lead()
    story.b.look()
    story.holds()
    must(set(story.world.contents().nodes) == set(NODES), "a node was lost by Redis's clock")


def a_machine_is_lost_as_redis_clock_is_set_back(story: Story) -> None:
    """By Redis's clock, the lease of the lost node runs for an hour; its daemon still moves after one lease."""
    story.monitor.lead()
    story.a.kill()
    story.world.set_server_clock(-HOUR_MS)
    for _ in range(4):
        story.time_passes(story.b)
        story.monitor.lead()
    story.b.look()
    must(X in story.b.running, "x was lost with its node")


def a_monitor_without_a_worker_has_seen_the_clock_before(story: Story) -> None:
    """Its agent has measured Redis's clock before the step: it knows that the lease of a silent node still runs."""
    lone = ModelMonitor(story.world, "m3", witness=ClusterWitness(settings=SETTINGS, node=A))
    story.time_passes()
    lone.campaign()
    must(lone.epoch is None, "two monitors lead")
    story.world.pass_time(SECOND_MS)
    for agent in story.world.agents:
        agent.beat("prompt")
    # Not so far that all leases have ended: sweeps would then wait in any case.
    story.world.set_server_clock(TTL_MS - SECOND_MS // 2)
    story.b.beat("prompt")
    for _ in range(2):
        story.world.pass_time(SECOND_MS)
        story.b.beat("prompt")
        lone.campaign()
    story.world.pass_time(100)
    lone.campaign()
    must(lone.epoch is not None, "no monitor leads")
    lone.lead()
    story.holds()
    must(A in story.world.contents().nodes, "a node was lost by Redis's clock")


def a_silent_node_has_a_longer_lease_than_others(story: Story) -> None:
    """Redis loses everything, also the lease of the silent holder; the monitor is new and knows of no longer lease."""
    story.b.kill()
    story.b = story.nodes.start(B, story.b, "prompt", settings=LONG)
    story.move(story.a, story.b, B)
    for agent in story.world.agents:
        agent.beat("prompt")
    story.world.lose_data()
    for passed in range(SECOND_MS, 2 * LONG_TTL_MS, SECOND_MS):
        story.world.pass_time(SECOND_MS)
        story.a.beat("prompt")
        story.want(X)
        story.rival.campaign()
        story.rival.lead()
        story.a.look()
        story.holds()
        must(passed >= LONG_TTL_MS or X in story.b.running, "x was stopped before its lease ended")
    must(X in story.a.running, "x was lost with its node")


def redis_returns_old_while_its_clock_is_behind(story: Story) -> None:
    """Neither the old counter nor the clock is as high as the token of x, but the holder of x reports its token."""
    snapshot = story.world.snapshots
    story.world.save()
    story.time_passes()
    story.move(story.a, story.b, B)
    story.world.set_server_clock(-HOUR_MS)
    story.time_passes()
    story.world.save()
    story.world.fail_over(snapshot)
    for _ in range(5):
        story.time_passes()
    must(X in story.b.running, "x was stopped")
    story.b.hosts.end_run(X, Outcome.FAILED)
    story.b.look()
    must(X in story.b.running, "x was not started again")


def a_node_cannot_fork(story: Story) -> None:
    """The host of x dies, and no other can be forked: another node runs x until forks succeed again."""
    _lose_forks(story.a)
    _work(story, rounds=5)
    must(X in story.b.running, "x waits for a process that cannot be forked")
    story.holds()
    story.a.hosts.forks_fail = False
    story.b.kill()
    _work(story, rounds=5)
    must(X in story.a.running, "the node takes no daemons although forks succeed")


def a_node_that_cannot_fork_is_given_a_daemon(story: Story) -> None:
    """A monitor that has not read the last change assigns to the node."""
    _lose_forks(story.a)
    for _ in range(4):
        story.time_passes()
        story.a.tick()
        story.a.look()
    must(story.world.contents().nodes[A].get("problem", "") != "", "the node has not reported its problem")
    story.monitor.assign(X, A)
    must(story.world.contents().book[X].get("node") is None, "x was assigned to a node that cannot fork")


def _lose_forks(agent: ModelAgent) -> None:
    agent.hosts.forks_fail = True
    agent.hosts.crash(X)
    agent.look()
    must(X not in agent.running, "x runs without a process")


def _work(story: Story, *, rounds: int) -> None:
    for _ in range(rounds):
        story.time_passes(*(agent for agent in story.world.agents if agent.alive))
        story.monitor.lead()
        for agent in story.world.agents:
            agent.tick()
            agent.look()


OF_ACCIDENTS: tuple[Callable[[Story], None], ...] = (
    redis_clock_is_set_forward,
    a_machine_is_lost_as_redis_clock_is_set_back,
    a_monitor_without_a_worker_has_seen_the_clock_before,
    a_silent_node_has_a_longer_lease_than_others,
    redis_returns_old_while_its_clock_is_behind,
    a_node_cannot_fork,
    a_node_that_cannot_fork_is_given_a_daemon,
)
