"""Whether a node, or a candidate without a node, takes part in its cluster."""

from celery_daemons.node.candidate import Candidate
from celery_daemons.node.lifetime import Lifetime
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.node.serving import Serving


class NodeReadiness:
    """A node takes part while its lease runs and it takes daemons."""

    def __init__(self, *, lease: NodeLease, serving: Serving, lifetime: Lifetime, uncordon: str) -> None:
        """``uncordon`` is the command that ends a drain of this node."""
        self._uncordon = uncordon
        self._lease = lease
        self._serving = serving
        self._lifetime = lifetime

    @property
    def started(self) -> bool:
        """Whether the node has joined once."""
        return self._lease.has_joined

    def why_not(self) -> str:
        """Return why the node takes no daemons."""
        if self._lifetime.is_leaving:
            return "the node leaves"
        if self._lease.incarnation is None:
            return "the node has not joined; the log of the worker says what it waits for"
        if not self._lease.is_running():
            return "the lease of the node has ended: Redis does not answer"
        if self._lease.draining:
            return f"the node drains; `{self._uncordon}` ends that"
        return f"the node cannot start processes: {self._serving.problem}" if self._serving.problem else ""


class CandidateReadiness:
    """A candidate takes part while Redis answers."""

    def __init__(self, *, candidate: Candidate, lifetime: Lifetime) -> None:
        self._candidate = candidate
        self._lifetime = lifetime

    @property
    def started(self) -> bool:
        """Whether Redis has answered once."""
        return self._candidate.has_started

    def why_not(self) -> str:
        """Return why the candidate cannot be elected."""
        if self._lifetime.is_leaving:
            return "the candidate leaves"
        return "" if self._candidate.is_running() else "Redis does not answer"
