"""Waiting for a daemon that counts as running only after its start_seconds."""

from collections.abc import Iterator

import pytest

from celery_daemons import DaemonStatus, SpawnTimeout
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import Server

SOURCE = (
    EVENT_LOG
    + """
@daemons.launcher(start_seconds=1, backoff=60, backoff_max=60)
def dies(ctx):
    raise RuntimeError("no such queue")

def says_so(ctx):
    ctx.ready()
    ctx.stopping.wait()

process = daemons.launcher("process", start_seconds=3600)(says_so)
thread = daemons.launcher("thread", start_seconds=3600, isolation="thread")(says_so)

@daemons.launcher(start_seconds=3600)
async def coroutine(ctx):
    ctx.ready()
    await ctx.stopping.wait()

@daemons.launcher(start_seconds=0.5)
async def lasts(ctx):
    await ctx.stopping.wait()
"""
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, valkey: Server) -> Iterator[IntegrationCluster]:
    with IntegrationCluster(tmp_path_factory.mktemp("start"), valkey, SOURCE) as cluster:
        cluster.worker("w1")
        # A new cluster places nothing for one lease.
        cluster.daemons.spawn("first", "coroutine", wait=SOON)
        yield cluster


def test_a_spawn_does_not_return_for_a_daemon_that_dies_at_once(cluster: IntegrationCluster) -> None:
    with pytest.raises(SpawnTimeout, match="RuntimeError: no such queue"):
        cluster.daemons.spawn("brief", "dies", wait=3)


@pytest.mark.parametrize("launcher", ["process", "thread", "coroutine", "lasts"])
def test_a_spawn_returns_once_the_daemon_is_ready_or_has_lasted(cluster: IntegrationCluster, launcher: str) -> None:
    address = cluster.daemons.spawn(f"one.{launcher}", launcher, wait=SOON)

    assert address is not None
    assert address.status is DaemonStatus.RUNNING
