"""Spawning, stopping, starting and restarting daemons from a client, while one node runs them."""

from collections.abc import Callable

import pytest

from celery_daemons.domain.states import DaemonStatus
from celery_daemons.errors import DaemonsError, InvalidName, SpawnTimeout, SpecConflict
from celery_daemons.wire.arguments import encode_arguments
from tests.conftest import NewProject, NewWorker
from tests.integration.conftest import QUICK, SOON, Client
from tests.support.projects import PRELUDE, Project
from tests.support.recorder import RECORDED_LAUNCHERS, Recorder
from tests.support.waiting import wait_until

SOURCE = (
    PRELUDE
    + RECORDED_LAUNCHERS
    + """

@watch.recovery_scanner
def one():
    yield watch.spec("listed")
"""
)
#: The letters, digits and signs that a name may have.
ODD_NAME = "A/z.0_9-:@+" + "x" * 189


def call(number: int) -> str:
    """The encoded call of a witnessed launcher."""
    return encode_arguments("test", (), {"number": number})


@pytest.fixture
def project(new_project: NewProject, new_worker: NewWorker) -> Project:
    project = new_project(SOURCE, settings=QUICK)
    new_worker(project, "w1", concurrency=1, wait=False)
    return project


@pytest.fixture
def client(project: Project, client_of: Callable[[Project], Client]) -> Client:
    client = client_of(project)
    client.wait_up("w1@test")
    return client


def test_a_daemon_is_spawned_stopped_started_and_restarted(client: Client, project: Project) -> None:
    # Given
    client.want("one", "watch", call(1))
    first = client.wait_running("one", within=SOON)

    # When it is stopped
    client.stop("one", wait=SOON)

    # Then it is on no node, and known as stopped
    record = client.record("one")
    assert record is not None
    assert (record.status, record.node, record.desired) == (DaemonStatus.STOPPED, None, "stopped")

    # When it is started again
    client.start("one")

    # Then it runs under a newer token
    second = client.wait_running("one", within=SOON)
    assert second.token > first.token

    # When it is restarted
    third = client.restart("one", wait=SOON)

    # Then the daemon has been restarted, and never ran twice at once
    assert third is not None
    assert third.token > second.token
    Recorder(project.folder).check()


def test_spawning_the_same_spec_again_changes_nothing_and_another_spec_is_a_conflict(client: Client) -> None:
    # Given
    client.want("one", "watch", call(1))
    first = client.wait_running("one", within=SOON)

    # When / Then the same again
    client.want("one", "watch", call(1))
    assert client.wait_running("one", within=SOON) == first

    # When / Then another under the same name
    with pytest.raises(SpecConflict, match=r"one.*taken.*watch.*replace=True") as raised:
        client.want("one", "watch", call(2))
    assert "number" not in str(raised.value), "arguments may be secrets, and errors of tasks are logged"
    assert client.wait_running("one", within=SOON) == first

    # When / Then it is replaced
    client.want("one", "alone", call(2), replace=True)
    replaced = wait_until(
        lambda: (now := client.running("one")) and now["one"].launcher == "alone" and now["one"],
        within=SOON,
        because="the new spec runs",
    )
    assert replaced.token > first.token
    assert replaced.pid != first.pid


def test_a_stopped_daemon_stays_stopped_through_scans_and_worker_restarts(
    client: Client, project: Project, new_worker: NewWorker
) -> None:
    """Attacks invariant 2: the stop is desired state in Redis, not a message to the workers that happen to run."""
    # Given
    client.wait_running("listed", within=SOON)
    client.stop("listed", wait=SOON)

    # When it is listed again
    before = client.status().scanners["watch"].at_ms
    client.rescan("watch")
    wait_until(lambda: client.status().scanners["watch"].at_ms > before, within=SOON, because="the scanner ran")

    # Then
    assert client.locate("listed") is None

    # When another worker joins, scans perhaps, and plans
    new_worker(project, "w2", concurrency=1, wait=False)
    client.wait_up("w1@test", "w2@test")
    client.want("other", "watch", call(1))
    client.wait_running("other", within=SOON)

    # Then
    assert client.locate("listed") is None
    record = client.record("listed")
    assert record is not None
    assert record.status is DaemonStatus.STOPPED


def test_a_forgotten_daemon_stops_and_leaves_nothing(client: Client) -> None:
    # Given
    client.want("one", "watch", call(1))
    client.wait_running("one", within=SOON)

    # When
    assert client.forget("one")

    # Then
    wait_until(lambda: client.locate("one") is None, within=SOON, because="it is recalled")
    keys = client.store.keys
    wait_until(
        lambda: not client.store.read(lambda redis: redis.hexists(keys.book, "one")), within=SOON, because="no entry"
    )
    assert client.record("one") is None
    assert not client.forget("one")


def test_daemons_with_every_allowed_character_in_their_names_run(client: Client) -> None:
    client.want(ODD_NAME, "watch", call(1))
    assert client.wait_running(ODD_NAME, within=SOON).name == ODD_NAME


def test_a_drained_node_keeps_its_daemons_until_another_can_take_them_and_gets_them_back(
    client: Client, project: Project, new_worker: NewWorker
) -> None:
    # Given a drained node that is alone
    client.want("one", "watch", call(1))
    first = client.wait_running("one", within=SOON)
    client.drain("w1@test")

    # Then what runs goes on, since nobody can take it, and what is new finds no node
    client.want("two", "watch", call(1))
    with pytest.raises(SpawnTimeout, match=r"unplaceable.*draining"):
        client.wait_running("two", within=1.0)
    assert client.locate("one") == first

    # When another joins
    new_worker(project, "w2", concurrency=1, wait=False)
    client.wait_up("w2@test")

    # Then it takes both
    wait_until(lambda: client.moved(["one", "two"], off="w1@test"), within=SOON, because="w2 fits")
    Recorder(project.folder).check()

    # When the first is uncordoned
    client.uncordon("w1@test")

    # Then it takes daemons again
    client.wait_up("w1@test", "w2@test")


def test_the_error_for_an_unknown_daemon_or_node_names_it(client: Client) -> None:
    for steer in (client.stop, client.start, client.restart):
        with pytest.raises(DaemonsError, match="no daemon nobody is known"):
            steer("nobody")
    with pytest.raises(DaemonsError, match=r"no node w9@test is registered \(registered: w1@test\)"):
        client.drain("w9@test")
    with pytest.raises(InvalidName, match="'two words'"):
        client.locate("two words")


def test_a_spawn_that_times_out_reports_why_the_daemon_cannot_run(
    new_project: NewProject, client_of: Callable[[Project], Client]
) -> None:
    # Given a cluster without a worker
    client = client_of(new_project(SOURCE, settings=QUICK))
    client.want("one", "watch", call(1))

    # When / Then
    with pytest.raises(SpawnTimeout, match="no node is up; start a worker"):
        client.wait_running("one", within=0.1)
