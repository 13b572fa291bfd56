"""A shared host in which a daemon keeps failing is replaced once nothing else runs there."""

import pytest

from celery_daemons.domain.runs import End
from celery_daemons.domain.states import Outcome
from celery_daemons.node.supervision.commands import KillHost, OpenHost
from tests.unit.supervisor_harness import SupervisorHarness, X, Y

#: Longer than the restart period of the launcher.
OLD = 100.0


@pytest.fixture
def harness() -> SupervisorHarness:
    """A node with one shared host, which is older than the restart period."""
    harness = SupervisorHarness()
    harness.after(OLD)
    return harness


def fail_until_released(harness: SupervisorHarness) -> None:
    """Let the daemon fail until the node gives it up."""
    token = 1
    harness.runs(token)
    while not harness.releases:
        harness.ends(token, Outcome.FAILED)
        harness.after(1.0)
        if not harness.releases:
            harness.granted(token, token + 1)
            token += 1
            harness.do(harness.supervisor.started(harness.host, [(X, token)], now=harness.now))
    assert harness.releases[-1][1] is Outcome.EXHAUSTED


def test_an_empty_host_in_which_a_daemon_reached_its_restart_limit_is_replaced(harness: SupervisorHarness) -> None:
    """A dead connection that belongs to a thread of the process is met again by every restart."""
    fail_until_released(harness)

    assert harness.of(KillHost) == [KillHost(harness.host)]
    assert [opened.isolated for opened in harness.of(OpenHost)] == [False, False]


def test_a_host_in_which_another_daemon_runs_is_kept(harness: SupervisorHarness) -> None:
    """Harmless: nothing that works is restarted for the sake of what does not."""
    harness.runs(100, name=Y)

    fail_until_released(harness)

    assert harness.of(KillHost) == []


def test_a_young_host_is_kept() -> None:
    """Daemons that always fail must not make the node fork without end."""
    harness = SupervisorHarness()

    fail_until_released(harness)

    assert harness.of(KillHost) == []


def test_a_daemon_that_no_restart_can_help_kills_no_host(harness: SupervisorHarness) -> None:
    harness.runs(1)

    end = End(X, harness.claims[-1], Outcome.FAILED, "returned a generator", hopeless=True)
    harness.do(harness.supervisor.ended(harness.host, [end], now=harness.now))

    assert harness.of(KillHost) == []
