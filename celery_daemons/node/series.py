"""The series on ``/metrics``: name, type, labels and meaning of each, in one table."""

from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "celery_daemons_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A family of series; ``leader`` says whether only the agent of the leader serves it."""

    name: str
    kind: Literal["gauge", "counter", "histogram", "summary"]
    labels: tuple[str, ...] = ()
    help: str
    leader: bool = False

    @property
    def full_name(self) -> str:
        """Return the name on the page."""
        return PREFIX + self.name


_NODE: Final = (
    Series(
        name="build_info",
        kind="gauge",
        labels=("version", "layout"),
        help="Always 1, by version of the package and layout of its keys.",
    ),
    Series(name="leader", kind="gauge", help="1 if the monitor of this node leads the cluster, else 0."),
    Series(name="running", kind="gauge", labels=("launcher",), help="Daemons that run on this node."),
    Series(
        name="restarts_total",
        kind="counter",
        labels=("launcher", "outcome"),
        help="Runs on this node that were followed by another one, by how they ended: finished, failed, or requested.",
    ),
    Series(
        name="stop_seconds",
        kind="summary",
        labels=("launcher",),
        help="Time from the request to stop a daemon to its end.",
    ),
    Series(
        name="stops_forced_total",
        kind="counter",
        labels=("launcher",),
        help="Daemons that did not stop within their grace period, and were killed.",
    ),
    Series(name="heartbeat_seconds", kind="histogram", help="Time that Redis took to renew the lease of this node."),
    Series(name="lease_seconds", kind="gauge", help="Length of the lease of this node."),
    Series(
        name="lease_margin_seconds",
        kind="gauge",
        help="Least time before the end of the lease at which it was renewed, within the last minute.",
    ),
    Series(
        name="store_errors_total",
        kind="counter",
        labels=("verb",),
        help="Script calls of this agent that Redis did not answer correctly.",
    ),
    Series(
        name="fenced_total",
        kind="counter",
        labels=("verb",),
        help="Changes of this agent that Redis refused because another process has taken over.",
    ),
    Series(
        name="host_loop_lag_seconds",
        kind="histogram",
        labels=("host",),
        help="Time that the event loop of a shared host took to answer a probe of the agent.",
    ),
    Series(
        name="host_loop_stalls_total",
        kind="counter",
        help="Steps on the event loop of a shared host that took 0.1 s or longer.",
    ),
    Series(name="host_loop_stall_seconds_total", kind="counter", help="Time that these steps took."),
    Series(
        name="host_resident_bytes",
        kind="gauge",
        labels=("host",),
        help="Resident memory of host processes, shared pages included; isolated hosts add up.",
    ),
    Series(
        name="deadman_kills_total", kind="counter", help="Hosts that the kernel has killed at the end of the lease."
    ),
    Series(
        name="worker_tick_age_seconds",
        kind="gauge",
        help="Time since the timer of the worker last ticked; absent while it need not tick.",
    ),
    Series(name="elections_total", kind="counter", help="Elections that this node has won."),
    Series(
        name="moves_total",
        kind="counter",
        labels=("reason",),
        help="Daemons that were assigned to another node while this node led.",
    ),
    Series(name="nodes_lost_total", kind="counter", help="Nodes whose lease has ended while this node led."),
    Series(
        name="mass_failures_total", kind="counter", help="Times that most nodes were lost at once while this node led."
    ),
)
_LEADER: Final = (
    Series(name="status", kind="gauge", labels=("launcher", "status"), help="Daemons of the cluster.", leader=True),
    Series(
        name="desired", kind="gauge", labels=("launcher",), help="Daemons of the cluster that should run.", leader=True
    ),
    Series(
        name="unhealthy",
        kind="gauge",
        labels=("daemon", "status"),
        help="Always 1, for the first 100 daemons that are failed or unplaceable.",
        leader=True,
    ),
    Series(name="nodes", kind="gauge", labels=("status",), help="Nodes of the cluster.", leader=True),
    Series(name="node_daemons", kind="gauge", labels=("node",), help="Daemons that a node holds.", leader=True),
    Series(
        name="node_lease_seconds",
        kind="gauge",
        labels=("node",),
        help="Time left of the lease of a node when the monitor last checked.",
        leader=True,
    ),
    Series(name="rebalance_paused", kind="gauge", help="1 while rebalancing is paused, else 0.", leader=True),
    Series(
        name="placement_seconds",
        kind="histogram",
        labels=("reason",),
        help="Time from the moment at which a daemon had no node to its next run.",
        leader=True,
    ),
    Series(
        name="reconcile_seconds", kind="gauge", help="Duration of the last reconciliation of the monitor.", leader=True
    ),
    Series(
        name="reconcile_last_success_timestamp_seconds",
        kind="gauge",
        help="Unix time of the end of the last reconciliation of the monitor.",
        leader=True,
    ),
    Series(name="scan_seconds", kind="gauge", labels=("launcher",), help="Duration of the last scan.", leader=True),
    Series(
        name="scan_listed", kind="gauge", labels=("launcher",), help="Specs that the last scan listed.", leader=True
    ),
    Series(
        name="scan_last_success_timestamp_seconds",
        kind="gauge",
        labels=("launcher",),
        help="Unix time of the end of the last scan without an error; 0 if there was none.",
        leader=True,
    ),
)
SERIES: Final = {series.name: series for series in (*_NODE, *_LEADER)}
