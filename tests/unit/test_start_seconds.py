"""A daemon whose launcher sets ``start_seconds`` counts as running once it has lasted, or says that it is ready."""

import random
import threading

import pytest

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.runs import End
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.errors import ConfigurationError
from celery_daemons.host.context import BlockingDaemonContext
from celery_daemons.node.supervision.commands import StopOn
from celery_daemons.node.supervision.supervisor import Supervisor
from tests.unit.supervisor_harness import SupervisorHarness, X

RUNNING = DaemonStatus.RUNNING


@pytest.fixture
def harness() -> SupervisorHarness:
    """A daemon whose code has just been called, and which has to last for five seconds."""
    harness = SupervisorHarness()
    launchers = {LauncherName("tail"): LauncherOptions(start_seconds=5, backoff=1, backoff_max=1, stop_grace=2)}
    harness.supervisor = Supervisor(launchers, shared_hosts=1, rng=random.Random(1))
    harness.do(harness.supervisor.open_hosts(now=0.0))
    harness.do(harness.supervisor.host_ready(harness.host, 100, now=0.0))
    harness.runs(1)
    return harness


def test_a_daemon_runs_once_it_has_lasted(harness: SupervisorHarness) -> None:
    harness.after(4.9)
    assert harness.reports == []

    harness.after(0.2)
    assert [report.status for report in harness.reports] == [RUNNING]


def test_a_daemon_that_says_that_it_is_ready_runs_at_once_and_is_reported_once(harness: SupervisorHarness) -> None:
    harness.do(harness.supervisor.proven(harness.host, [(X, Token(1))], now=1.0))
    assert [report.status for report in harness.reports] == [RUNNING]

    harness.after(10.0)
    assert len(harness.reports) == 1


def test_a_daemon_that_dies_before_is_never_reported_as_running(harness: SupervisorHarness) -> None:
    """`spawn --wait` said `running` of a daemon that died at once."""
    harness.now = 1.0
    harness.do(harness.supervisor.ended(harness.host, [End(X, Token(1), Outcome.FAILED, "boom")], now=1.0))

    harness.after(60.0)

    assert RUNNING not in [report.status for report in harness.reports]


def test_the_time_of_an_earlier_run_does_not_count_for_the_next(harness: SupervisorHarness) -> None:
    # Given a run that ended after four seconds, and another under a new token
    harness.now = 4.0
    harness.do(harness.supervisor.ended(harness.host, [End(X, Token(1), Outcome.FAILED, "boom")], now=4.0))
    harness.after(1.0)
    harness.granted(1, 2)
    harness.do(harness.supervisor.started(harness.host, [(X, Token(2))], now=harness.now))

    # When five seconds since the first start are over, then the second has not lasted yet
    harness.after(1.0)
    assert RUNNING not in [report.status for report in harness.reports]


def test_a_daemon_that_is_recalled_before_is_stopped_and_not_reported(harness: SupervisorHarness) -> None:
    harness.recalled(1)
    harness.ends(1, Outcome.STOPPED)
    harness.after(10.0)

    assert len(harness.of(StopOn)) == 1
    assert harness.releases == [(1, Outcome.STOPPED)]
    assert harness.reports == []


def test_a_daemon_that_hangs_before_is_ended(harness: SupervisorHarness) -> None:
    harness.do(harness.supervisor.hung(harness.host, [(X, Token(1))], now=1.0))

    assert len(harness.of(StopOn)) == 1


def test_a_context_reports_its_readiness_once_whichever_comes_first() -> None:
    """A thread may call ready() before its host has prepared the report."""
    for before in (True, False):
        reports: list[str] = []
        ctx = BlockingDaemonContext(DaemonName("x"), LauncherName("tail"), "n", Token(1), threading.Event())
        if before:
            ctx.ready()
        ctx.when_ready(lambda: reports.append("ready"))  # noqa: B023 - called in this round
        ctx.ready()
        ctx.ready()
        assert reports == ["ready"]


@pytest.mark.parametrize("value", [-1, float("nan"), "soon", True])
def test_a_wrong_number_of_seconds_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"launcher tail: start_seconds=.* must be a number of 0 or more"):
        LauncherOptions(start_seconds=value).check("tail")  # type: ignore[arg-type]
