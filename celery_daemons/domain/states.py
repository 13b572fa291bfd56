"""The states of nodes and daemons."""

from enum import StrEnum


class NodeStatus(StrEnum):
    """Whether a node takes daemons, hands daemons over, or has lost the lease."""

    UP = "up"
    DRAINING = "draining"
    LOST = "lost"


class Desired(StrEnum):
    """The state that a spec asks for."""

    RUNNING = "running"
    STOPPED = "stopped"


class DaemonStatus(StrEnum):
    """The state of a daemon."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"
    STOPPED = "stopped"
    UNPLACEABLE = "unplaceable"


class Outcome(StrEnum):
    """How a run of a daemon ended."""

    STOPPED = "stopped"  #: stopped on request
    FINISHED = "finished"  #: its code returned and its restart policy does not start it again
    FAILED = "failed"  #: its code raised or its process died
    REFUSED = "refused"  #: this node cannot run it: another node should
    EXHAUSTED = "exhausted"  #: it failed too often on this node: another node should try
