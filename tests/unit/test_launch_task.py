"""The task of a launcher: what it returns, and how it fails."""

import pytest

from celery_daemons import SpawnTimeout
from celery_daemons.client.launch_task import launch_task


def test_the_task_fails_with_the_reason_if_the_daemon_does_not_run_in_time() -> None:
    """It used to return None, which the next task of a chain took for an address."""

    def spawn(name: str, launcher: str, **given: object) -> None:
        assert (name, launcher, given["wait"]) == ("feed.1", "feed", 10.0)
        raise SpawnTimeout("daemon feed.1 does not run after 10.0 s: no node is up")

    with pytest.raises(SpawnTimeout, match="no node is up"):
        launch_task(spawn, "feed", runs=lambda: True)("feed.1")


def test_the_task_does_not_wait_where_no_daemons_run() -> None:
    def spawn(name: str, launcher: str, **given: object) -> None:
        assert given["wait"] is None

    assert launch_task(spawn, "feed", runs=lambda: False)("feed.1") is None
