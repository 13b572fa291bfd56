"""Stories: interleavings that each attack one line of the protocol, and do not end well without that line."""

from collections.abc import Callable

import fakeredis

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.states import Outcome
from celery_daemons.errors import Fenced
from celery_daemons.store import lease, specs
from tests.unit.protocol.agents import ARGUMENTS, LAUNCHER_OF, ModelAgent, Nodes
from tests.unit.protocol.clock import Clock
from tests.unit.protocol.monitors import ModelMonitor
from tests.unit.protocol.world import DAEMONS, NODES, SLOWEST, TTL_MS, World, must

A, B = NODES
X, Y = DAEMONS


class Story:
    """A cluster of two nodes in which daemon x runs on node a, and the acts of which stories are made."""

    def __init__(self, client: fakeredis.FakeRedis, clock: Clock, *, rate: float = SLOWEST) -> None:
        self.world = World(client, clock)
        self.nodes = Nodes(self.world)
        self.monitor = ModelMonitor(self.world, "m1")
        self.rival = ModelMonitor(self.world, "m2")
        self.a = self.nodes.start(A, None, "prompt", rate)
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
        """A user wants daemons."""
        for name in DAEMONS:
            if name in names:
                items = [(name, LAUNCHER_OF[name], ARGUMENTS)]
                self.world.ask(specs.record(self.world.keys, items, mode="spawn"))

    def holds(self) -> None:
        """Everything that must hold does."""
        self.world.check()

    def time_passes(self, *beating: ModelAgent) -> None:
        """Two thirds of a lease in which these agents (all, if none is named) and the monitor renew their leases."""
        self.world.pass_time(TTL_MS * 2 // 3)
        for agent in beating or self.world.agents:
            agent.beat("prompt")
        self.monitor.campaign()
        self.monitor.follow()
        self.monitor.confirm_server()

    def outlast(self, gone: ModelAgent) -> None:
        """Time passes until the lease of one node has ended; the others renew theirs."""
        others = [agent for agent in self.world.agents if agent is not gone]
        self.time_passes(*others)
        self.time_passes(*others)

    def move(self, source: ModelAgent, target: ModelAgent, name: NodeName) -> None:
        """x moves: recalled, released, assigned, claimed."""
        self.monitor.recall(X)
        source.look()
        self.monitor.assign(X, name)
        target.look()
        must(X in target.running, f"x does not run on {name}")

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
    story.a.end_run(X, Outcome.FAILED)
    story.a.flush("late")
    story.a.look()
    must(X in story.a.running, "x was not started again")
    story.arrive()


def a_late_claim_arrives_after_the_lease(story: Story) -> None:
    """A claim hangs in the network until the lease of its node has ended."""
    story.a.end_run(X, Outcome.FAILED)
    story.a.flush("late")
    story.outlast(story.a)
    story.arrive()


def a_daemon_starts_twice_under_one_token(story: Story) -> None:
    """x crashes and starts again: what it wrote to before must be able to tell the two runs apart."""
    story.a.end_run(X, Outcome.FAILED)
    story.a.flush()
    must(X in story.a.running, "x was not started again")


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
    story.a.end_run(X, Outcome.FAILED)
    story.a.flush()
    must(X in story.a.running, "x was not started again")
    story.move(story.a, story.b, B)


def a_daemon_that_did_not_run_outlives_a_loss(story: Story) -> None:
    """y has run and stopped; Redis forgets that too. When y is wanted again, its token still grows."""
    story.want(Y)
    story.monitor.assign(Y, B)
    story.b.look()
    for _ in range(2):
        story.b.end_run(Y, Outcome.FAILED)
        story.b.bury_ended()
        story.b.look()
    must(Y in story.b.running, "y does not run")
    story.monitor.recall(Y)
    story.b.look()
    story.b.flush()
    story.world.lose_data()
    for _ in range(4):
        story.time_passes()
    story.want(Y)
    story.monitor.assign(Y, B)
    story.b.look()
    must(Y in story.b.running, "y does not run again")


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


def a_daemon_is_replaced_as_it_finishes(story: Story) -> None:
    """y returns for good just when a user wants it with other arguments: that is another daemon, and it is wanted."""
    story.want(Y)
    story.monitor.assign(Y, A)
    story.a.look()
    must(Y in story.a.running, "y does not run")
    items = [(Y, LAUNCHER_OF[Y], "[[1], {}]")]
    story.world.ask(specs.record(story.world.keys, items, mode="replace"))
    story.a.end_run(Y, Outcome.FINISHED)
    story.a.bury_ended()
    story.a.flush()
    must(Y not in story.a.running, "y did not finish")
    must(story.world.contents().specs[Y]["desired"] == "running", "the new daemon was stopped with the old one")


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


def a_monitor_without_the_lease_resigns(story: Story) -> None:
    """A deposed monitor gives back a lease that is another's by now."""
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


def a_process_outlives_the_report_of_its_end(story: Story) -> None:
    """y reports its end while its process still holds what it used: no other node may start y before that is dead."""
    story.want(Y)
    story.monitor.assign(Y, A)
    story.a.look()
    story.monitor.recall(Y)
    story.a.read_assignments()
    story.a.report_stops()
    story.a.flush()
    story.monitor.assign(Y, B)
    story.b.look()
    story.holds()
    story.a.bury_ended()
    story.a.flush()
    story.monitor.assign(Y, B)
    story.b.look()
    must(Y in story.b.running, "y does not run on b")


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
    a_claim_meets_an_unconfirmed_server,
    a_process_outlives_the_report_of_its_end,
)
