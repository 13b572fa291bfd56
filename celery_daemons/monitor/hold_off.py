"""When the monitor holds still: it is better to be late than to start a daemon beside one that may still run."""

import logging
import time
from collections.abc import Mapping

from celery_daemons.domain.names import NodeName

logger = logging.getLogger(__name__)

#: Clusters of fewer nodes have no majority to lose: two nodes are half and half.
_FEW = 3
#: The share of its lease below which a node is as good as lost: with three heartbeats to a lease, it missed one or two.
_OVERDUE = 1 / 3


class HoldOff:
    """Counts down to the moment from which leases in Redis can be trusted again; in monotonic seconds."""

    def __init__(self, lease_ttl: float) -> None:
        self._lease_ttl = lease_ttl
        self._met = ""
        self._lost: dict[NodeName, float] = {}
        self._braking = False
        #: Nothing is swept or assigned before.
        self.until = 0.0
        #: Nothing is swept before this either.
        self.sweeps_from = 0.0

    @property
    def over(self) -> bool:
        """Whether the monitor may act."""
        return time.monotonic() >= self.until

    @property
    def sweeps(self) -> bool:
        """Whether the monitor may take a node whose lease has ended for lost."""
        return time.monotonic() >= max(self.until, self.sweeps_from)

    def after_silence(self, heard_ms: int | None) -> None:
        """Redis did not hear of any node for a lease: the same, for a monitor that was elected after that.

        ``heard_ms`` is how long ago the first of them was heard again. What a node holds may still be running, where
        daemons prefer a duplicate to a gap.
        """
        if heard_ms is not None:
            self.sweeps_from = time.monotonic() + self._lease_ttl - heard_ms / 1000

    def after_outage(self) -> None:
        """Redis did not answer: every node has to have had a lease's time to beat again before one counts as lost."""
        self._wait_a_lease()

    def with_data_of(self, age_ms: int | None) -> None:
        """After a loss of data those who hold daemons speak first: each has told within its lease, or is dead."""
        if age_ms is None:
            self._wait_a_lease()
        elif age_ms < self._lease_ttl * 1000:
            self.until = max(self.until, time.monotonic() + self._lease_ttl - age_ms / 1000)

    def with_server(self, server: str, *, settled: str) -> bool:
        """After a restart or a promotion too: leases may be those of a while ago, the last writes may be missing.

        True once the monitor may record that it has settled with this server.
        """
        if settled == server:
            return False
        if self._met != server:
            self._met = server
            if settled:
                logger.warning("monitor: Redis is another server than before, waiting one lease for all nodes to beat")
                self._wait_a_lease()
        return self.over

    def with_losses(self, leases: Mapping[NodeName, int]) -> str | None:
        """If most nodes are lost at once, wait one more lease: it is rather the network than so many machines.

        ``leases`` are the milliseconds left to each node that Redis still knows. The answer says what happened when the
        wait begins.
        """
        now = time.monotonic()
        window = now - self._lease_ttl
        ended = {node for node, left in leases.items() if left <= 0}
        # One that is back, as after a quick restart of its machine, is not lost any more.
        back = {node for node, left in leases.items() if left > 0}
        self._lost = {
            node: at for node, at in self._lost.items() if (at > window and node not in back) or node in ended
        }
        everyone = len(self._lost.keys() | leases.keys())
        for node in ended:
            self._lost.setdefault(node, now)
        # What befell all at once ends their leases up to a heartbeat apart: the first must not be swept before that.
        overdue = {node for node, left in leases.items() if left < self._lease_ttl * 1000 * _OVERDUE}
        lost = len(self._lost.keys() | overdue)
        if not ended:
            self._braking = False
        elif not self._braking and everyone >= _FEW and lost * 2 > everyone:
            self._braking = True
            self._wait_a_lease()
            cause = f"{lost} of {everyone} nodes are lost within one lease: waiting one more"
            logger.error("monitor: %s", cause)
            return cause
        return None

    def _wait_a_lease(self) -> None:
        self.until = max(self.until, time.monotonic() + self._lease_ttl)
