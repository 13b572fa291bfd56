"""The texts by which a failed run and a dead process are reported."""

import pytest

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.forkserver.spawner import how_it_ended
from celery_daemons.host.base import end_of_run
from celery_daemons.host.current_run import Run


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
