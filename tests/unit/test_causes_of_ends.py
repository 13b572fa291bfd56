"""The texts by which a failed run and a dead process are reported."""

import logging

import pytest

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.states import Outcome
from celery_daemons.forkserver.spawner import how_it_ended
from celery_daemons.host.base import end_of_run
from celery_daemons.host.current_run import Run
from tests.unit.supervisor_harness import SupervisorHarness, X


@pytest.mark.parametrize(
    ("exitcode", "text"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL (by the out-of-memory killer of the system, or by hand)"),
        (-64, "was killed by SIGRTMAX"),
        (-50, "was killed by signal 50"),
        (255, "died with an unknown exit status"),
        (None, "died with an unknown exit status"),
    ],
)
def test_the_end_of_a_process_is_named_by_status_or_signal(exitcode: int | None, text: str) -> None:
    assert how_it_ended(exitcode) == text


def test_the_end_of_a_process_by_its_lease_timer_names_the_causes() -> None:
    assert "held the GIL" in how_it_ended(-14)


def test_the_error_of_an_exception_group_includes_its_first_exception() -> None:
    # Given
    error = ExceptionGroup("unhandled errors in a TaskGroup", [ExceptionGroup("inner", [ValueError("the cause")])])

    # When
    end = end_of_run(Run(DaemonName("x"), LauncherName("tail"), Token(1)), stopping=False, error=error)

    # Then
    assert end.error == ("ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception): ValueError: the cause")


def test_each_crash_is_one_error_in_the_log_and_its_text_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """The host logs the error with its traceback, and the agent logs what follows."""
    # Given a daemon that always fails
    caplog.set_level(logging.INFO)
    harness = SupervisorHarness()
    crashes = 0
    harness.runs(token=1)

    # When it fails until its node gives it up
    while not harness.releases:
        crashes += 1
        error = ValueError(f"crash number {crashes}")
        end = end_of_run(Run(X, LauncherName("tail"), Token(crashes)), stopping=False, error=error)
        harness.do(harness.supervisor.ended(harness.host, [end], now=harness.now))
        harness.after(2.0)
        if not harness.releases:
            harness.granted(crashes, crashes + 1)
            harness.do(harness.supervisor.started(harness.host, [(X, Token(crashes + 1))], now=harness.now))

    # Then
    assert crashes > 2
    for number in range(1, crashes + 1):
        (told,) = [record for record in caplog.records if f"crash number {number}" in record.getMessage()]
        assert told.exc_info is not None
    assert caplog.messages[-1] == "daemon x: failed; restart limit reached on this node, releasing it to another"


def test_each_start_and_each_stop_of_a_daemon_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    harness = SupervisorHarness()
    harness.now = 5.0

    harness.runs(token=1)
    harness.recalled(token=1)
    harness.ends(1, Outcome.STOPPED)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "daemon x: started in process 100 under token 1"),
        ("INFO", "daemon x: stopped: recalled"),
    ]
