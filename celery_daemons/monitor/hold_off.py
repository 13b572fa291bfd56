"""Decide how long the monitor must not act: a late start is better than a second copy of a daemon that still runs."""

import logging
import math
from collections.abc import Callable, Mapping

from celery_daemons.domain.longest_lease import LongestLease
from celery_daemons.domain.names import NodeName

logger = logging.getLogger(__name__)

#: The brake on mass failures needs this many nodes: of two nodes, one lost node is no majority.
_BRAKE_MIN_NODES = 3
#: The share of a lease below which a node counts as lost by the brake. With three heartbeats per lease, such a node has
#: missed one or two of them.
_OVERDUE_SHARE = 1 / 3


class HoldOff:
    """Know from which moment the leases in Redis can be trusted; in seconds on ``clock``.

    Every wait takes one lease, and that is the longest lease of any node that may hold daemons.
    """

    def __init__(
        self, lease_ttl: float, clock: Callable[[], float], *, longest: float = 0.0, known_since: float | None = None
    ) -> None:
        """``longest`` is the longest lease that the agent of this monitor knows of, in seconds.

        ``known_since`` is when the server with its present data first answered that agent, on ``clock``; ``None`` if
        this is not known.
        """
        self._longest = LongestLease(max(lease_ttl, longest))
        self._clock = clock
        self._known_since = clock() if known_since is None else known_since
        #: The id of the last Redis server that answered; ``None`` before the first answer.
        self._server: str | None = None
        self._lost_at: dict[NodeName, float] = {}
        self._braking = False
        #: When the last wait of one lease began, for any action and for sweeps.
        self._waits_since = self._sweep_waits_since = -math.inf

    @property
    def lease(self) -> float:
        """Return the longest lease that any node may have."""
        return self._longest.seconds

    @property
    def no_action_before(self) -> float:
        """Return the earliest time at which the monitor may assign and sweep; in the past if allowed now."""
        return max(0.0, self._waits_since + self.lease)

    @property
    def no_sweep_before(self) -> float:
        """Return a later time before which nothing is swept although assigning is allowed."""
        return max(0.0, self._sweep_waits_since + self.lease)

    @property
    def may_act(self) -> bool:
        """Return whether the monitor may assign and recall daemons, and record what scanners list."""
        return self._clock() >= self.no_action_before

    @property
    def may_sweep(self) -> bool:
        """Return whether the monitor may treat a node whose lease has ended as lost."""
        return self._clock() >= max(self.no_action_before, self.no_sweep_before)

    def on_longest_lease(self, seconds: float) -> None:
        """Note the longest lease of a registered node, or of a node that Redis has forgotten."""
        self._longest.note(seconds, now=self._clock())

    def on_cluster_silence(self, first_beat_ms: int | None) -> None:
        """Delay sweeps by a full lease after a time in which no node renewed a lease.

        This protects the nodes when the monitor was elected after the outage and did not see it. Where daemons prefer a
        duplicate to a gap, the daemons of a silent node may still be running. ``first_beat_ms`` is how many
        milliseconds ago the first node renewed its lease again, ``None`` if there was no such time.
        """
        if first_beat_ms is not None:
            self._sweep_waits_since = self._clock() - first_beat_ms / 1000

    def on_outage(self) -> None:
        """Wait a full lease after Redis did not answer: no node counts as lost before there was time to renew."""
        self._wait_one_lease()

    def on_data_age(self, age_ms: int | None) -> None:
        """Wait until the cluster's data is a full lease old; ``None`` means that there is no data.

        After a loss of data, nodes report the daemons that they run. A node that has not done so within its lease is
        dead, and so are its daemons.
        """
        if age_ms is None:
            self._wait_one_lease()
        else:
            self._waits_since = max(self._waits_since, self._clock() - age_ms / 1000)

    def on_server(self, server: str, *, confirmed: str) -> bool:
        """Wait a full lease after a change of the Redis server; a restart and a promoted replica count as a change.

        The leases of such a server may be out of date, and the last writes may be missing. ``confirmed`` is the id of
        the server that a monitor last confirmed. Data without a confirmation may be older than any: it counts from
        the moment at which this server with this data answered this node. Return whether the monitor may confirm
        ``server`` now.
        """
        first, changed = self._server is None, self._server != server
        self._server = server
        if confirmed == server:
            return False
        if confirmed and changed:
            logger.warning("monitor: Redis server changed, waiting %g s for every node to renew its lease", self.lease)
            self._wait_one_lease()
        elif not confirmed and changed:
            self._waits_since = max(self._waits_since, self._known_since if first else self._clock())
        return self.may_act

    def on_mass_loss(self, leases: Mapping[NodeName, int], lengths: Mapping[NodeName, int] | None = None) -> str | None:
        """Wait another lease if most nodes are lost at once: a network failure is likelier than so many dead machines.

        ``leases`` are the milliseconds left to each node that Redis knows, ``lengths`` those of its whole lease.
        Return a description when the wait begins, else ``None``.
        """
        now = self._clock()
        window = now - self.lease
        ended = {node for node, left in leases.items() if left <= 0}
        # A node that is back, for example after a quick restart of its machine, is not lost.
        back = {node for node, left in leases.items() if left > 0}
        self._lost_at = {
            node: at for node, at in self._lost_at.items() if (at > window and node not in back) or node in ended
        }
        known = len(self._lost_at.keys() | leases.keys())
        for node in ended:
            self._lost_at.setdefault(node, now)
        # Nodes that fail in the same moment have leases that end up to a heartbeat apart. Without counting the overdue
        # ones, the first node would be swept before the brake sees the others.
        lengths = lengths or {}
        overdue = {
            node for node, left in leases.items() if left < lengths.get(node, self.lease * 1000) * _OVERDUE_SHARE
        }
        lost = len(self._lost_at.keys() | overdue)
        if not ended:
            self._braking = False
        elif not self._braking and known >= _BRAKE_MIN_NODES and lost * 2 > known:
            self._braking = True
            self._wait_one_lease()
            cause = f"{lost} of {known} nodes lost within one lease; waiting one more lease before sweeping them"
            logger.error("monitor: %s", cause)
            return cause
        return None

    def _wait_one_lease(self) -> None:
        self._waits_since = max(self._waits_since, self._clock())
