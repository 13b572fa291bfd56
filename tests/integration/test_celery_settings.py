"""What users set for Celery counts for the package too: TLS options, and the name of the app."""

from pathlib import Path

import pytest

from celery_daemons import DaemonsError
from tests.conftest import RUNNING, NewServer
from tests.support.certificates import self_signed, tls_config
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.projects import PRELUDE
from tests.support.servers import Server, free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

FEED = """
@daemons.launcher
async def feed(ctx):
    note(ctx.name, "runs")
    await ctx.stopping.wait()

@feed.recovery_scanner
def one():
    yield feed.spec("feed")
"""


@pytest.mark.parametrize("scheme", ["rediss", "redis"])
def test_the_tls_options_of_the_broker_reach_agent_monitor_and_client(
    new_server: NewServer, tmp_path: Path, request: pytest.FixtureRequest, scheme: str
) -> None:
    # Given a Redis whose certificate no authority has signed, and an app that names no other
    key, certificate = self_signed(tmp_path, "redis.internal")
    port = free_port()
    server = new_server(*tls_config(port, key, certificate), flavour="redis")
    source = EVENT_LOG.replace(
        "daemons = Daemons",
        'import ssl\napp.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_NONE}\ndaemons = Daemons',
    )
    with IntegrationCluster(
        tmp_path / "project",
        server,
        source + FEED,
        broker_url=f"{scheme}://localhost:{port}/0",
        settings={"redis_url": None},
    ) as cluster:
        # When
        request.node.stash[RUNNING] = [cluster.worker("w1")]

        # Then
        cluster.wait_event("feed", "runs")
        assert cluster.daemons.locate("feed") is not None


def test_a_monitor_that_lacks_the_scanner_of_another_node_says_so_and_a_rescan_fails(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Given two apps in one namespace, the first of which leads
    assert PRELUDE in EVENT_LOG
    optional = EVENT_LOG + FEED.replace("@feed", 'if "SCANS" in os.environ:\n  @feed').replace(
        "def one():\n    yield", "  def one():\n    yield"
    )
    with IntegrationCluster(tmp_path, valkey, optional) as cluster:
        first = cluster.worker("w1")
        wait_until(lambda: cluster.daemons.status().leader, within=SOON, because="the only node leads")
        second = cluster.worker("w2", env={"SCANS": "yes"})
        request.node.stash[RUNNING] = [first, second]

        # Then
        wait_until(lambda: "feed" in cluster.daemons.status().scanners, within=SOON, because="the nodes differ")
        error = cluster.daemons.status().scanners["feed"].error
        assert error is not None
        assert "node w2@test has a recovery scanner for it, and the node of the monitor has none" in error
        assert first.output.count("launcher feed: node w2@test has a recovery scanner") == 1
        with pytest.raises(DaemonsError, match="monitor on node w1@test has no recovery scanner for feed"):
            cluster.daemons.rescan()
