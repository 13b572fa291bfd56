"""A restart of PostgreSQL under daemons and scanners that use the ORM of Django."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import NewWorker
from tests.integration.conftest import Client
from tests.support.django_projects import ROUNDS, NewDjango, events
from tests.support.postgresql import PostgreSQL
from tests.support.projects import Project
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

#: Seconds within which everything here happens, even on a busy build machine.
SOON = 60.0

DAEMONS = ("process", "thread", "coroutine", "beats", "alone")
SCANNERS = {"process": "plain", "thread": "awaited", "coroutine": "generated"}


@pytest.mark.parametrize(
    "options",
    [{}, {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}],
    ids=["closed each round", "kept and checked"],
)
def test_every_daemon_and_scanner_works_at_its_next_round_after_a_restart_of_postgresql(
    django_project: NewDjango,
    new_worker: NewWorker,
    client_of: Callable[[Project], Client],
    postgresql: PostgreSQL,
    options: dict[str, Any],
) -> None:
    """Attacks invariant 2: a broken connection would be used again at each round, and after each restart."""
    # Given
    project = django_project(ROUNDS, **options)
    new_worker(project)
    client = client_of(project)

    def play(number: int) -> None:
        (project.folder / "rounds").write_text(str(number))
        for name in (*DAEMONS, "restarts"):
            wait_until(
                lambda name=name: any(one["round"] == number for one in events(project, name, "works")),  # type: ignore[misc]
                within=SOON,
                because=f"{name} plays round {number}",
            )

    play(1)
    scans = {name: len(events(project, name)) for name in SCANNERS.values()}

    # When
    postgresql.restart()

    # Then at the first round after it
    play(2)
    for name in DAEMONS:
        assert events(project, name, "fails") == []
        assert [one["round"] for one in events(project, name)] == [1, 2]
        assert len({one["pid"] for one in events(project, name)}) == 1, "it was not restarted for that"

    # When
    client.rescan(None)

    # Then
    for name, before in scans.items():
        wait_until(
            lambda name=name, before=before: len(events(project, name)) > before,  # type: ignore[misc]
            within=SOON,
            because=f"{name} is asked to scan again",
        )
        assert {one["shops"] for one in events(project, name)} == {2}
    wait_until(
        lambda: all(client.lookups.status().scanners[name].error is None for name in SCANNERS),
        within=SOON,
        because="the scans are reported",
    )
