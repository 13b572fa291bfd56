"""The supervisor of a node that cannot start processes gives back what waits for one, and keeps what runs."""

import pytest

from celery_daemons.domain.names import LauncherName
from celery_daemons.domain.states import Outcome
from celery_daemons.node.supervision.commands import KillHost, OpenHost, SendReleases, StartOn
from tests.unit.supervisor_harness import LAUNCHERS, SupervisorHarness, X, Y

WHY = "no process can be forked: [Errno 24] Too many open files"


@pytest.fixture
def harness() -> SupervisorHarness:
    return SupervisorHarness()


def test_a_daemon_that_waits_for_a_process_is_given_back_with_the_reason(harness: SupervisorHarness) -> None:
    """Attacks invariant 2: with a healthy node beside, the daemon must not wait here forever."""
    # Given a daemon whose process has not been forked
    harness.assigned(1)
    harness.granted(1, 1, "alone")
    host = harness.of(OpenHost)[-1].host

    # When the node cannot start processes
    harness.do(harness.supervisor.cannot_start(WHY))

    # Then the daemon is released, and its process is not forked after all
    assert harness.releases == [(1, Outcome.REFUSED)]
    assert harness.of(SendReleases)[-1].items[0].error == WHY
    assert [command.host for command in harness.of(KillHost)] == [host]
    assert harness.supervisor.count == 0


def test_a_process_that_becomes_ready_after_all_does_not_start_what_was_given_back(
    harness: SupervisorHarness,
) -> None:
    """Attacks invariant 1: another node may run the daemon by then."""
    harness.assigned(1)
    harness.granted(1, 1, "alone")
    host = harness.of(OpenHost)[-1].host
    harness.do(harness.supervisor.cannot_start(WHY))

    harness.do(harness.supervisor.host_ready(host, 300, now=0.0))

    assert harness.of(StartOn) == []


def test_what_runs_keeps_running_on_a_node_that_cannot_start_processes(harness: SupervisorHarness) -> None:
    harness.runs(1)

    harness.do(harness.supervisor.cannot_start(WHY))

    assert harness.releases == []
    assert harness.supervisor.count == 1


def test_a_daemon_that_a_living_host_can_start_is_started(harness: SupervisorHarness) -> None:
    harness.do(harness.supervisor.cannot_start(WHY))

    harness.assigned(1, X)
    harness.granted(1, 1, "tail", X)
    harness.assigned(2, Y)
    harness.granted(2, 2, "alone", Y)

    assert [item.name for start in harness.of(StartOn) for item in start.items] == [X]
    assert harness.releases == [(2, Outcome.REFUSED)]


def test_a_trial_host_shows_that_processes_start_again_and_takes_no_daemon(harness: SupervisorHarness) -> None:
    # Given
    harness.do(harness.supervisor.cannot_start(WHY))

    # When two attempts are due before the first has an answer
    harness.do(harness.supervisor.probe(now=1.0))
    harness.do(harness.supervisor.probe(now=3.0))

    # Then one host is opened, and killed once it is ready
    trial = harness.of(OpenHost)[-1].host
    assert trial != harness.host
    assert len(harness.of(OpenHost)) == 2
    harness.do(harness.supervisor.host_ready(trial, 300, now=4.0))
    assert [command.host for command in harness.of(KillHost)] == [trial]
    harness.dies(trial)

    # When the node can start processes again, then it does
    harness.do(harness.supervisor.can_start(now=5.0))
    harness.runs(7, "alone")
    assert harness.releases == []


def test_no_host_is_opened_while_none_can_be_started_except_on_trial(harness: SupervisorHarness) -> None:
    harness.do(harness.supervisor.cannot_start(WHY))
    harness.dies(harness.host)

    harness.do(harness.supervisor.open_hosts(now=1.0))

    assert len(harness.of(OpenHost)) == 1


def test_a_process_that_died_before_it_was_ready_is_not_held_against_its_daemon(harness: SupervisorHarness) -> None:
    # Given a daemon that is allowed one failure more than any of its processes die before they are ready
    harness.assigned(1)
    for _ in range(LAUNCHERS[LauncherName("alone")].max_restarts + 2):
        harness.granted(harness.claims[-1], 1, "alone")
        harness.dies(harness.of(OpenHost)[-1].host)
        harness.after(60.0)

    assert harness.releases == []
