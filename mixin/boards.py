"""Define the Grafana dashboards of a cluster and of a node."""

from typing import Final

from mixin.grafana import Board, Panel

_JOB: Final = 'job="$job"'
_NODE: Final = 'job="$job", instance="$instance"'

CLUSTER: Final = Board(
    uid="celery-daemons-cluster",
    title="Celery daemons / cluster",
    rows=[
        [
            Panel(
                title="Leader",
                kind="stat",
                queries=[(f"sum(celery_daemons_leader{{{_JOB}}})", "leaders")],
                bad_below=1,
                description="1 while a monitor leads.",
            ),
            Panel(
                title="Should run but do not",
                kind="stat",
                queries=[
                    (
                        (
                            f"sum(celery_daemons_desired{{{_JOB}}})"
                            f' - sum(celery_daemons_status{{{_JOB}, status="running"}})'
                        ),
                        "missing",
                    )
                ],
                bad_from=1,
            ),
            Panel(
                title="Running",
                kind="stat",
                queries=[(f'sum(celery_daemons_status{{{_JOB}, status="running"}})', "running")],
            ),
            Panel(
                title="Nodes up",
                kind="stat",
                queries=[(f'sum(celery_daemons_nodes{{{_JOB}, status="up"}})', "up")],
                bad_below=1,
            ),
            Panel(
                title="Failed or unplaceable",
                kind="stat",
                queries=[(f'sum(celery_daemons_status{{{_JOB}, status=~"failed|unplaceable"}})', "daemons")],
                bad_from=1,
            ),
            Panel(
                title="Rebalancing paused",
                kind="stat",
                queries=[(f"max(celery_daemons_rebalance_paused{{{_JOB}}})", "paused")],
                bad_from=1,
            ),
        ],
        [
            Panel(
                title="Daemons by status",
                queries=[(f"sum by (status) (celery_daemons_status{{{_JOB}}}) > 0", "{{status}}")],
            ),
            Panel(
                title="Daemons that need attention",
                kind="table",
                queries=[(f"celery_daemons_unhealthy{{{_JOB}}}", "{{daemon}}")],
                description="The first 100 that are failed or unplaceable; `daemons describe NAME` says why.",
            ),
        ],
        [
            Panel(
                title="Daemons by node",
                queries=[(f"sum by (node) (celery_daemons_node_daemons{{{_JOB}}})", "{{node}}")],
            ),
            Panel(
                title="Daemons by launcher",
                queries=[(f"sum by (launcher) (celery_daemons_desired{{{_JOB}}})", "{{launcher}}")],
            ),
        ],
        [
            Panel(
                title="Moves and lost nodes",
                queries=[
                    (f"sum by (reason) (increase(celery_daemons_moves_total{{{_JOB}}}[5m]))", "moved: {{reason}}"),
                    (f"sum(increase(celery_daemons_nodes_lost_total{{{_JOB}}}[5m]))", "nodes lost"),
                    (f"sum(increase(celery_daemons_elections_total{{{_JOB}}}[5m]))", "elections"),
                ],
            ),
            Panel(
                title="Time without a node, 99 % below",
                unit="s",
                queries=[(f"job_reason:celery_daemons_placement_seconds:p99{{{_JOB}}}", "{{reason}}")],
            ),
        ],
        [
            Panel(
                title="Lease left when renewed",
                unit="percentunit",
                queries=[(f"instance:celery_daemons_lease_margin:ratio{{{_JOB}}}", "{{instance}}")],
                description="A node whose lease ends stops its daemons.",
            ),
            Panel(
                title="Redis: errors per second",
                queries=[
                    (f"sum by (instance) (rate(celery_daemons_store_errors_total{{{_JOB}}}[5m]))", "{{instance}}")
                ],
            ),
        ],
        [
            Panel(
                title="Duration of a reconciliation",
                unit="s",
                queries=[(f"max(celery_daemons_reconcile_seconds{{{_JOB}}})", "seconds")],
            ),
            Panel(
                title="Since the last scan without an error",
                unit="s",
                queries=[
                    (
                        f"time() - max by (launcher) (celery_daemons_scan_last_success_timestamp_seconds{{{_JOB}}})",
                        "{{launcher}}",
                    )
                ],
            ),
        ],
    ],
)

NODE: Final = Board(
    uid="celery-daemons-node",
    title="Celery daemons / node",
    variables=[("instance", 'label_values(celery_daemons_build_info{job="$job"}, instance)')],
    rows=[
        [
            Panel(title="Running", kind="stat", queries=[(f"sum(celery_daemons_running{{{_NODE}}})", "running")]),
            Panel(title="Leads", kind="stat", queries=[(f"max(celery_daemons_leader{{{_NODE}}})", "leads")]),
            Panel(
                title="Least margin of the lease",
                kind="stat",
                unit="s",
                queries=[(f"min(celery_daemons_lease_margin_seconds{{{_NODE}}})", "left")],
                bad_below=0.5,
            ),
            Panel(
                title="Since the worker's timer ticked",
                kind="stat",
                unit="s",
                queries=[(f"max(celery_daemons_worker_tick_age_seconds{{{_NODE}}})", "age")],
                bad_from=12,
            ),
            Panel(
                title="Hosts killed by the kernel, 1 h",
                kind="stat",
                queries=[(f"sum(increase(celery_daemons_deadman_kills_total{{{_NODE}}}[1h]))", "killed")],
                bad_from=1,
            ),
        ],
        [
            Panel(
                title="Daemons by launcher",
                queries=[(f"sum by (launcher) (celery_daemons_running{{{_NODE}}})", "{{launcher}}")],
            ),
            Panel(
                title="Restarts",
                queries=[
                    (
                        f"sum by (launcher, outcome) (increase(celery_daemons_restarts_total{{{_NODE}}}[5m])) > 0",
                        "{{launcher}} {{outcome}}",
                    )
                ],
            ),
        ],
        [
            Panel(
                title="Lag of the event loop, 99 % below",
                unit="s",
                queries=[(f"instance_host:celery_daemons_host_loop_lag_seconds:p99{{{_NODE}}}", "{{host}}")],
            ),
            Panel(
                title="Share of time in steps that block",
                unit="percentunit",
                queries=[
                    (f"sum(rate(celery_daemons_host_loop_stall_seconds_total{{{_NODE}}}[5m]))", "of a core"),
                ],
                description="The log of the worker names the daemons.",
            ),
            Panel(
                title="Resident memory of hosts",
                unit="bytes",
                queries=[(f"sum by (host) (celery_daemons_host_resident_bytes{{{_NODE}}})", "{{host}}")],
            ),
        ],
        [
            Panel(
                title="Heartbeat, 99 % below",
                unit="s",
                queries=[(f"instance:celery_daemons_heartbeat_seconds:p99{{{_NODE}}}", "seconds")],
            ),
            Panel(
                title="Redis: errors and refusals per second",
                queries=[
                    (f"sum by (verb) (rate(celery_daemons_store_errors_total{{{_NODE}}}[5m]))", "error: {{verb}}"),
                    (f"sum by (verb) (rate(celery_daemons_fenced_total{{{_NODE}}}[5m]))", "refused: {{verb}}"),
                ],
            ),
        ],
        [
            Panel(
                title="Average time to stop",
                unit="s",
                queries=[
                    (
                        (
                            f"sum by (launcher) (rate(celery_daemons_stop_seconds_sum{{{_NODE}}}[10m]))"
                            f" / sum by (launcher) (rate(celery_daemons_stop_seconds_count{{{_NODE}}}[10m]))"
                        ),
                        "{{launcher}}",
                    )
                ],
            ),
            Panel(
                title="Killed after their grace period",
                queries=[
                    (
                        f"sum by (launcher) (increase(celery_daemons_stops_forced_total{{{_NODE}}}[10m]))",
                        "{{launcher}}",
                    )
                ],
            ),
        ],
    ],
)

BOARDS: Final = {"cluster": CLUSTER, "node": NODE}
