"""Count and measure for metrics, from the start of the agent: no I/O, and nothing that grows with time."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from celery_daemons.domain.histogram import Histogram
from celery_daemons.forkserver.spawner import ProcessEnd
from celery_daemons.node.supervision.commands import HostId
from celery_daemons.wire.messages import ClusterNumbers, ClusterTotals

#: Seconds over which the least margin of the lease is kept: longer than the usual interval between two scrapes, and the
#: same for every scraper.
_MARGIN_WINDOW: Final = 60.0
#: Shared hosts that have their own label; further ones share a label, and so do all isolated hosts.
_HOSTS_SHOWN: Final = 4
OTHER_HOSTS: Final = "other"
ISOLATED_HOSTS: Final = "isolated"
_HEARTBEAT_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LAG_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)


class Measurements:
    """Numbers of this node, and those of the cluster while this node leads."""

    def __init__(self) -> None:
        self.heartbeat = Histogram(_HEARTBEAT_BOUNDS)
        self.store_errors: Counter[str] = Counter()
        self.fenced: Counter[str] = Counter()
        self.deadman_kills = 0
        self.elections = 0
        self.loop_lag: dict[str, Histogram] = {}
        #: How often, and for how many seconds together, daemons have blocked the event loop of a shared host.
        self.stalls = 0
        self.stall_seconds = 0.0
        #: The label of each host. The next host gets the label of one that has ended, so restarts add no labels.
        self.labels: dict[HostId, str] = {}
        self._margins: deque[tuple[float, float]] = deque()
        #: Of the monitor that this node runs; ``None`` without one.
        self.cluster: ClusterNumbers | None = None
        self._earlier = ClusterTotals()

    # From the store and the lease

    def called(self, verb: str, seconds: float, answered: bool) -> None:
        """Note a script call."""
        if not answered:
            self.store_errors[verb] += 1
        elif verb == "beat":
            self.heartbeat.observe(seconds)

    def renewed(self, margin: float, *, now: float) -> None:
        """Note that a heartbeat was answered ``margin`` seconds before the end of the lease."""
        self.least_margin(now)
        # Margins ascend: an older and larger margin can never be the least again.
        while self._margins and self._margins[-1][1] >= margin:
            self._margins.pop()
        self._margins.append((now, margin))

    def least_margin(self, now: float) -> float | None:
        """Return the least margin of the last minute; ``None`` without a heartbeat in that time."""
        while self._margins and self._margins[0][0] < now - _MARGIN_WINDOW:
            self._margins.popleft()
        return self._margins[0][1] if self._margins else None

    # From hosts

    def host_opened(self, host: HostId, *, isolated: bool) -> None:
        """Give a host a label."""
        taken = set(self.labels.values())
        free = (f"shared-{number}" for number in range(1, _HOSTS_SHOWN + 1))
        self.labels[host] = ISOLATED_HOSTS if isolated else next((one for one in free if one not in taken), OTHER_HOSTS)

    def host_answered(self, host: HostId, loop_lag: float | None) -> None:
        """Note how long the event loop of a host took to answer a probe."""
        label = self.labels.get(host)
        if label is not None and loop_lag is not None:
            self.loop_lag.setdefault(label, Histogram(_LAG_BOUNDS)).observe(loop_lag)

    def stalled(self, seconds: Iterable[float]) -> None:
        """Count steps on the event loop of a host that took too long."""
        for one in seconds:
            self.stalls += 1
            self.stall_seconds += one

    def host_died(self, host: HostId, end: ProcessEnd) -> None:
        """Free the label of a host, and count the host if the timer of its lease has killed it."""
        self.labels.pop(host, None)
        self.deadman_kills += end.by_lease_timer

    # From the monitor

    def monitor_reported(self, numbers: ClusterNumbers) -> None:
        """Take the numbers of the monitor that this node runs."""
        self.cluster = numbers

    def monitor_ended(self) -> None:
        """Forget the state of the cluster, and keep what has happened."""
        self._earlier, self.cluster = self.totals, None

    @property
    def totals(self) -> ClusterTotals:
        """Return what has happened while this node led."""
        if self.cluster is None:
            return self._earlier
        before, now = self._earlier, self.cluster.totals
        return ClusterTotals(
            moves={reason: count + now.moves.get(reason, 0) for reason, count in before.moves.items()},
            nodes_lost=before.nodes_lost + now.nodes_lost,
            mass_failures=before.mass_failures + now.mass_failures,
        )
