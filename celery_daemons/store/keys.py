"""The names of all Redis keys."""

from dataclasses import dataclass
from typing import Final

from celery_daemons.domain.names import NodeName

#: The version of the key layout and of the format of values; part of every key.
LAYOUT: Final = "1"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a namespace; all share a hash slot, so that every script is atomic on a Redis Cluster too."""

    namespace: str

    def _key(self, *parts: str) -> str:
        return ":".join((f"{{{self.namespace}}}:v{LAYOUT}", *parts))

    @property
    def cluster(self) -> str:
        """Hash: layout, created_ms, server, heard_ms, lost_lease_ms, rebalance. A missing key means lost data."""
        return self._key("cluster")

    @property
    def monitor(self) -> str:
        """String with an expiry: the leader's node, incarnation and epoch."""
        return self._key("monitor")

    @property
    def clock(self) -> str:
        """String: the last token or epoch issued."""
        return self._key("clock")

    @property
    def nodes(self) -> str:
        """Hash: node → record."""
        return self._key("nodes")

    @property
    def leases(self) -> str:
        """Sorted set: node → end of the lease in server milliseconds."""
        return self._key("leases")

    @property
    def lease_lengths(self) -> str:
        """Sorted set: node → length of the lease in milliseconds."""
        return self._key("lease_lengths")

    @property
    def specs(self) -> str:
        """Hash: daemon → spec."""
        return self._key("specs")

    @property
    def book(self) -> str:
        """Hash: daemon → entry of the address book."""
        return self._key("book")

    @property
    def counts(self) -> str:
        """Hash: desired state, status, incarnation and launcher → number of daemons."""
        return self._key("counts")

    @property
    def unhealthy(self) -> str:
        """Sorted set: daemon that needs attention → number of the status."""
        return self._key("unhealthy")

    @property
    def tallies(self) -> tuple[str, str]:
        """The last two keys of every verb that changes specs or entries."""
        return self.counts, self.unhealthy

    @property
    def traces(self) -> str:
        """Hash: daemon → the traceback of the last failure."""
        return self._key("traces")

    @property
    def scans(self) -> str:
        """Hash: launcher → result of the last run of the recovery scanner."""
        return self._key("scans")

    @property
    def gone(self) -> str:
        """Hash: departed node → the queues, until the monitor has deleted these from the broker."""
        return self._key("gone")

    @property
    def ended(self) -> str:
        """Sorted set: forgotten daemons and incarnations that have left → the token of that moment, for a while."""
        return self._key("ended")

    @property
    def journal(self) -> str:
        """Stream: every change."""
        return self._key("journal")

    def held(self, node: NodeName) -> str:
        """Set: the daemons assigned to a node."""
        return self._key("node", node, "daemons")

    def generation(self, node: NodeName) -> str:
        """String: a number that grows with every assignment to a node and every recall from that node."""
        return self._key("node", node, "generation")

    def bell(self, node: NodeName) -> str:
        """List: questions that wait for the agent of a node; absent while there are none."""
        return self._key("node", node, "bell")

    def answer(self, question: str) -> str:
        """List with an expiry: the answer to a question."""
        return self._key("answer", question)
