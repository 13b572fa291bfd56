"""Interleavings of starts and stops: each attacks one line of the protocol, without which it breaks an invariant."""

from collections.abc import Callable

from celery_daemons.domain.states import Outcome
from celery_daemons.errors import Fenced
from celery_daemons.store import lease, specs
from tests.unit.protocol.config import LAUNCHER_OF
from tests.unit.protocol.story import A, B, Story, X, Y
from tests.unit.protocol.world import TTL_MS, must


def a_node_whose_lease_runs_is_swept(story: Story) -> None:
    """A monitor that reads an old list of nodes sweeps one that is alive."""
    story.monitor.sweep(A)
    story.holds()


def a_dead_node_is_swept_and_its_daemon_moves(story: Story) -> None:
    """A machine is lost; its lease ends, and its daemon runs elsewhere."""
    story.a.kill()
    story.outlast(story.a)
    for _ in range(2):
        story.monitor.lead()
    story.holds()
    story.b.look()
    must(X in story.b.running, "x was lost with its node")


def a_daemon_that_runs_is_assigned_again(story: Story) -> None:
    """A monitor that missed the last change assigns what is placed."""
    story.monitor.assign(X, B)
    story.b.look()
    story.holds()


def a_late_release_meets_a_newer_start(story: Story) -> None:
    """x is given back, the release hangs in the network, x is started again on the node; then the release arrives."""
    story.monitor.recall(X)
    story.a.look("late")
    story.a.look()
    story.monitor.assign(X, A)
    story.a.look()
    must(X in story.a.running, "x was not started again")
    story.arrive()
    story.monitor.assign(X, B)
    story.b.look()
    story.holds()


def a_late_claim_meets_a_newer_token(story: Story) -> None:
    """A claim hangs in the network; by the time it arrives, x has been started under a newer token."""
    story.a.hosts.end_run(X, Outcome.FAILED)
    story.a.sender.flush("late")
    story.a.look()
    must(X in story.a.running, "x was not started again")
    story.arrive()


def a_late_claim_arrives_after_the_lease(story: Story) -> None:
    """A claim hangs in the network until the lease of its node has ended."""
    story.a.hosts.end_run(X, Outcome.FAILED)
    story.a.sender.flush("late")
    story.outlast(story.a)
    story.arrive()


def a_daemon_starts_twice_under_one_token(story: Story) -> None:
    """x crashes and starts again: a resource that it wrote to must be able to distinguish the two runs."""
    story.a.hosts.end_run(X, Outcome.FAILED)
    story.a.sender.flush()
    must(X in story.a.running, "x was not started again")


def a_worker_of_a_taken_name_starts(story: Story) -> None:
    """A second worker is started under a name that is in use."""
    story.nodes.start(A, None, "prompt")
    story.holds()


def the_worker_restarts_its_agent(story: Story) -> None:
    """An agent dies and its worker starts another at once, which need not wait for the lease to end."""
    story.a.kill()
    again = story.nodes.start(A, story.a, "prompt")
    must(again.alive, "the new agent has to wait for the lease of one that is known to be dead")
    for _ in range(2):
        story.monitor.lead()
        again.look()
        story.b.look()
    must(X in again.running or X in story.b.running, "x was not taken over")
    story.holds()


def a_late_beat_of_a_dead_incarnation_arrives(story: Story) -> None:
    """A heartbeat hangs in the network until another incarnation has the name."""
    story.a.beat("late")
    story.a.kill()
    story.nodes.start(A, story.a, "prompt")
    story.arrive()


def a_paused_monitor_goes_on(story: Story) -> None:
    """A monitor is paused for longer than its lease; another one leads when it continues."""
    story.rival.campaign()
    story.world.pass_time(TTL_MS + 1)
    for agent in story.world.agents:
        agent.beat("prompt")
    story.rival.campaign()
    must(story.rival.epoch is not None, "no monitor leads")
    story.monitor.assign(X, B)
    must(story.monitor.epoch is None, "the paused monitor still believes to lead")


def a_node_leaves_with_nothing_in_hand(story: Story) -> None:
    """x moves away from a; a then holds nothing and can leave at once."""
    story.move(story.a, story.b, B)
    story.holds()
    story.a.leave()
    must(not story.a.alive, "a cannot leave")
    must(A not in story.world.contents().nodes, "a left and is registered")


def a_daemon_is_replaced_as_it_finishes(story: Story) -> None:
    """y returns for good just when a user wants it with other arguments: that is another daemon, and it is wanted."""
    story.want(Y)
    story.monitor.assign(Y, A)
    story.a.look()
    must(Y in story.a.running, "y does not run")
    items = [(Y, LAUNCHER_OF[Y], "[[1], {}]")]
    story.world.ask(specs.record(story.world.keys, items, mode="replace"))
    story.a.hosts.end_run(Y, Outcome.FINISHED)
    story.a.hosts.bury_ended()
    story.a.sender.flush()
    must(Y not in story.a.running, "y did not finish")
    must(story.world.contents().specs[Y]["desired"] == "running", "the new daemon was stopped with the old one")


def a_monitor_without_the_lease_resigns(story: Story) -> None:
    """A deposed monitor gives back a lease that another monitor holds by now."""
    old = story.monitor.epoch
    assert old is not None
    story.world.pass_time(TTL_MS + 1)
    story.rival.campaign()
    before = story.world.contents()
    try:
        story.world.ask(lease.resign(story.world.keys, old, cause="story"))
    except Fenced:
        raise AssertionError("giving back a lease that one does not have is not an error") from None
    must(story.world.contents() == before, "a deposed monitor took the lease from its successor")


def a_process_outlives_the_report_of_its_end(story: Story) -> None:
    """y reports its end while its process still holds what it used: no other node may start y before that is dead."""
    story.want(Y)
    story.monitor.assign(Y, A)
    story.a.look()
    story.monitor.recall(Y)
    story.a.read_assignments()
    story.a.hosts.report_stops()
    story.a.sender.flush()
    story.monitor.assign(Y, B)
    story.b.look()
    story.holds()
    story.a.hosts.bury_ended()
    story.a.sender.flush()
    story.monitor.assign(Y, B)
    story.b.look()
    must(Y in story.b.running, "y does not run on b")


OF_STARTS_AND_STOPS: tuple[Callable[[Story], None], ...] = (
    a_node_whose_lease_runs_is_swept,
    a_dead_node_is_swept_and_its_daemon_moves,
    a_daemon_that_runs_is_assigned_again,
    a_late_release_meets_a_newer_start,
    a_late_claim_meets_a_newer_token,
    a_late_claim_arrives_after_the_lease,
    a_daemon_starts_twice_under_one_token,
    a_worker_of_a_taken_name_starts,
    the_worker_restarts_its_agent,
    a_late_beat_of_a_dead_incarnation_arrives,
    a_paused_monitor_goes_on,
    a_node_leaves_with_nothing_in_hand,
    a_daemon_is_replaced_as_it_finishes,
    a_monitor_without_the_lease_resigns,
    a_process_outlives_the_report_of_its_end,
)
