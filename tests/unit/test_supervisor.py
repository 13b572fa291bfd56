"""The supervisor decides what to do when messages, answers and ends cross: events in, commands out."""

import pytest

from celery_daemons.domain.names import LauncherName, Token
from celery_daemons.domain.runs import Assignment, ClaimResult, End, Release
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.supervision.commands import (
    KillHost,
    OpenHost,
    ProbeHost,
    Resync,
    SendReleases,
    StartOn,
    StopOn,
    WithdrawClaim,
)
from tests.unit.supervisor_harness import SupervisorHarness, X, Y


@pytest.fixture
def harness() -> SupervisorHarness:
    return SupervisorHarness()


def test_an_assigned_daemon_is_claimed_started_and_reported(harness: SupervisorHarness) -> None:
    harness.runs(7)

    assert harness.claims == [7]
    (start,) = harness.of(StartOn)
    assert (start.host, [(item.name, item.token) for item in start.items]) == (harness.host, [(X, 7)])
    assert [(report.status, report.pid) for report in harness.reports] == [(DaemonStatus.RUNNING, 100)]


def test_starts_of_one_answer_are_one_command_per_host(harness: SupervisorHarness) -> None:
    harness.assigned(1, X)
    harness.assigned(2, Y)
    items = [Assignment(X, Token(1)), Assignment(Y, Token(2))]
    results = [ClaimResult(item.token, LauncherName("tail"), "[[],{}]", "1", 0) for item in items]

    harness.do(harness.supervisor.claimed(items, results, now=0.0))

    assert [len(start.items) for start in harness.of(StartOn)] == [2]


def test_a_daemon_is_released_only_when_its_process_is_dead(harness: SupervisorHarness) -> None:
    """The invariant of the supervisor: a release lets another node start the daemon."""
    # Given a daemon in a process of its own that is recalled
    host = harness.runs(1, "alone")
    harness.recalled(1)
    assert [command.host for command in harness.of(StopOn)] == [host]

    # When it reports its end, then nothing is released: the process may still hold what it used
    harness.ends(1, Outcome.STOPPED, host)
    assert harness.releases == []

    # When the process is dead, then it is
    harness.dies(host)
    assert harness.releases == [(1, Outcome.STOPPED)]


def test_a_daemon_that_ignores_a_stop_is_killed_before_it_is_released(harness: SupervisorHarness) -> None:
    host = harness.runs(1, "alone")
    harness.recalled(1)

    harness.after(2.0)
    assert [command.host for command in harness.of(KillHost)] == [host]
    assert harness.releases == []

    harness.dies(host)
    assert harness.releases == [(1, Outcome.STOPPED)]


def test_a_shared_host_is_replaced_for_a_daemon_that_ignores_a_stop(harness: SupervisorHarness) -> None:
    # Given two daemons on a shared host, one of which is recalled and does not stop
    harness.runs(1)
    harness.runs(2, name=Y)
    harness.recalled(1)

    # When its grace period is over, then its neighbour moves to a new host
    harness.after(2.0)
    assert [command.isolated for command in harness.of(OpenHost)] == [False, False]
    assert [command.host for command in harness.of(ProbeHost)] == [harness.host]
    assert [command.names for command in harness.of(StopOn)] == [[X], [Y]]
    assert harness.of(KillHost) == []

    # And once the neighbour has left, the old host is killed
    harness.do(harness.supervisor.ended(harness.host, [End(Y, Token(2), Outcome.STOPPED)], now=harness.now))
    assert [command.host for command in harness.of(KillHost)] == [harness.host]
    assert harness.releases == []


def test_a_host_that_does_not_answer_a_probe_is_killed(harness: SupervisorHarness) -> None:
    harness.runs(1)
    harness.runs(2, name=Y)
    harness.recalled(1)
    harness.after(2.0)

    harness.after(0.5)

    assert [command.host for command in harness.of(KillHost)] == [harness.host]


def test_a_claim_whose_answer_was_lost_makes_the_node_read_its_assignments(harness: SupervisorHarness) -> None:
    """The second claim of a token is refused if the first was granted a newer one: the book counts on this node."""
    # Given a daemon that ended and is claimed again
    harness.runs(1)
    harness.ends(1, Outcome.FAILED)
    harness.after(1.0)

    # When Redis says that a newer token exists
    harness.refused(1, "superseded")

    # Then the node reads what it holds, and claims under the token of the book
    assert harness.of(Resync)
    harness.reads(2, DaemonStatus.STARTING)
    assert harness.claims == [1, 1, 2]


@pytest.mark.parametrize("claiming", [False, True], ids=["waiting", "claiming"])
def test_a_recall_under_an_unknown_newer_token_releases_that_token(claiming: bool, harness: SupervisorHarness) -> None:
    """Otherwise Redis refuses the release, and the daemon is stopping forever."""
    harness.runs(1)
    harness.ends(1, Outcome.FAILED)
    if claiming:
        harness.after(1.0)

    harness.recalled(2)
    for _ in harness.of(WithdrawClaim):
        harness.do(harness.supervisor.withdrawn(X, now=harness.now))

    assert harness.releases == [(2, Outcome.STOPPED)]


def test_a_recall_waits_for_a_claim_in_flight(harness: SupervisorHarness) -> None:
    # Given a claim that cannot be withdrawn
    harness.assigned(1)
    harness.recalled(1)
    assert harness.of(WithdrawClaim)
    assert harness.releases == []

    # When it is granted after all, then the daemon is given back without a start
    harness.granted(1, 1)
    assert harness.releases == [(1, Outcome.STOPPED)]
    assert harness.of(StartOn) == []


@pytest.mark.parametrize("by_message", [True, False], ids=["message", "book"])
def test_a_daemon_that_comes_back_while_it_stops_starts_again(by_message: bool, harness: SupervisorHarness) -> None:
    """After a fail-over, the book has no node for it, and names this one again before its run has ended."""
    harness.runs(1)
    harness.reads()
    if by_message:
        harness.assigned(2)
    else:
        harness.reads(2)

    harness.ends(1, Outcome.STOPPED)

    assert (harness.claims, harness.releases) == ([1, 2], [])


@pytest.mark.parametrize("recalled", ["before", "after"])
def test_a_temporary_daemon_that_ends_as_it_is_recalled_is_finished(recalled: str, harness: SupervisorHarness) -> None:
    """Its end and the recall cross on the way to the host or on the way to Redis: no other node may start it."""
    harness.runs(1, "once")
    if recalled == "before":
        harness.recalled(1)
    harness.ends(1, Outcome.FINISHED)
    if recalled == "after":
        harness.recalled(1)

    assert harness.releases[0] == (1, Outcome.FINISHED)


def test_a_temporary_daemon_that_is_killed_as_it_is_recalled_may_start_elsewhere(harness: SupervisorHarness) -> None:
    """Its node stopped it; it did not end by itself."""
    harness.runs(1, "once")
    harness.recalled(1)

    harness.dies(harness.host)

    assert harness.releases == [(1, Outcome.STOPPED)]


def test_a_grace_period_that_ends_after_the_lease_opens_no_host(harness: SupervisorHarness) -> None:
    harness.runs(1)
    harness.recalled(1)
    harness.supervisor.forget_all()
    harness.dies(harness.host)

    harness.after(2.0)

    assert len(harness.of(OpenHost)) == 1


def test_a_daemon_taken_back_before_its_host_is_ready_is_released_at_once() -> None:
    # Given a daemon that waits for a host
    harness = SupervisorHarness(shared_hosts=1)
    harness.dies(harness.host)
    harness.assigned(1)
    harness.granted(1, 1)
    host = harness.of(OpenHost)[-1].host
    assert harness.of(StartOn) == []

    # When it is recalled, then it is given back, and never starts there
    harness.recalled(1)
    assert harness.releases == [(1, Outcome.STOPPED)]
    harness.do(harness.supervisor.host_ready(host, 300, now=0.0))
    assert harness.of(StartOn) == []


def test_a_drain_starts_nothing(harness: SupervisorHarness) -> None:
    harness.runs(1)
    harness.assigned(2, Y)
    harness.do(harness.supervisor.drain(now=0.0))

    harness.granted(2, 2, name=Y)
    harness.ends(1, Outcome.STOPPED)

    assert sorted(harness.releases) == [(1, Outcome.STOPPED), (2, Outcome.STOPPED)]
    assert harness.supervisor.count == 0


def test_a_daemon_assigned_while_the_book_is_read_is_not_dropped(harness: SupervisorHarness) -> None:
    before = harness.supervisor.serial
    harness.runs(1)

    harness.do(harness.supervisor.synchronised({}, serial=before, now=0.0))

    assert harness.of(StopOn) == []
    assert harness.supervisor.count == 1


def test_a_daemon_that_the_book_no_longer_assigns_is_stopped_and_not_released(harness: SupervisorHarness) -> None:
    harness.runs(1)
    harness.reads()
    assert [command.names for command in harness.of(StopOn)] == [[X]]

    harness.ends(1, Outcome.STOPPED)

    assert harness.releases == []
    assert harness.supervisor.count == 0


def test_the_process_of_a_hung_isolated_daemon_is_killed(harness: SupervisorHarness) -> None:
    host = harness.runs(1, "alone")

    harness.do(harness.supervisor.hung(host, [(X, Token(1))], now=0.0))
    assert [command.host for command in harness.of(KillHost)] == [host]
    harness.dies(host)
    harness.after(60.0)

    assert harness.claims == [1, 1]


def test_an_oversized_host_is_replaced_unless_it_is_young(harness: SupervisorHarness) -> None:
    harness.runs(1)
    harness.do(harness.supervisor.memory_measured({harness.host: 2048}, 1024, now=5.0))
    assert len(harness.of(OpenHost)) == 1

    harness.do(harness.supervisor.memory_measured({harness.host: 2048}, 1024, now=11.0))

    assert len(harness.of(OpenHost)) == 2
    assert [command.names for command in harness.of(StopOn)] == [[X]]


def test_a_release_of_an_unknown_daemon_is_sent_under_the_recalled_token(harness: SupervisorHarness) -> None:
    harness.recalled(9)

    (command,) = harness.of(SendReleases)
    assert command.items == [Release(name=X, token=Token(9), outcome=Outcome.STOPPED, restarts=0)]
