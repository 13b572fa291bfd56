"""The states of nodes and daemons, and nothing else."""

from enum import StrEnum


class NodeStatus(StrEnum):
    """What a node does: takes daemons, hands them over, or has let its lease run out."""

    UP = "up"
    DRAINING = "draining"
    LOST = "lost"


class Desired(StrEnum):
    """What the spec wants of a daemon."""

    RUNNING = "running"
    STOPPED = "stopped"


class DaemonStatus(StrEnum):
    """Where a daemon is in its life."""

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
    """How one life of a daemon ended."""

    STOPPED = "stopped"  #: it was asked to stop, and did
    FINISHED = "finished"  #: its code returned, and its restart policy wants no other life
    FAILED = "failed"  #: it raised or its process died
    REFUSED = "refused"  #: this node cannot run it: another one should
    EXHAUSTED = "exhausted"  #: it failed here too often: another node should try
