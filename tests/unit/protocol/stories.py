"""Stories: interleavings that each attack one line of the protocol, and do not end well without that line."""

from collections.abc import Callable

import fakeredis

from celery_daemons.domain.states import Outcome
from celery_daemons.errors import Fenced
from celery_daemons.store import lease, specs
from tests.unit.protocol.actors import ARGUMENTS, LAUNCHER, Monitor, Nodes
from tests.unit.protocol.clock import Clock
from tests.unit.protocol.machine import bring_about
from tests.unit.protocol.world import DAEMONS, NODES, TTL_MS, Process, World, must

A, B = NODES
X, Y = DAEMONS


class Story:
    """A cluster of two nodes in which daemon x runs on node a, and the acts of which stories are made."""

    def __init__(self, client: fakeredis.FakeRedis, clock: Clock) -> None:
        self.world = World(client, clock)
        self.nodes = Nodes(self.world)
        self.monitor = Monitor(self.world, "m1")
        self.rival = Monitor(self.world, "m2")
        self.a = self.nodes.start(A, None, "prompt")
        self.b = self.nodes.start(B, None, "prompt")
        self.world.ask(specs.record(self.world.keys, [(X, LAUNCHER, ARGUMENTS)], mode="spawn"))
        self.monitor.campaign()
        self.time_passes()
        self.time_passes()
        self.monitor.assign(X, A)
        self.nodes.look(self.a)
        self.holds()
        must(X in self.a.running, "x does not run at the beginning")

    def holds(self) -> None:
        """Everything that must hold does."""
        self.world.check()

    def time_passes(self, *beating: Process) -> None:
        """Two thirds of a lease in which these (all, if none is named) renew theirs, and so does the monitor."""
        self.world.pass_time(TTL_MS * 2 // 3)
        for process in beating or self.world.processes:
            self.nodes.beat(process, "prompt")
        self.monitor.campaign()

    def outlast(self, gone: Process) -> None:
        """Time passes until the lease of one node has ended; the others renew theirs."""
        others = [process for process in self.world.processes if process is not gone]
        self.time_passes(*others)
        self.time_passes(*others)

    def move_to_b(self) -> None:
        """x moves to node b: recalled, released, assigned, claimed."""
        self.monitor.recall(X)
        self.nodes.look(self.a)
        self.monitor.assign(X, B)
        self.nodes.look(self.b)
        must(X in self.b.running, "x does not run on b")

    def arrive(self) -> None:
        """What was on its way arrives."""
        flights, self.world.flights = self.world.flights, []
        for flight in flights:
            flight.act()
        self.holds()


def a_node_whose_lease_runs_is_swept(story: Story) -> None:
    """A monitor that reads an old list of nodes sweeps one that is alive."""
    story.monitor.sweep(A)
    story.holds()


def a_dead_node_is_swept_and_its_daemon_moves(story: Story) -> None:
    """A machine is lost; its lease ends, and its daemon runs elsewhere."""
    story.nodes.kill(story.a)
    story.outlast(story.a)
    story.monitor.sweep(A)
    story.holds()
    story.monitor.assign(X, B)
    story.nodes.look(story.b)
    must(X in story.b.running, "x was lost with its node")


def a_daemon_that_runs_is_assigned_again(story: Story) -> None:
    """A monitor that missed the last change assigns what is placed."""
    story.monitor.assign(X, B)
    story.nodes.look(story.b)
    story.holds()


def a_late_release_meets_a_newer_start(story: Story) -> None:
    """x ends, its release hangs in the network, x is started again on the same node; then the release arrives."""
    story.nodes.finish(story.a, X, Outcome.FAILED, "late")
    story.nodes.look(story.a)
    must(X in story.a.running, "x was not started again")
    story.arrive()
    story.monitor.assign(X, B)
    story.nodes.look(story.b)
    story.holds()


def a_late_claim_meets_a_newer_token(story: Story) -> None:
    """A claim hangs in the network; by the time it arrives, x has been started under a newer token."""
    story.nodes.restart(story.a, X, "late")
    story.nodes.look(story.a)
    must(X in story.a.running, "x was not started again")
    story.arrive()


def a_late_claim_arrives_after_the_lease(story: Story) -> None:
    """A claim hangs in the network until the lease of its node has ended."""
    story.nodes.restart(story.a, X, "late")
    story.outlast(story.a)
    story.arrive()


def a_daemon_starts_twice_under_one_token(story: Story) -> None:
    """x crashes and starts again: what it wrote to before must be able to tell the two lives apart."""
    story.nodes.restart(story.a, X, "prompt")
    must(X in story.a.running, "x was not started again")


def a_late_reassertion_meets_a_newer_holder(story: Story) -> None:
    """A primary is lost, a node tells the new one what it runs and dies; its daemon moves; then the message arrives."""
    story.world.save()
    story.world.fail_over()
    story.nodes.beat(story.a, "late")
    story.nodes.kill(story.a)
    story.nodes.beat(story.b, "prompt")
    story.outlast(story.a)
    bring_about(story.world, story.monitor)
    story.monitor.assign(X, B)
    story.nodes.look(story.b)
    must(X in story.b.running, "x did not move")
    story.arrive()
    story.nodes.look(story.b)
    must(X in story.b.running, "an old message took x from its node")


def all_data_is_lost(story: Story) -> None:
    """Redis forgets everything while x runs: nothing that runs is forgotten, and no token comes twice."""
    story.world.lose_data()
    story.time_passes()
    story.holds()
    must(X in story.a.running, "x was stopped")
    story.nodes.restart(story.a, X, "prompt")
    story.time_passes()
    story.time_passes()
    story.monitor.campaign()
    story.move_to_b()


def a_daemon_that_did_not_run_outlives_a_loss(story: Story) -> None:
    """y has run and stopped; Redis forgets that too. When y is wanted again, its token still grows."""
    wanted = specs.record(story.world.keys, [(Y, LAUNCHER, ARGUMENTS)], mode="spawn")
    story.world.ask(wanted)
    story.monitor.assign(Y, B)
    story.nodes.look(story.b)
    for _ in range(10):
        story.nodes.restart(story.b, Y, "prompt")
    story.monitor.recall(Y)
    story.nodes.look(story.b)
    story.world.lose_data()
    story.time_passes()
    story.time_passes()
    story.time_passes()
    story.world.ask(wanted)
    story.monitor.campaign()
    story.monitor.assign(Y, B)
    story.nodes.look(story.b)
    must(Y in story.b.running, "y does not run again")


def a_worker_of_a_taken_name_starts(story: Story) -> None:
    """A second worker is started under a name that is in use."""
    story.nodes.start(A, None, "prompt")
    story.holds()


def the_worker_restarts_its_agent(story: Story) -> None:
    """An agent dies and its worker starts another at once, which need not wait for the lease to end."""
    story.nodes.kill(story.a)
    again = story.nodes.start(A, story.a, "prompt")
    must(again.alive, "the new agent has to wait for the lease of one that is known to be dead")
    story.nodes.look(again)
    must(X in again.running, "x was not taken over")
    story.holds()


def a_late_beat_of_a_dead_incarnation_arrives(story: Story) -> None:
    """A heartbeat hangs in the network until another incarnation has the name."""
    story.nodes.beat(story.a, "late")
    story.nodes.kill(story.a)
    story.nodes.start(A, story.a, "prompt")
    story.arrive()


def a_paused_monitor_goes_on(story: Story) -> None:
    """A monitor is paused for longer than its lease; another one leads when it goes on."""
    story.rival.campaign()
    story.world.pass_time(TTL_MS + 1)
    for process in story.world.processes:
        story.nodes.beat(process, "prompt")
    story.rival.campaign()
    must(story.rival.epoch is not None, "nobody leads")
    story.monitor.assign(X, B)
    must(story.monitor.epoch is None, "the paused monitor still believes to lead")


def a_node_leaves_with_nothing_in_hand(story: Story) -> None:
    """x moves away from a; a then holds nothing and can leave at once."""
    story.move_to_b()
    story.holds()
    story.nodes.leave(story.a)
    must(not story.a.alive, "a cannot leave")
    must(A not in story.world.look().nodes, "a left and is registered")


def a_forgotten_daemon_meets_a_failover(story: Story) -> None:
    """x is forgotten; before its node has heard of it, another primary takes over and the node tells it of x."""
    story.world.ask(specs.forget(story.world.keys, [X], cause="story"))
    story.world.forgotten.add(X)
    story.world.save()
    story.world.fail_over()
    story.time_passes()
    must(X not in story.world.look().specs, "what was forgotten is wanted again")


def a_recall_meets_a_failover(story: Story) -> None:
    """x is recalled; before its node has heard of it, another primary takes over and the node tells it of x."""
    story.monitor.recall(X)
    story.world.save()
    story.world.fail_over()
    story.time_passes()
    must(story.world.look().book[X]["status"] == "stopping", "the recall was taken back")


def a_daemon_is_replaced_as_it_finishes(story: Story) -> None:
    """x returns for good just when somebody wants it with other arguments: that is another life, and it is wanted."""
    story.world.ask(specs.record(story.world.keys, [(X, LAUNCHER, "[[1], {}]")], mode="replace"))
    story.nodes.finish(story.a, X, Outcome.FINISHED, "prompt")
    must(story.world.look().specs[X]["desired"] == "running", "the new life was stopped with the old one")


def a_failover_leaves_a_name_behind(story: Story) -> None:
    """x moved from a to b after the replica's last word: a holds it by name only, and must still be able to leave."""
    story.world.save()
    story.move_to_b()
    story.world.fail_over()
    story.nodes.beat(story.b, "prompt")
    story.nodes.beat(story.a, "prompt")
    story.nodes.look(story.a)
    story.holds()
    must(X in story.b.running, "x was stopped")
    story.nodes.leave(story.a)
    must(not story.a.alive, "a cannot leave for a name that it does not hold")


def a_monitor_without_the_lease_resigns(story: Story) -> None:
    """A deposed monitor gives back a lease that is another's by now."""
    old = story.monitor.epoch
    assert old is not None
    story.world.pass_time(TTL_MS + 1)
    story.rival.campaign()
    before = story.world.look()
    try:
        story.world.ask(lease.resign(story.world.keys, old, cause="story"))
    except Fenced:
        raise AssertionError("giving back what one does not have is no error") from None
    must(story.world.look() == before, "a deposed monitor took the lease from its successor")


STORIES: tuple[Callable[[Story], None], ...] = (
    a_node_whose_lease_runs_is_swept,
    a_dead_node_is_swept_and_its_daemon_moves,
    a_daemon_that_runs_is_assigned_again,
    a_late_release_meets_a_newer_start,
    a_late_claim_meets_a_newer_token,
    a_late_claim_arrives_after_the_lease,
    a_daemon_starts_twice_under_one_token,
    a_late_reassertion_meets_a_newer_holder,
    all_data_is_lost,
    a_daemon_that_did_not_run_outlives_a_loss,
    a_worker_of_a_taken_name_starts,
    the_worker_restarts_its_agent,
    a_late_beat_of_a_dead_incarnation_arrives,
    a_paused_monitor_goes_on,
    a_node_leaves_with_nothing_in_hand,
    a_forgotten_daemon_meets_a_failover,
    a_recall_meets_a_failover,
    a_daemon_is_replaced_as_it_finishes,
    a_failover_leaves_a_name_behind,
    a_monitor_without_the_lease_resigns,
)
