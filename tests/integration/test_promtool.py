"""Check metrics and rules with Prometheus's own tool: each alert fires when it should, and only then."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixin.__main__ import FOLDER
from mixin.rules import ALERTS
from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.probes import probe
from tests.support.servers import Server, free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

SOURCE = (
    EVENT_LOG
    + """
@daemons.launcher
async def together(ctx):
    await ctx.stopping.wait()

@together.recovery_scanner
def wanted():
    yield together.spec("one")
"""
)

#: For each alert: series with which it fires, series with which it does not, and when both are evaluated. The notation
#: is promtool's: ``1+0x60`` is 60 minutes of 1, ``0+1x60`` grows by 1 a minute.
Series = dict[str, str]
CASES: dict[str, tuple[Series, Series, str]] = {
    "NoLeader": (
        {'leader{job="a",instance="1"}': "0+0x60", 'leader{job="a",instance="2"}': "0+0x60"},
        {'leader{job="a",instance="1"}': "0+0x60", 'leader{job="a",instance="2"}': "1+0x60"},
        "10m",
    ),
    "ReconcileStale": (
        {'reconcile_last_success_timestamp_seconds{job="a"}': "0+0x60"},
        {'reconcile_last_success_timestamp_seconds{job="a"}': "0+60x60"},
        "30m",
    ),
    "MassFailure": (
        {'mass_failures_total{job="a"}': "0x10 1x50"},
        {'mass_failures_total{job="a"}': "1+0x60"},
        "15m",
    ),
    "NotConverged": (
        {
            'desired{job="a",launcher="x"}': "5+0x60",
            'status{job="a",launcher="x",status="running"}': "3+0x60",
            'status{job="a",launcher="x",status="failed"}': "2+0x60",
        },
        {
            'desired{job="a",launcher="x"}': "5+0x60",
            'status{job="a",launcher="x",status="running"}': "5+0x60",
            'status{job="a",launcher="x",status="failed"}': "0+0x60",
        },
        "30m",
    ),
    "Failed": (
        {'status{job="a",launcher="x",status="failed"}': "1+0x60"},
        {
            'status{job="a",launcher="x",status="failed"}': "0+0x60",
            'status{job="a",launcher="x",status="backoff"}': "1x60",
        },
        "30m",
    ),
    "Unplaceable": (
        {'status{job="a",launcher="x",status="unplaceable"}': "1+0x60"},
        {'status{job="a",launcher="x",status="unplaceable"}': "0+0x60"},
        "30m",
    ),
    "NodeLost": (
        {'nodes_lost_total{job="a",instance="1"}': "0x10 1x50"},
        {'nodes_lost_total{job="a",instance="1"}': "1+0x60"},
        "15m",
    ),
    "LeaseMarginLow": (
        {'lease_margin_seconds{job="a",instance="1"}': "1+0x60", 'lease_seconds{job="a",instance="1"}': "5+0x60"},
        {'lease_margin_seconds{job="a",instance="1"}': "3+0x60", 'lease_seconds{job="a",instance="1"}': "5+0x60"},
        "30m",
    ),
    "StoreErrors": (
        {'store_errors_total{job="a",instance="1",verb="beat"}': "0+60x60"},
        {'store_errors_total{job="a",instance="1",verb="beat"}': "0+1x60"},
        "30m",
    ),
    "ScannerStale": (
        {'scan_last_success_timestamp_seconds{job="a",launcher="x"}': "0+0x60"},
        {'scan_last_success_timestamp_seconds{job="a",launcher="x"}': "0+60x60"},
        "40m",
    ),
    "RestartStorm": (
        {'restarts_total{job="a",launcher="x",outcome="failed"}': "0+5x60"},
        {
            'restarts_total{job="a",launcher="x",outcome="failed"}': "0+1x60",
            'restarts_total{job="a",launcher="x",outcome="requested"}': "0+50x60",
        },
        "30m",
    ),
    "LoopLag": (
        {
            'host_loop_lag_seconds_bucket{job="a",instance="1",host="shared-1",le="0.5"}': "0+10x60",
            'host_loop_lag_seconds_bucket{job="a",instance="1",host="shared-1",le="1.0"}': "0+20x60",
            'host_loop_lag_seconds_bucket{job="a",instance="1",host="shared-1",le="+Inf"}': "0+20x60",
        },
        {
            'host_loop_lag_seconds_bucket{job="a",instance="1",host="shared-1",le="0.5"}': "0+20x60",
            'host_loop_lag_seconds_bucket{job="a",instance="1",host="shared-1",le="1.0"}': "0+20x60",
            'host_loop_lag_seconds_bucket{job="a",instance="1",host="shared-1",le="+Inf"}': "0+20x60",
        },
        "30m",
    ),
    "RebalancePausedLong": (
        {'rebalance_paused{job="a"}': "1+0x600"},
        {'rebalance_paused{job="a"}': "1x300 0 1x300"},
        "500m",
    ),
    "VersionSkew": (
        {
            'build_info{job="a",instance="1",version="1",layout="1"}': "1+0x200",
            'build_info{job="a",instance="2",version="2",layout="1"}': "1+0x200",
        },
        {
            'build_info{job="a",instance="1",version="1",layout="1"}': "1+0x200",
            'build_info{job="b",instance="2",version="2",layout="1"}': "1+0x200",
        },
        "150m",
    ),
}


def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run(
        ["promtool", *arguments], input=given, text=True, capture_output=True, check=False, timeout=120
    )


def case(name: str, series: Series, at: str, *, fires: bool) -> dict[str, Any]:
    """Return a test of an alert, in the format of promtool."""
    return {
        "interval": "1m",
        "input_series": [{"series": f"celery_daemons_{key}", "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="CeleryDaemons{name}", alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
    }


def test_every_alert_has_a_case() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "quiet"])
@pytest.mark.parametrize("name", CASES)
def test_the_alert_fires_when_it_should_and_only_then(name: str, fires: bool, tmp_path: Path) -> None:
    firing, quiet, at = CASES[name]
    tests = {
        "rule_files": [str(FOLDER / "rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [case(name, firing if fires else quiet, at, fires=fires)],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tests))

    done = promtool("test", "rules", str(path))

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid() -> None:
    done = promtool("check", "rules", str(FOLDER / "rules.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "lint error" not in done.stdout + done.stderr


def test_promtool_accepts_the_page_of_metrics(valkey: Server, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    port = free_port()
    settings = {"http": f"127.0.0.1:{port}"}
    with IntegrationCluster(tmp_path, valkey, SOURCE, settings=settings, pool="prefork") as cluster:
        request.node.stash[RUNNING] = [cluster.worker("w1")]
        page = wait_until(
            lambda: (text := probe(port, "/metrics").text) and "scan_listed" in text and text,
            within=SOON,
            because="the monitor scans, and reports",
        )

    done = promtool("check", "metrics", given=page)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
