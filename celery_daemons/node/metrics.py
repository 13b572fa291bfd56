"""``/metrics``: render what the agent knows in the format of Prometheus, at each scrape."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from celery_daemons.domain.histogram import cumulative
from celery_daemons.domain.names import LauncherName
from celery_daemons.domain.states import DaemonStatus, NodeStatus
from celery_daemons.node.host_memory import resident_kib
from celery_daemons.node.host_pool import HostPool
from celery_daemons.node.http_answer import HttpAnswer
from celery_daemons.node.measurements import Measurements
from celery_daemons.node.series import SERIES
from celery_daemons.node.supervision.run_tally import RESTART_OUTCOMES
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.node.vitals import Vitals
from celery_daemons.store.keys import LAYOUT
from celery_daemons.wire.messages import PLACEMENT_BOUNDS, ClusterNumbers

#: Launchers of a node with series of their own; the others add up under one label. More would exceed 200 series.
_LAUNCHERS_SHOWN: Final = 12
OTHER_LAUNCHERS: Final = "other"
#: The verbs of an agent, all on the page from the beginning: a rate needs a first value.
_VERBS: Final = ("beat", "claim", "report", "release", "campaign", "join", "held", "reassert")
_FENCED_VERBS: Final = ("claim", "report", "campaign")
_MISSING: Final = "metrics need the package prometheus_client: install celery-daemons[metrics]\n"

#: Labels and value of a series: a number, or for a histogram its buckets and the sum, or for a summary count and sum.
Sample = tuple[tuple[str, ...], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedNode:
    """The parts of an agent with a node that metrics read."""

    lease_seconds: float
    launchers: Iterable[LauncherName]
    supervisor: Supervisor
    hosts: HostPool


class Metrics:
    """Builds the page from the parts of an agent; a candidate has no ``node``."""

    def __init__(
        self,
        *,
        measurements: Measurements,
        vitals: Vitals,
        leads: Callable[[], bool],
        node: ServedNode | None = None,
        served: bool = True,
    ) -> None:
        """Without ``served``, the page is never requested."""
        # Not at the first scrape, where the import would block the loop that renews the lease.
        self._choose_encoder = _import_encoder() if served else None
        self._measurements = measurements
        self._vitals = vitals
        self._leads = leads
        self._node = node
        # Not an import statement: the package lazily imports modules that an agent must not reach. Not the installed
        # metadata either, which a copied folder lacks.
        self._build = import_module("celery_daemons").__version__, LAYOUT
        launchers = sorted(node.launchers) if node is not None else []
        self._launchers = launchers if len(launchers) <= _LAUNCHERS_SHOWN + 1 else launchers[:_LAUNCHERS_SHOWN]

    def page(self, accept: str) -> HttpAnswer:
        """Return the page in the format that ``accept`` asks for."""
        if self._choose_encoder is None:
            return HttpAnswer(status=501, body=_MISSING.encode())
        encode, content_type = self._choose_encoder(accept)
        return HttpAnswer(status=200, body=encode(self), content_type=content_type)

    def collect(self) -> Iterator[Any]:
        """Yield the families of the page; prometheus_client calls this while it encodes."""
        for name, samples in self.samples(now=time.monotonic()).items():
            yield _family(name, samples)

    def samples(self, *, now: float) -> dict[str, list[Sample]]:
        """Return the samples of each family on the page."""
        found = self._of_agent(now)
        if self._node is not None:
            found |= self._of_node(self._node)
        if self._measurements.cluster is not None and self._leads():
            found |= _of_cluster(self._measurements.cluster)
        return found

    def _of_agent(self, now: float) -> dict[str, list[Sample]]:
        of, totals = self._measurements, self._measurements.totals
        tick_age, margin = self._vitals.tick_age(now), of.least_margin(now)
        return {
            "build_info": [(self._build, 1)],
            "leader": [((), int(self._leads()))],
            "heartbeat_seconds": [((), (of.heartbeat.cumulative(), of.heartbeat.total))],
            "lease_margin_seconds": [((), margin)] if margin is not None else [],
            "store_errors_total": _by(sorted({*_VERBS, *of.store_errors}), of.store_errors),
            "fenced_total": _by(_FENCED_VERBS, of.fenced),
            "worker_tick_age_seconds": [((), tick_age)] if tick_age is not None else [],
            "elections_total": [((), of.elections)],
            "moves_total": [((reason,), count) for reason, count in totals.moves.items()],
            "nodes_lost_total": [((), totals.nodes_lost)],
            "mass_failures_total": [((), totals.mass_failures)],
        }

    def _of_node(self, node: ServedNode) -> dict[str, list[Sample]]:
        of, tally = self._measurements, node.supervisor.tally
        running, stops = self._shown(node.supervisor.running_by_launcher()), self._shown(tally.stops)
        seconds, forced = self._shown(tally.stop_seconds), self._shown(tally.forced)
        restarts = {
            outcome: self._shown({name: n for (name, how), n in tally.restarts.items() if how == outcome})
            for outcome in RESTART_OUTCOMES
        }
        resident: Counter[str] = Counter()
        for host, pid in node.hosts.pids().items():
            resident[of.labels.get(host, "")] += resident_kib(pid) * 1024
        return {
            "running": _by(running, running),
            "restarts_total": [
                ((launcher, outcome), count)
                for outcome, counts in restarts.items()
                for launcher, count in counts.items()
            ],
            "stop_seconds": [((name,), (stops[name], seconds[name])) for name in stops],
            "stops_forced_total": _by(forced, forced),
            "lease_seconds": [((), node.lease_seconds)],
            "host_loop_lag_seconds": [
                ((host,), (lag.cumulative(), lag.total)) for host, lag in sorted(of.loop_lag.items())
            ],
            "host_loop_stalls_total": [((), of.stalls)],
            "host_loop_stall_seconds_total": [((), of.stall_seconds)],
            "host_resident_bytes": _by(sorted(filter(None, resident)), resident),
            "deadman_kills_total": [((), of.deadman_kills)],
        }

    def _shown(self, counts: Mapping[LauncherName, float]) -> dict[str, float]:
        """Return the counts of the launchers that are shown, and the sum of the others if there are any."""
        shown: dict[str, float] = {name: counts.get(name, 0) for name in self._launchers}
        rest = sum(count for name, count in counts.items() if name not in shown)
        return {**shown, OTHER_LAUNCHERS: rest} if rest else shown


def _import_encoder() -> Callable[[str], tuple[Callable[[Any], bytes], str]] | None:
    try:
        from prometheus_client.exposition import choose_encoder
    except ImportError:
        return None
    return choose_encoder


def _of_cluster(numbers: ClusterNumbers) -> dict[str, list[Sample]]:
    scans = sorted(numbers.scans.items())
    counts = {(launcher, status): count for launcher, status, count in numbers.statuses}
    return {
        "status": [
            # Zeros too: an expression that subtracts an absent series has no result.
            ((launcher, str(status)), counts.get((launcher, status), 0))
            for launcher in numbers.desired
            for status in DaemonStatus
        ],
        "desired": _by(numbers.desired, numbers.desired),
        "unhealthy": [((name, str(status)), 1) for name, status in numbers.unhealthy],
        "nodes": _by([str(status) for status in NodeStatus], numbers.nodes),
        "node_daemons": _by(numbers.node_daemons, numbers.node_daemons),
        "node_lease_seconds": _by(numbers.lease_seconds, numbers.lease_seconds),
        "rebalance_paused": [((), int(numbers.rebalance_paused))],
        "placement_seconds": [
            ((reason,), (cumulative(PLACEMENT_BOUNDS, counts), total))
            for reason, (counts, total) in numbers.placement.items()
        ],
        "reconcile_seconds": [((), numbers.reconcile_seconds)],
        "reconcile_last_success_timestamp_seconds": [((), numbers.reconciled_at)],
        "scan_seconds": [((launcher,), scan.seconds) for launcher, scan in scans],
        "scan_listed": [((launcher,), scan.listed) for launcher, scan in scans],
        "scan_last_success_timestamp_seconds": [((launcher,), scan.succeeded_at) for launcher, scan in scans],
    }


def _by(labels: Iterable[str], values: Mapping[Any, float]) -> list[Sample]:
    """Return a sample for each value of a single label."""
    return [((label,), values.get(label, 0)) for label in labels]


def _family(name: str, samples: list[Sample]) -> Any:
    from prometheus_client import core

    series = SERIES[name]
    kinds = {
        "gauge": core.GaugeMetricFamily,
        "counter": core.CounterMetricFamily,
        "histogram": core.HistogramMetricFamily,
        "summary": core.SummaryMetricFamily,
    }
    family = kinds[series.kind](series.full_name.removesuffix("_total"), series.help, labels=series.labels)
    for labels, value in samples:
        family.add_metric(labels, *(value if isinstance(value, tuple) else (value,)))
    return family
