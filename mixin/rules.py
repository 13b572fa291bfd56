"""Define the recording rules and the alerts."""

from dataclasses import dataclass
from typing import Any, Final

RUNBOOK: Final = "docs/how-to/runbook.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording rule, named ``level:metric:operation``."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert; ``wait`` is for how long the expression has to hold."""

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str

    @property
    def full_name(self) -> str:
        """Return the name in Prometheus."""
        return f"CeleryDaemons{self.name}"

    @property
    def runbook(self) -> str:
        """Return the anchor of the section in the runbook."""
        return f"{RUNBOOK}#{self.full_name.lower()}"


RECORDINGS: Final = (
    Recording(name="job:celery_daemons_desired:sum", expr="sum by (job) (celery_daemons_desired)"),
    Recording(name="job_status:celery_daemons_status:sum", expr="sum by (job, status) (celery_daemons_status)"),
    Recording(
        name="job_reason:celery_daemons_placement_seconds:p99",
        expr=(
            "histogram_quantile(0.99, sum by (job, reason, le) (rate(celery_daemons_placement_seconds_bucket[10m])))"
        ),
    ),
    Recording(
        name="instance:celery_daemons_heartbeat_seconds:p99",
        expr="histogram_quantile(0.99, sum by (job, instance, le) (rate(celery_daemons_heartbeat_seconds_bucket[5m])))",
    ),
    Recording(
        name="instance_host:celery_daemons_host_loop_lag_seconds:p99",
        expr=(
            "histogram_quantile(0.99, "
            "sum by (job, instance, host, le) (rate(celery_daemons_host_loop_lag_seconds_bucket[5m])))"
        ),
    ),
    Recording(
        name="instance:celery_daemons_lease_margin:ratio",
        expr="celery_daemons_lease_margin_seconds / celery_daemons_lease_seconds",
    ),
)

ALERTS: Final = (
    Alert(
        name="NoLeader",
        expr="(sum by (job) (celery_daemons_leader) < 1) or absent(celery_daemons_leader)",
        wait="1m",
        severity="critical",
        summary="No monitor leads the cluster.",
        description="Running daemons continue. None is placed, moved or restarted on another node.",
    ),
    Alert(
        name="ReconcileStale",
        expr="time() - max by (job) (celery_daemons_reconcile_last_success_timestamp_seconds) > 60",
        wait="1m",
        severity="critical",
        summary="The monitor has completed no reconciliation for over a minute.",
        description="A monitor leads but makes no progress. Daemons of a lost node are not started elsewhere.",
    ),
    Alert(
        name="MassFailure",
        expr="sum by (job) (increase(celery_daemons_mass_failures_total[15m])) > 0",
        wait="0m",
        severity="critical",
        summary="Most nodes were lost at once.",
        description="The monitor waits one lease before it moves their daemons: a network failure is the likely cause.",
    ),
    Alert(
        name="NotConverged",
        expr=(
            "job:celery_daemons_desired:sum"
            ' - on (job) sum by (job) (job_status:celery_daemons_status:sum{status="running"}) > 0'
        ),
        wait="10m",
        severity="warning",
        summary="{{ $value }} daemons should run but do not.",
        description="For ten minutes, at least one daemon that should run did not.",
    ),
    Alert(
        name="Failed",
        expr='sum by (job, launcher) (celery_daemons_status{status="failed"}) > 0',
        wait="5m",
        severity="warning",
        summary="{{ $value }} daemons of launcher {{ $labels.launcher }} are failed.",
        description="They fail repeatedly, on two nodes if there are two, and are retried within backoff_max seconds.",
    ),
    Alert(
        name="Unplaceable",
        expr='sum by (job, launcher) (celery_daemons_status{status="unplaceable"}) > 0',
        wait="5m",
        severity="warning",
        summary="{{ $value }} daemons of launcher {{ $labels.launcher }} fit no node.",
        description="No node that is up has the launcher and the labels that it requires.",
    ),
    Alert(
        name="NodeLost",
        expr="sum by (job) (increase(celery_daemons_nodes_lost_total[15m])) > 0",
        wait="0m",
        severity="warning",
        summary="The lease of a node has ended without a drain.",
        description="Its machine, its process or its connection to Redis failed. Its daemons were moved.",
    ),
    Alert(
        name="LeaseMarginLow",
        expr="instance:celery_daemons_lease_margin:ratio < 0.3",
        wait="5m",
        severity="warning",
        summary="Node {{ $labels.instance }} renews its lease late.",
        description="Less than 30 % of the lease was left at a renewal. If a lease ends, the node stops its daemons.",
    ),
    Alert(
        name="StoreErrors",
        expr="sum by (job, instance) (rate(celery_daemons_store_errors_total[5m])) > 0.05",
        wait="5m",
        severity="warning",
        summary="Redis does not answer node {{ $labels.instance }} reliably.",
        description="More than three calls per minute were not answered correctly.",
    ),
    Alert(
        name="ScannerStale",
        expr="time() - max by (job, launcher) (celery_daemons_scan_last_success_timestamp_seconds) > 900",
        wait="5m",
        severity="warning",
        summary="The recovery scanner of {{ $labels.launcher }} has not succeeded for 15 minutes.",
        description="New daemons that it should list are not started, and none is pruned. Running daemons continue.",
    ),
    Alert(
        name="RestartStorm",
        expr=('sum by (job, launcher) (increase(celery_daemons_restarts_total{outcome!="requested"}[10m])) > 30'),
        wait="0m",
        severity="warning",
        summary="Daemons of launcher {{ $labels.launcher }} restart repeatedly.",
        description="More than 30 runs ended by themselves or with an error within ten minutes.",
    ),
    Alert(
        name="LoopLag",
        expr="instance_host:celery_daemons_host_loop_lag_seconds:p99 > 0.5",
        wait="10m",
        severity="warning",
        summary="A daemon blocks the event loop of host {{ $labels.host }} on {{ $labels.instance }}.",
        description="The other daemons of the host wait for half a second and longer.",
    ),
    Alert(
        name="RebalancePausedLong",
        expr="max by (job) (celery_daemons_rebalance_paused) == 1",
        wait="6h",
        severity="info",
        summary="Rebalancing has been paused for six hours.",
        description="After a deploy, the load of the nodes stays uneven until rebalancing is resumed.",
    ),
    Alert(
        name="VersionSkew",
        expr="count by (job) (count by (job, version, layout) (celery_daemons_build_info)) > 1",
        wait="1h",
        severity="info",
        summary="Nodes of the cluster run {{ $value }} versions of celery_daemons.",
        description="A rolling deploy has stopped half-way.",
    ),
)


def document() -> dict[str, Any]:
    """Return the content of a rule file of Prometheus."""
    return {
        "groups": [
            {
                "name": "celery_daemons.rules",
                "rules": [{"record": rule.name, "expr": rule.expr} for rule in RECORDINGS],
            },
            {
                "name": "celery_daemons.alerts",
                "rules": [
                    {
                        "alert": alert.full_name,
                        "expr": alert.expr,
                        "for": alert.wait,
                        "labels": {"severity": alert.severity},
                        "annotations": {
                            "summary": alert.summary,
                            "description": alert.description,
                            "runbook_url": alert.runbook,
                        },
                    }
                    for alert in ALERTS
                ],
            },
        ]
    }
