"""Interleavings with a loss of data or of a primary: each attacks one line of the protocol, as in stories.py."""

from collections.abc import Callable

from celery_daemons.domain.states import Outcome
from celery_daemons.store import specs
from tests.unit.protocol.story import A, B, Story, X, Y
from tests.unit.protocol.world import must


def a_late_reassertion_meets_a_newer_holder(story: Story) -> None:
    """A primary is lost, a node registers with the new one and dies; its daemon moves; then the message arrives."""
    story.world.save()
    story.world.fail_over()
    story.a.beat("prompt", "late")
    story.a.kill()
    story.b.beat("prompt")
    for _ in range(4):
        story.time_passes(story.b)
        story.monitor.lead()
    story.b.look()
    must(X in story.b.running, "x did not move")
    story.arrive()
    story.b.look()
    must(X in story.b.running, "an old message took x from its node")


def all_data_is_lost(story: Story) -> None:
    """Redis forgets everything while x runs: nothing that runs is forgotten, and no token comes twice."""
    story.world.lose_data()
    story.time_passes()
    story.holds()
    must(X in story.world.contents().specs, "nothing says that x should run")
    for _ in range(3):
        story.time_passes()
    must(X in story.a.running, "x was stopped")
    story.a.hosts.end_run(X, Outcome.FAILED)
    story.a.sender.flush()
    must(X in story.a.running, "x was not started again")
    story.move(story.a, story.b, B)


def a_daemon_that_did_not_run_outlives_a_loss(story: Story) -> None:
    """y has run and stopped; Redis forgets that too. When y is wanted again, its token still grows."""
    story.want(Y)
    story.monitor.assign(Y, B)
    story.b.look()
    for _ in range(2):
        story.b.hosts.end_run(Y, Outcome.FAILED)
        story.b.hosts.bury_ended()
        story.b.look()
    must(Y in story.b.running, "y does not run")
    story.monitor.recall(Y)
    story.b.look()
    story.b.sender.flush()
    story.world.lose_data()
    for _ in range(4):
        story.time_passes()
    story.want(Y)
    story.monitor.assign(Y, B)
    story.b.look()
    must(Y in story.b.running, "y does not run again")


def a_forgotten_daemon_meets_a_failover(story: Story) -> None:
    """x is forgotten; before its node knows that, another primary takes over and the node reports x to it."""
    story.world.ask(specs.forget(story.world.keys, [X], cause="story"))
    story.world.forgotten.add(X)
    story.world.save()
    story.world.fail_over()
    story.time_passes()
    must(X not in story.world.contents().specs, "what was forgotten is wanted again")


def a_recall_meets_a_failover(story: Story) -> None:
    """x is recalled; before its node knows that, another primary takes over and the node reports x to it."""
    story.monitor.recall(X)
    story.world.save()
    story.world.fail_over()
    story.time_passes()
    must(story.world.contents().book[X]["status"] == "stopping", "the recall was taken back")


def a_failover_leaves_a_name_behind(story: Story) -> None:
    """x moved from a to b after the replica's last write: a holds it by name only, and must still be able to leave."""
    story.world.save()
    story.move(story.a, story.b, B)
    story.world.fail_over()
    story.b.beat("prompt")
    story.a.beat("prompt")
    story.a.look()
    story.holds()
    must(X in story.b.running, "x was stopped")
    story.a.leave()
    must(not story.a.alive, "a cannot leave for a name that it does not hold")


def a_claim_meets_an_unconfirmed_server(story: Story) -> None:
    """A replica takes over without the last move of x; an agent that joins after that must not be granted x at once."""
    story.world.save()
    story.move(story.a, story.b, B)
    story.world.fail_over()
    story.a.kill()
    again = story.nodes.start(A, story.a, "prompt")
    story.monitor.assign(X, A)
    again.look()
    story.holds()


OF_LOSSES: tuple[Callable[[Story], None], ...] = (
    a_late_reassertion_meets_a_newer_holder,
    all_data_is_lost,
    a_daemon_that_did_not_run_outlives_a_loss,
    a_forgotten_daemon_meets_a_failover,
    a_recall_meets_a_failover,
    a_failover_leaves_a_name_behind,
    a_claim_meets_an_unconfirmed_server,
)
