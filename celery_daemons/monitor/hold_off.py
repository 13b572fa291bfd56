"""Decide how long the monitor must not act: a late start is better than a second copy of a daemon that still runs."""

import logging
from collections.abc import Callable, Mapping

from celery_daemons.domain.names import NodeName

logger = logging.getLogger(__name__)

#: The brake on mass failures needs this many nodes: of two nodes, one lost node is no majority.
_BRAKE_MIN_NODES = 3
#: The share of a lease below which a node counts as lost by the brake. With three heartbeats per lease, such a node has
#: missed one or two of them.
_OVERDUE_SHARE = 1 / 3


class HoldOff:
    """Know from which moment the leases in Redis can be trusted; in seconds on ``clock``."""

    def __init__(self, lease_ttl: float, clock: Callable[[], float]) -> None:
        self._lease_ttl = lease_ttl
        self._clock = clock
        #: The last Redis server that answered, by its run id.
        self._server = ""
        self._lost_at: dict[NodeName, float] = {}
        self._braking = False
        #: Nothing is swept or assigned before this time.
        self.no_action_before = 0.0
        #: Nothing is swept before this time either; assigning is allowed.
        self.no_sweep_before = 0.0

    @property
    def may_act(self) -> bool:
        """Return whether the monitor may assign and recall daemons."""
        return self._clock() >= self.no_action_before

    @property
    def may_sweep(self) -> bool:
        """Return whether the monitor may treat a node whose lease has ended as lost."""
        return self._clock() >= max(self.no_action_before, self.no_sweep_before)

    def on_cluster_silence(self, first_beat_ms: int | None) -> None:
        """Delay sweeps by a full lease after a time in which no node renewed a lease.

        This protects the nodes when the monitor was elected after the outage and did not see it. Where daemons prefer a
        duplicate to a gap, the daemons of a silent node may still be running. ``first_beat_ms`` is how many
        milliseconds ago the first node renewed its lease again, ``None`` if there was no such time.
        """
        if first_beat_ms is not None:
            self.no_sweep_before = self._clock() + self._lease_ttl - first_beat_ms / 1000

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
        elif age_ms < self._lease_ttl * 1000:
            self.no_action_before = max(self.no_action_before, self._clock() + self._lease_ttl - age_ms / 1000)

    def on_server(self, server: str, *, confirmed: str) -> bool:
        """Wait a full lease after a change of the Redis server; a restart and a promoted replica count as a change.

        The leases of such a server may be out of date, and the last writes may be missing. ``confirmed`` is the run id
        of the server that a monitor last confirmed. Return whether the monitor may confirm ``server`` now.
        """
        if confirmed == server:
            return False
        if self._server != server:
            self._server = server
            if confirmed:
                logger.warning("monitor: Redis server changed, waiting one lease for every node to renew its lease")
                self._wait_one_lease()
        return self.may_act

    def on_mass_loss(self, leases: Mapping[NodeName, int]) -> str | None:
        """Wait another lease if most nodes are lost at once: a network failure is likelier than so many dead machines.

        ``leases`` are the milliseconds left to each node that Redis knows. Return a description when the wait begins,
        else ``None``.
        """
        now = self._clock()
        window = now - self._lease_ttl
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
        overdue = {node for node, left in leases.items() if left < self._lease_ttl * 1000 * _OVERDUE_SHARE}
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
        self.no_action_before = max(self.no_action_before, self._clock() + self._lease_ttl)
