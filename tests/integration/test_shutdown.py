"""Every way to end a worker releases its daemons within the drain timeout, whatever the daemons do."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: Seconds; a daemon that will not stop has nine tenths of it.
DRAIN = 4.0

#: Seconds that Celery gives tasks in a soft shutdown, if there are any.
SOFT = 2.0

SOURCE = (
    EVENT_LOG
    + f"""
app.conf.worker_soft_shutdown_timeout = {SOFT}
"""
    + """
@daemons.launcher("polite")
async def polite(ctx):
    note(ctx.name, "begins", node=ctx.node, at=time.monotonic())
    try:
        await asyncio.sleep(1000)
    finally:
        note(ctx.name, "ends", node=ctx.node, at=time.monotonic())

@daemons.launcher("stubborn", stop_grace=60)
async def stubborn(ctx):
    note(ctx.name, "begins", node=ctx.node, at=time.monotonic())
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass

@daemons.launcher("only", labels=["only"])
async def only(ctx):
    await asyncio.sleep(1000)

@app.task(name="proj.slow")
def slow(seconds):
    note("slow", "begins")
    time.sleep(seconds)
    note("slow", "ends")
"""
)


@pytest.fixture
def cluster(valkey: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[IntegrationCluster]:
    """Two nodes; the second one carries a label."""
    with IntegrationCluster(
        tmp_path, valkey, SOURCE, settings={"drain_timeout": DRAIN, "rebalance": "off"}, pool="prefork"
    ) as cluster:
        cluster.worker("w1")
        cluster.worker("w2", options=["--daemon-labels", "only"])
        request.node.stash[RUNNING] = list(cluster.workers.values())
        yield cluster


def on(cluster: IntegrationCluster, node: str, names: list[str]) -> dict[str, int]:
    """Spawn daemons while only this node takes any; answers their tokens."""
    other = next(one.name for one in cluster.daemons.nodes() if one.name != node)
    cluster.daemons.drain(other)
    found = {name: cluster.spawn(name, name.partition("-")[0]) for name in names}
    cluster.daemons.uncordon(other)
    assert {address.node for address in found.values()} == {node}
    return {name: address.token for name, address in found.items()}


@pytest.mark.timing
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stubborn_daemon_delays_the_shutdown_by_the_drain_timeout_at_most_and_others_move_at_once(
    cluster: IntegrationCluster, number: signal.Signals
) -> None:
    """The drain has its own deadline, independent of the tasks and of what daemons do."""
    # Given
    tokens = on(cluster, "w1@test", ["polite-1", "polite-2", "stubborn-1"])

    # When
    began = time.monotonic()
    cluster.workers["w1"].signal(number)
    wait_until(lambda: not cluster.workers["w1"].running, within=SOON, because="a signal asked the worker to end")
    ended = time.monotonic() - began

    # Then
    assert ended < DRAIN + 1.5
    # After the other signals, the status of Celery itself is that of a failure.
    assert number is not signal.SIGTERM or cluster.workers["w1"].stop() == 0
    for name in ("polite-1", "polite-2"):
        first, begins = cluster.events(name, "ends")[-1], cluster.wait_event(name, "begins", times=2)
        assert (first["node"], begins["node"]) == ("w1@test", "w2@test")
        assert begins["at"] - first["at"] < 1.0
        assert first["at"] - began < 2.0
    wait_until(lambda: cluster.running("stubborn-1"), within=SOON, because="it was killed and released")
    assert all(cluster.daemons.locate(name).token > token for name, token in tokens.items())  # type: ignore[union-attr]
    assert "lost" not in [one.event for one in cluster.daemons.events(last=500)]


def test_daemons_move_during_a_warm_shutdown_before_the_tasks_of_the_worker_end(cluster: IntegrationCluster) -> None:
    # Given a worker that has a task for a while yet
    on(cluster, "w1@test", ["polite-1"])
    cluster.module.slow.apply_async((3.0,), queue=cluster.daemons.locate("polite-1").queue)  # type: ignore[union-attr]
    cluster.wait_event("slow", "begins")

    # When
    cluster.workers["w1"].terminate()

    # Then its daemons run elsewhere before the task has ended
    assert cluster.wait_event("polite-1", "begins", times=2)["node"] == "w2@test"
    assert cluster.events("slow", "ends") == []
    cluster.wait_event("slow", "ends")
    assert cluster.workers["w1"].stop() == 0


@pytest.mark.timing
def test_a_soft_shutdown_releases_the_daemons_when_its_time_is_up(cluster: IntegrationCluster) -> None:
    """Celery first gives tasks their time, and sends no signal about that."""
    # Given a worker with a task that takes longer than the soft shutdown
    on(cluster, "w1@test", ["polite-1", "stubborn-1"])
    cluster.module.slow.apply_async((30.0,), queue=cluster.daemons.locate("polite-1").queue)  # type: ignore[union-attr]
    cluster.wait_event("slow", "begins")

    # When
    began = time.monotonic()
    cluster.workers["w1"].signal(signal.SIGQUIT)

    # Then
    assert cluster.wait_event("polite-1", "begins", times=2)["at"] - began < SOFT + 3.0
    wait_until(lambda: not cluster.workers["w1"].running, within=SOON, because="a signal asked the worker to end")
    assert time.monotonic() - began < SOFT + DRAIN + 3.0
    assert "lost" not in [one.event for one in cluster.daemons.events(last=500)]


@pytest.mark.timing
def test_a_shutdown_stops_and_reports_daemons_that_no_other_node_can_take(cluster: IntegrationCluster) -> None:
    # Given
    on(cluster, "w2@test", ["only-1", "polite-1"])

    # When
    began = time.monotonic()
    assert cluster.workers["w2"].stop() == 0

    # Then
    assert time.monotonic() - began < DRAIN
    wait_until(
        lambda: cluster.record("only-1").status == "unplaceable", within=SOON, because="nobody carries its label"
    )
    assert "carries the labels only" in (cluster.record("only-1").error or "")
    wait_until(lambda: cluster.running("polite-1"), within=SOON, because="it moves")

    # And the last node says that there is no other
    assert cluster.workers["w1"].stop() == 0
    assert "no other node takes daemons; the 1 on this node run again once one does" in cluster.workers["w1"].output


def test_the_drain_command_names_daemons_that_cannot_move_and_does_not_wait_for_them(
    cluster: IntegrationCluster,
) -> None:
    """A preStop hook, as `celery daemons drain NODE --wait 30`, ends as soon as it has to."""
    # Given
    on(cluster, "w2@test", ["only-1", "polite-1"])

    # When
    began = time.monotonic()
    done = cluster.project.celery("daemons", "drain", "w2@test", "--wait", "30")

    # Then
    assert time.monotonic() - began < 15
    assert done.returncode == 1
    assert "no other node can take daemon only-1; not moved" in done.stderr
    assert cluster.running("polite-1")["polite-1"].node == "w1@test"
    assert cluster.running("only-1")["only-1"].node == "w2@test"
