"""A daemon that misses its progress deadline is ended, and its restart policy decides what follows."""

import pytest

from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, IntegrationCluster

#: The first run of a daemon makes no progress, in one of several ways; the second run does.
SOURCE = (
    EVENT_LOG
    + """
from celery_daemons import Launcher

def to_hang(ctx, how):
    note(ctx.name, "starts")
    if how == "beat" or os.path.exists(f"{FOLDER}/was-{ctx.name}"):
        return False
    open(f"{FOLDER}/was-{ctx.name}", "w").close()
    return True

async def act_async(ctx, how):
    if to_hang(ctx, how):
        if how == "spin":
            time.sleep(1000)
        await asyncio.sleep(1000)
    while True:
        ctx.beat()
        await asyncio.sleep(0.02)

def act(ctx, how):
    if to_hang(ctx, how):
        time.sleep(1000)
    while not ctx.stopping.is_set():
        ctx.beat()
        ctx.sleep(0.02)

quick = {"backoff": 0.2, "stop_grace": 0.5, "progress_deadline": 0.7}
for isolation, code in (("shared", act_async), ("process", act), ("thread", act)):
    for policy in ("permanent", "temporary"):
        launcher = Launcher(code, isolation=isolation, restart=policy, **quick)
        daemons.register_launcher(f"{policy}-{isolation}", launcher)
"""
)

TOLD = "hung: no progress for 0.7 s"


shared_cluster = module_cluster(SOURCE)


@pytest.mark.parametrize(
    ("place", "how"), [("shared", "hang"), ("shared", "spin"), ("process", "hang"), ("thread", "hang")]
)
def test_a_daemon_without_progress_is_restarted_and_a_daemon_that_beats_runs_on(
    cluster: IntegrationCluster, place: str, how: str
) -> None:
    """A job that silently stops to make progress must not count as running."""
    # Given
    name = f"{how}-{place}"
    steady = cluster.spawn(f"steady-{name}", "permanent-process", "beat")

    # When
    cluster.daemons.spawn(name, f"permanent-{place}", args=[how])

    # Then
    cluster.wait_event(name, "starts", times=2)
    found = cluster.wait_status(name, "running")
    assert (found.error, found.restarts) == (TOLD, 1)
    assert cluster.daemons.locate(steady.name) == steady

    # Then the process of a daemon that cannot be stopped was killed
    first, second = cluster.events(name, "starts")
    assert (first["pid"] == second["pid"]) == ((place, how) == ("shared", "hang"))


@pytest.mark.parametrize("place", ["shared", "process", "thread"])
def test_a_temporary_daemon_without_progress_is_stopped_and_not_restarted(
    cluster: IntegrationCluster, place: str
) -> None:
    # When
    cluster.daemons.spawn(f"once-{place}", f"temporary-{place}", args=["hang"])

    # Then
    cluster.wait_event(f"once-{place}", "starts")
    assert cluster.wait_status(f"once-{place}", "stopped").error == TOLD
    assert len(cluster.events(f"once-{place}", "starts")) == 1
